import { setTimeout as delay } from 'node:timers/promises'
import type { RegistryErrorCode } from './errors.ts'
import { RegistryError } from './errors.ts'

/** Time and chance, so that tests can turn them. */
export interface Clock {
  /** Milliseconds since 1970. */
  now(): number
  /** Resolves after `ms`; rejects when the signal is aborted first. */
  sleep(ms: number, signal: AbortSignal): Promise<void>
  /** In [0, 1). */
  random(): number
}

export const SYSTEM_CLOCK: Clock = {
  now: () => Date.now(),
  sleep: async (ms, signal) => {
    await delay(ms, undefined, { signal })
  },
  random: () => Math.random(),
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

export const DEFAULT_RETRY: RetryPolicy = { attempts: 5, baseDelayMs: 100, maxDelayMs: 5_000, maxRetryAfterMs: 60_000 }

/** What waiting can cure. A lie ('BAD_RESPONSE') is not asked for again: the caller may, elsewhere. */
const WORTH_A_RETRY: ReadonlySet<RegistryErrorCode> = new Set([
  'THROTTLED',
  'UNAVAILABLE',
  'UNREACHABLE',
  'TIMEOUT',
  'TRUNCATED',
])

const hopeless = new WeakSet<RegistryError>()

/** Marks an error of a code that is usually worth a retry as one that is not (a range beyond the end of the blob). */
export function withoutRetry(error: RegistryError): RegistryError {
  hopeless.add(error)
  return error
}

/** How long the registry asked us to stay away, beside the error that came of it. */
const retryAfter = new WeakMap<RegistryError, number>()

/** Notes what a Retry-After header said. */
export function noteRetryAfter(error: RegistryError, header: string | undefined, nowMs: number): void {
  const ms = retryAfterMs(header, nowMs)
  if (ms !== undefined) retryAfter.set(error, ms)
}

/** What a Retry-After header says (seconds or an HTTP date), milliseconds. Undefined for nonsense. */
export function retryAfterMs(header: string | string[] | undefined, nowMs: number): number | undefined {
  if (typeof header !== 'string') return undefined
  const ms = /^\d{1,9}$/.test(header.trim()) ? Number(header) * 1000 : Date.parse(header) - nowMs
  return Number.isFinite(ms) ? Math.max(0, ms) : undefined
}

/** Whether the same request may succeed later, as far as we know; what another try cannot help is not. */
export function worthRetry(error: RegistryError): boolean {
  return error.retryable && !hopeless.has(error)
}

/** The tries of one request: tell it each failure; it waits, or throws the failure when there is no point in going on. */
export class Tries {
  readonly #policy: RetryPolicy
  readonly #clock: Clock
  readonly #signal: AbortSignal
  #failures = 0
  /** Tries that are left, whatever the policy says. */
  #left = Number.POSITIVE_INFINITY

  constructor(policy: RetryPolicy, clock: Clock, signal: AbortSignal) {
    this.#policy = policy
    this.#clock = clock
    this.#signal = signal
  }

  /** Resolves when it is time for the next try; throws `error` when it was the last, or when another try cannot help. */
  async failed(error: unknown): Promise<void> {
    this.#failures += 1
    if (this.#left <= 0) throw error
    this.#left -= 1
    if (!(error instanceof RegistryError) || !WORTH_A_RETRY.has(error.code) || hopeless.has(error)) throw error
    if (this.#failures >= this.#policy.attempts) throw error
    try {
      await this.#clock.sleep(this.#delayMs(error), this.#signal)
    } catch (reason) {
      if (!this.#signal.aborted) throw reason
      const code = this.#signal.reason instanceof RegistryError ? this.#signal.reason.code : 'ABORTED'
      throw new RegistryError(code, `gave up before another try: ${error.message}`, { cause: error })
    }
  }

  /** After a failure: whether the try that is now due is the last. */
  get isLast(): boolean {
    return this.#failures + 1 >= this.#policy.attempts || this.#left <= 0
  }

  /** A try that got somewhere before it failed does not count. */
  progressed(): void {
    this.#failures = 0
    this.#left = Number.POSITIVE_INFINITY
  }

  /** Before a failure is told: at most so many tries after it. */
  leave(tries: number): void {
    this.#left = Math.min(this.#left, tries)
  }

  #delayMs(error: RegistryError): number {
    const asked = retryAfter.get(error)
    if (asked !== undefined) return Math.min(asked, this.#policy.maxRetryAfterMs)
    const full = Math.min(this.#policy.baseDelayMs * 2 ** (this.#failures - 1), this.#policy.maxDelayMs)
    return full / 2 + (full / 2) * this.#clock.random()
  }
}
