/**
 * What can go wrong in tools beside a snapshotter.
 *
 * - `BAD_OPTION`: a flag or configuration that cannot be used.
 * - `UNSUPPORTED`: named, and not in this version.
 * - `NOT_FOUND`: an image, content or layer that is not there.
 * - `BAD_IMAGE`: an image that contradicts itself.
 * - `UNREACHABLE`: containerd does not answer.
 * - `FAILED`: somebody else's part of the work failed; the message says which.
 */
export type IntegrationErrorCode = 'BAD_OPTION' | 'UNSUPPORTED' | 'NOT_FOUND' | 'BAD_IMAGE' | 'UNREACHABLE' | 'FAILED'

/** The one error class of this room. */
export class IntegrationError extends Error {
  override readonly name = 'IntegrationError'
  readonly code: IntegrationErrorCode

  constructor(code: IntegrationErrorCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}
