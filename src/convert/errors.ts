/** What can go wrong between images, for programs; the message is for people. */
export type ConvertErrorCode =
  /** The source has no image for the platform, or is not an image. */
  | 'NO_IMAGE'
  /** The source is a Nydus image already. */
  | 'ALREADY_NYDUS'
  /** The image's parts contradict each other (diff ids, digests, media types), or its bootstrap layer is not one. */
  | 'BAD_IMAGE'
  /** An option asks for what this version does not do; the message names it. */
  | 'UNSUPPORTED'
  /** An option has a value that cannot be used, or two options contradict each other. */
  | 'BAD_OPTION'
  /** `check` found differences; the findings name them. */
  | 'CHECK_FAILED'
  /** nydusd ended, or did not mount the image in time. */
  | 'MOUNT_FAILED'
  /** A file or folder of this machine cannot be written. */
  | 'OUTPUT'

/** An error of a conversion, a check or a mount of an image. */
export class ConvertError extends Error {
  override readonly name = 'ConvertError'
  readonly code: ConvertErrorCode

  constructor(code: ConvertErrorCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}
