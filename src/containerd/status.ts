import { ContainerdError, STATUS_CODE } from './errors.ts'

/** How a call ended, as gRPC says it. */
export interface Status {
  readonly code: number
  readonly details: string
}

/** Longer messages could fill the headers that they travel in. */
const MAX_DETAILS = 8 * 1024

/** The status of a call whose handler threw `error`. */
export function statusOf(error: unknown): Status {
  const details = error instanceof Error ? error.message : String(error)
  return {
    code: error instanceof ContainerdError ? STATUS_CODE[error.code] : STATUS_CODE.UNKNOWN,
    details: details.length > MAX_DETAILS ? `${details.slice(0, MAX_DETAILS)}…` : details,
  }
}
