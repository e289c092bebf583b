/** `CORRUPT`: not what the format allows. `TRUNCATED`: fewer bytes than wanted. `TOO_LONG`: more. `UNSUPPORTED`: nothing here can do it. */
export type CodecErrorCode = 'CORRUPT' | 'TRUNCATED' | 'TOO_LONG' | 'UNSUPPORTED'

/** An error of a codec. It names the algorithm and what was found; the caller adds which object it was. */
export class CodecError extends Error {
  override readonly name = 'CodecError'
  readonly code: CodecErrorCode

  constructor(code: CodecErrorCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}
