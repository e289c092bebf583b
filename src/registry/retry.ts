/** Time and chance, so that tests can turn them. */
export interface Clock {
  now(): number
  /** Resolves after `ms`; rejects with the signal's reason when it is aborted first. */
  sleep(ms: number, signal: AbortSignal): Promise<void>
  /** In [0, 1). */
  random(): number
}

/** How often and how patiently one request is tried. */
export interface RetryPolicy {
  /** Tries in all; 1 means no retry. */
  readonly attempts: number
  /** Wait before the first retry; doubles with each, with jitter of half. */
  readonly baseDelayMs: number
  readonly maxDelayMs: number
  /** Cap on what a Retry-After header may ask. */
  readonly maxRetryAfterMs: number
}
