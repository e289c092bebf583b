/** What can go wrong between images, for programs; the message is for people. */
export type ConvertErrorCode =
  /** The source has no image for the platform, or is not an image. */
  | 'NO_IMAGE'
  /** The source is a Nydus image already. */
  | 'ALREADY_NYDUS'
  /** The source's parts contradict each other (diff ids, digests, media types). */
  | 'BAD_SOURCE'
  /** A flag asks for what this version does not do; the message names it. */
  | 'UNSUPPORTED'
  | 'BAD_OPTION'
  /** `check` found a difference; the findings name it. */
  | 'CHECK_FAILED'
  | 'ABORTED'

/** An error of a conversion, a check or a mount of an image. */
export class ConvertError extends Error {
  override readonly name = 'ConvertError'
  readonly code: ConvertErrorCode

  constructor(code: ConvertErrorCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}
