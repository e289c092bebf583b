import { setTimeout as delay } from 'node:timers/promises'
import { RegistryError } from '../registry/index.ts'

/** Repeats pushes that failed for a reason that may pass, on top of the client's own retries of requests. */
export class PushRetry {
  readonly #count: number
  readonly #delayMs: number
  readonly #onRetry: (error: RegistryError, left: number) => void

  constructor(options: {
    readonly count: number
    readonly delayMs: number
    readonly onRetry: (error: RegistryError, left: number) => void
  }) {
    this.#count = options.count
    this.#delayMs = options.delayMs
    this.#onRetry = options.onRetry
  }

  async run<Result>(push: () => Promise<Result>, signal: AbortSignal): Promise<Result> {
    for (let left = this.#count; ; left -= 1) {
      try {
        return await push()
      } catch (error) {
        signal.throwIfAborted()
        if (left <= 0 || !(error instanceof RegistryError) || !error.retryable) throw error
        this.#onRetry(error, left)
        await delay(this.#delayMs, undefined, { signal })
      }
    }
  }
}
