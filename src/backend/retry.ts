import { setTimeout as delay } from 'node:timers/promises'
import { isPeerFailure, isProxyThrottle } from '../registry/index.ts'
import type { Backend, BlobReader, ReadOptions } from './backend.ts'
import { abortedRead, BackendError } from './errors.ts'

/** How often and how patiently one read is tried. */
export interface RetryOptions {
  /** Tries in all; 1 means no retry. */
  readonly attempts: number
  /** Upper bound of the wait before the first retry, milliseconds; doubles with each. */
  readonly baseDelayMs: number
  readonly maxDelayMs: number
  /** Cap on what the other side may ask for (Retry-After); default 60,000. */
  readonly maxRetryAfterMs?: number
}

/** Time and chance, so that tests can turn them. */
export interface RetryClock {
  /** Resolves after `ms`; rejects when the signal is aborted first. */
  sleep(ms: number, signal: AbortSignal): Promise<void>
  /** In [0, 1). */
  random(): number
}

const SYSTEM_CLOCK: RetryClock = {
  sleep: async (ms, signal) => {
    await delay(ms, undefined, { signal })
  },
  random: () => Math.random(),
}

/** A try that brought this much is no failed one: a slow link is no dead one. */
const PROGRESS_BYTES = 64 * 1024
/** Nobody waits for it: whoever wants it ahead asks again later. */
const PREFETCH_TRIES = 2

/**
 * Tries reads and size questions again whose failure is `retryable`, after an exponential wait with full jitter, or after what Retry-After said.
 * What is fetched ahead is tried twice at most. A read goes on where it stopped: only the missing end is asked for again. `open` is not retried. The last failure is thrown, its `attempts` counted up.
 *
 * A failure that stands for several attempts (the registry driver retries on its own) counts as so many, so that stacking does not multiply.
 */
export function withRetry(backend: Backend, options: RetryOptions, clock: RetryClock = SYSTEM_CLOCK): Backend {
  return {
    name: backend.name,
    open: async (blobId) => new RetryReader(await backend.open(blobId), options, clock),
    close: () => backend.close(),
  }
}

/** What the try before ended with, and whether the one after it is the last. */
interface Failure {
  readonly error: BackendError
  readonly isLast: boolean
}

/** What is tried, and at most how often. */
interface Trial {
  readonly what: string
  readonly signal: AbortSignal
  /** Nobody waits for it. */
  readonly isAhead?: boolean
}

class RetryReader implements BlobReader {
  readonly #inner: BlobReader
  readonly #options: RetryOptions
  readonly #clock: RetryClock
  readonly #closing = new AbortController()

  constructor(inner: BlobReader, options: RetryOptions, clock: RetryClock) {
    this.#inner = inner
    this.#options = options
    this.#clock = clock
  }

  size(signal: AbortSignal): Promise<number> {
    return this.#tried({ what: 'ask for the size of a blob', signal }, () => this.#inner.size(signal))
  }

  read(compressedOffset: number, into: Uint8Array, options: ReadOptions): Promise<void> {
    let filled = 0
    let counted = 0
    const progressed = (): boolean => {
      const far = filled - counted >= PROGRESS_BYTES
      if (far) counted = filled
      return far
    }
    const { purpose = 'demand' } = options
    const once = async (before: Failure | undefined): Promise<void> => {
      const from = filled
      const onFilled = (part: number): void => {
        // The inner reader counts from where this try began.
        if (from + part <= filled) return
        filled = from + part
        options.onFilled?.(filled)
      }
      const rest = from === 0 ? into : into.subarray(from)
      // The last try of a reader who waits, the one after a proxy had too much to do, and all after wrong bytes, go past the proxy.
      const isLast = before !== undefined && (before.isLast || isProxyThrottle(before.error))
      const fromSource = purpose === 'demand' && (isLast || options.afterWrongBytes === true)
      await this.#inner.read(compressedOffset + from, rest, { ...options, fromSource, onFilled })
    }
    const isAhead = purpose === 'prefetch'
    return this.#tried({ what: 'read a blob', signal: options.signal, isAhead }, once, progressed)
  }

  async close(): Promise<void> {
    this.#closing.abort(new BackendError('CLOSED', 'the blob was closed'))
    await this.#inner.close()
  }

  async #tried<T>(
    { what, signal, isAhead = false }: Trial,
    act: (before: Failure | undefined) => Promise<T>,
    progressed = () => false,
  ): Promise<T> {
    const most = isAhead ? Math.min(PREFETCH_TRIES, this.#options.attempts) : this.#options.attempts
    let attempts = most
    let before: Failure | undefined
    for (let failures = 0, waits = 0; ; waits += 1) {
      try {
        return await act(before)
      } catch (error) {
        if (!(error instanceof BackendError) || !error.retryable) throw error
        const isFar = progressed()
        if (isFar) [failures, waits, attempts] = [0, 0, most]
        failures += error.attempts
        // A peer has tried for itself: one try is left, past the peers, where somebody waits.
        if (!isFar && isPeerFailure(error)) attempts = Math.min(attempts, failures + (isAhead ? 0 : 1))
        if (failures >= attempts) throw exhausted(error, failures)
        before = { error, isLast: failures + 1 >= attempts }
        await this.#wait(what, error, waits, signal)
      }
    }
  }

  async #wait(what: string, error: BackendError, waits: number, signal: AbortSignal): Promise<void> {
    const { baseDelayMs, maxDelayMs, maxRetryAfterMs = 60_000 } = this.#options
    const jittered = Math.min(baseDelayMs * 2 ** waits, maxDelayMs) * this.#clock.random()
    const ms = error.retryAfterMs === undefined ? jittered : Math.min(error.retryAfterMs, maxRetryAfterMs)
    const either = AbortSignal.any([signal, this.#closing.signal])
    try {
      await this.#clock.sleep(ms, either)
    } catch (reason) {
      if (!either.aborted) throw reason
      throw abortedRead(`${what} again after "${error.message}"`, either)
    }
  }
}

function exhausted(error: BackendError, attempts: number): BackendError {
  if (attempts === error.attempts) return error
  const { code, message, status, retryable } = error
  const after = error.retryAfterMs === undefined ? {} : { retryAfterMs: error.retryAfterMs }
  return new BackendError(code, `${message} (${attempts} attempts)`, {
    status,
    retryable,
    attempts,
    cause: error,
    ...after,
  })
}
