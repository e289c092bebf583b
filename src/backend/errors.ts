/**
 * What can go wrong between us and the place where a blob is kept. Programs act on the code, people read the message.
 *
 * - `NOT_FOUND`: there is no such blob.
 * - `UNAUTHORIZED`, `FORBIDDEN`, `UNTRUSTED`: the login is missing or wrong; the login may not read this; the server's certificate is not accepted.
 * - `TRUNCATED`: fewer bytes than asked for; the range may be beyond the blob's end.
 * - `TIMEOUT`: no answer in time, or the caller's deadline. `UNREACHABLE`: no connection, or it broke.
 * - `RATE_LIMITED` (429), `SERVER` (5xx): the server asks to come again later.
 * - `BAD_ANSWER`: an answer that breaks the protocol, lies about ranges or lengths, or refuses the request.
 * - `BAD_OPTION`: an option, blob id or range that no backend can use.
 * - `IO`: the local file system failed.
 * - `CLOSED`: used after `close`. `ABORTED`: the caller's signal.
 */
export type BackendErrorCode =
  | 'NOT_FOUND'
  | 'UNAUTHORIZED'
  | 'FORBIDDEN'
  | 'UNTRUSTED'
  | 'TRUNCATED'
  | 'TIMEOUT'
  | 'UNREACHABLE'
  | 'RATE_LIMITED'
  | 'SERVER'
  | 'BAD_ANSWER'
  | 'BAD_OPTION'
  | 'IO'
  | 'CLOSED'
  | 'ABORTED'

/** Whether trying the same again later can help, where the thrower does not know better. */
const RETRYABLE: Readonly<Record<BackendErrorCode, boolean>> = {
  NOT_FOUND: false,
  UNAUTHORIZED: false,
  FORBIDDEN: false,
  UNTRUSTED: false,
  TRUNCATED: true,
  TIMEOUT: true,
  UNREACHABLE: true,
  RATE_LIMITED: true,
  SERVER: true,
  BAD_ANSWER: false,
  BAD_OPTION: false,
  IO: true,
  CLOSED: false,
  ABORTED: false,
}

export interface BackendErrorOptions extends ErrorOptions {
  /** HTTP status, when an answer was the cause. */
  readonly status?: number | undefined
  /** Overrides what the code says. */
  readonly retryable?: boolean
  /** How long the other side asked us to stay away, milliseconds. */
  readonly retryAfterMs?: number
  /** Tries that were made already; default 1. */
  readonly attempts?: number
}

/** The one error class of this room. */
export class BackendError extends Error {
  override readonly name = 'BackendError'
  readonly code: BackendErrorCode
  readonly status: number | undefined
  /** The same read may succeed later without anybody changing anything. */
  readonly retryable: boolean
  readonly retryAfterMs: number | undefined
  /** Tries that this failure stands for, so that retries around retries do not multiply. */
  readonly attempts: number

  constructor(code: BackendErrorCode, message: string, options: BackendErrorOptions = {}) {
    super(message, options.cause === undefined ? {} : { cause: options.cause })
    this.code = code
    this.status = options.status
    this.retryable = options.retryable ?? RETRYABLE[code]
    this.retryAfterMs = options.retryAfterMs
    this.attempts = options.attempts ?? 1
  }
}

/** The error for a read whose signal was aborted: 'TIMEOUT' when a deadline did it (`AbortSignal.timeout`), else 'ABORTED'. */
export function abortedRead(what: string, signal: AbortSignal): BackendError {
  const { reason } = signal
  if (reason instanceof BackendError) return new BackendError(reason.code, `cannot ${what}: ${reason.message}`)
  const late = reason instanceof Error && reason.name === 'TimeoutError'
  return late
    ? new BackendError('TIMEOUT', `cannot ${what}: the deadline of the reader is over`, { cause: reason })
    : new BackendError('ABORTED', `cannot ${what}: the reader no longer waits`, { cause: reason })
}

/** Throws 'BAD_OPTION' for a range that is in no blob. */
export function checkRange(what: string, offset: number, length: number): void {
  if (!Number.isSafeInteger(offset) || offset < 0 || !Number.isSafeInteger(offset + length))
    throw new BackendError('BAD_OPTION', `cannot ${what}: offset ${offset} is not in any blob`)
}

/** Ids come from images, and become file names and parts of URLs: they must lead nowhere else. Throws 'BAD_OPTION' for what is none. */
export function checkBlobId(blobId: string): void {
  if (!/^[A-Za-z0-9_][A-Za-z0-9._-]{0,254}$/.test(blobId))
    throw new BackendError('BAD_OPTION', `cannot open blob ${JSON.stringify(blobId.slice(0, 300))}: it is no blob id`)
}

/** What the local file system threw, as this room's error. */
export function fileFailure(what: string, error: unknown): BackendError {
  if (error instanceof BackendError) return error
  const { code, message } = error as NodeJS.ErrnoException
  const known = code === 'EACCES' || code === 'EPERM' ? 'FORBIDDEN' : code === 'ENOENT' ? 'NOT_FOUND' : 'IO'
  return new BackendError(known, `cannot ${what}: ${message}`, { cause: error })
}
