import type { RegistryErrorCode } from '../registry/index.ts'
import { RegistryError, worthRetry } from '../registry/index.ts'
import type { BackendErrorCode } from './errors.ts'
import { BackendError } from './errors.ts'

const CODES: Readonly<Record<RegistryErrorCode, BackendErrorCode>> = {
  BAD_REFERENCE: 'BAD_OPTION',
  BAD_DIGEST: 'BAD_OPTION',
  BAD_MANIFEST: 'BAD_ANSWER',
  BAD_CONFIG: 'BAD_OPTION',
  NOT_FOUND: 'NOT_FOUND',
  UNAUTHORIZED: 'UNAUTHORIZED',
  FORBIDDEN: 'FORBIDDEN',
  THROTTLED: 'RATE_LIMITED',
  UNAVAILABLE: 'SERVER',
  UNTRUSTED: 'UNTRUSTED',
  UNREACHABLE: 'UNREACHABLE',
  TIMEOUT: 'TIMEOUT',
  TRUNCATED: 'TRUNCATED',
  BAD_RESPONSE: 'BAD_ANSWER',
  DIGEST_MISMATCH: 'BAD_ANSWER',
  UNSUPPORTED: 'BAD_ANSWER',
  REFUSED: 'BAD_ANSWER',
  ABORTED: 'ABORTED',
  CLOSED: 'CLOSED',
}

/** What the registry room threw, as this room's error; other errors as they are. `attempts` is what the failure stands for. */
export function fromRegistry(error: unknown, what: string, attempts: number): Error {
  if (error instanceof BackendError) return error
  if (!(error instanceof RegistryError)) return error as Error
  const code = CODES[error.code]
  const { status } = error
  const hopeless = error.retryable && !worthRetry(error) ? { retryable: false } : {}
  return new BackendError(code, `cannot ${what}: ${error.message}`, { cause: error, status, attempts, ...hopeless })
}
