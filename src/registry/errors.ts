/**
 * What can go wrong between us and a registry. Programs act on the code, people read the message.
 *
 * - `BAD_REFERENCE`, `BAD_DIGEST`: text that is no image reference or no digest.
 * - `BAD_MANIFEST`: a manifest, index or config that is not what the OCI or Docker specification allows, or too large.
 * - `BAD_CONFIG`: a Docker client configuration, credential helper, certificate or option that cannot be used.
 * - `NOT_FOUND`: the registry has no such repository, manifest or blob.
 * - `UNAUTHORIZED` (401), `FORBIDDEN` (403): log in, or ask for access.
 * - `THROTTLED`: 429 until the retries were used up. `UNAVAILABLE`: 5xx until the retries were used up.
 * - `UNTRUSTED`: the certificate is not accepted. `UNREACHABLE`: no connection, or it broke. `TIMEOUT`: connecting, headers or body took too long.
 * - `TRUNCATED`: fewer bytes than asked for, after resuming. `BAD_RESPONSE`: an answer that breaks the protocol or lies about ranges or lengths.
 * - `DIGEST_MISMATCH`: the bytes are not those of the digest.
 * - `UNSUPPORTED`: the registry cannot do this (405, or another refusal of the request). `REFUSED`: any other 4xx.
 * - `ABORTED`: the caller's signal. `CLOSED`: used after `close`.
 */
export type RegistryErrorCode =
  | 'BAD_REFERENCE'
  | 'BAD_DIGEST'
  | 'BAD_MANIFEST'
  | 'BAD_CONFIG'
  | 'NOT_FOUND'
  | 'UNAUTHORIZED'
  | 'FORBIDDEN'
  | 'THROTTLED'
  | 'UNAVAILABLE'
  | 'UNTRUSTED'
  | 'UNREACHABLE'
  | 'TIMEOUT'
  | 'TRUNCATED'
  | 'BAD_RESPONSE'
  | 'DIGEST_MISMATCH'
  | 'UNSUPPORTED'
  | 'REFUSED'
  | 'ABORTED'
  | 'CLOSED'

/** Whether trying the same again later can help. */
const RETRYABLE: Readonly<Record<RegistryErrorCode, boolean>> = {
  BAD_REFERENCE: false,
  BAD_DIGEST: false,
  BAD_MANIFEST: false,
  BAD_CONFIG: false,
  NOT_FOUND: false,
  UNAUTHORIZED: false,
  FORBIDDEN: false,
  THROTTLED: true,
  UNAVAILABLE: true,
  UNTRUSTED: false,
  UNREACHABLE: true,
  TIMEOUT: true,
  TRUNCATED: true,
  BAD_RESPONSE: true,
  DIGEST_MISMATCH: false,
  UNSUPPORTED: false,
  REFUSED: false,
  ABORTED: false,
  CLOSED: false,
}

/** The one error class of this room. `status` is the HTTP status when an answer was the cause. */
export class RegistryError extends Error {
  readonly code: RegistryErrorCode
  readonly status: number | undefined

  constructor(code: RegistryErrorCode, message: string, options: { status?: number; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? {} : { cause: options.cause })
    this.name = 'RegistryError'
    this.code = code
    this.status = options.status
  }

  /** True when the same request may succeed later without anybody changing anything. */
  get retryable(): boolean {
    return RETRYABLE[this.code]
  }
}
