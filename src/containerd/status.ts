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
  const text = error instanceof Error ? error.message : String(error)
  const details = text.length > MAX_DETAILS ? `${text.slice(0, MAX_DETAILS)}…` : text
  return {
    code: error instanceof ContainerdError ? STATUS_CODE[error.code] : STATUS_CODE.UNKNOWN,
    // Half of a character, as cutting leaves, cannot be encoded: the call would never be answered.
    details: details.toWellFormed(),
  }
}
