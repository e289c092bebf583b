/**
 * - `TIMEOUT`: the read's deadline is over. `BACKEND`: the bytes could not be had (the cause tells why).
 * - `BAD_DIGEST`: the bytes that came are not what the image says, twice.
 * - `BAD_IMAGE`: a file's chunks are not those of the image's records.
 * - `UNSUPPORTED`: the image stores data in a way that this version cannot read.
 * - `CLOSED`: the image was closed. `ABORTED`: the reader's signal.
 */
export type EngineErrorCode = 'TIMEOUT' | 'BACKEND' | 'BAD_DIGEST' | 'BAD_IMAGE' | 'UNSUPPORTED' | 'CLOSED' | 'ABORTED'

/** A read that got no bytes. */
export class EngineError extends Error {
  override readonly name = 'EngineError'
  readonly code: EngineErrorCode

  constructor(code: EngineErrorCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}

/** For whoever still wants something of an image that was closed. */
export function closed(): EngineError {
  return new EngineError('CLOSED', 'the image was closed')
}
