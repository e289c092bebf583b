/**
 * `BAD_CHECKSUM`: a header's sum does not fit. `BAD_HEADER`: a field cannot be what it says. `BAD_EXTENSION`: a PAX or GNU extension cannot be read.
 * `BAD_SPARSE`: a sparse map contradicts itself. `TRUNCATED`: the archive ends in the middle. `LIMIT`: something is larger than any real archive's.
 */
export type TarErrorCode = 'BAD_CHECKSUM' | 'BAD_HEADER' | 'BAD_EXTENSION' | 'BAD_SPARSE' | 'TRUNCATED' | 'LIMIT'

/** An archive that cannot be read; `archiveOffset` is the byte where the header or extension at fault starts. */
export class TarError extends Error {
  override readonly name = 'TarError'
  readonly code: TarErrorCode
  readonly archiveOffset: number

  constructor(code: TarErrorCode, archiveOffset: number, message: string) {
    super(`cannot read the tar at byte ${archiveOffset}: ${message}`)
    this.code = code
    this.archiveOffset = archiveOffset
  }
}
