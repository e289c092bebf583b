/**
 * `BAD_META`, `BAD_TOC`, `BAD_TAR`: that part of the blob contradicts the format or the bootstrap. `BAD_DIGEST`: bytes are not what the image says.
 * `OUT_OF_RANGE`: no such chunk, or a place outside the blob. `UNSUPPORTED`: a kind of blob that this version does not read or write. `TOO_LARGE`: the format cannot hold it. `NO_SPACE`: there is no room for what is kept while it is written.
 */
export type BlobErrorCode =
  | 'BAD_META'
  | 'BAD_TOC'
  | 'BAD_TAR'
  | 'BAD_DIGEST'
  | 'OUT_OF_RANGE'
  | 'UNSUPPORTED'
  | 'TOO_LARGE'
  | 'NO_SPACE'

/** A blob, or a part of one, that cannot be read, verified or written. */
export class BlobError extends Error {
  override readonly name = 'BlobError'
  readonly code: BlobErrorCode

  constructor(code: BlobErrorCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}
