import type { EngineError } from './errors.ts'

/** The kernel comes back at once: what it could not read ahead it asks for again, a page at a time, before it tells the reader. */
const REMEMBERED_MS = 1_000
/** A failure that was quicker is no burden to anybody, and asking again may cure it. */
const SLOW_MS = 500
const MAX_CHUNKS = 4_096

/**
 * Chunks that were waited for in vain a moment ago: who asks for one of them now has its failure at once, instead of waiting as long again. A success
 * of any other ends it.
 */
export class FailedChunks {
  readonly #failures = new Map<number, { readonly error: EngineError; readonly until: number }>()

  /** `beganAt` and `now` are milliseconds of the engine's clock. */
  note(blob: number, chunks: Iterable<number>, error: EngineError, beganAt: number, now: number): void {
    if (now - beganAt < SLOW_MS) return
    for (const chunk of chunks) {
      const [oldest] = this.#failures.keys()
      if (this.#failures.size >= MAX_CHUNKS && oldest !== undefined) this.#failures.delete(oldest)
      this.#failures.delete(keyOf(blob, chunk)) // to the end of the line
      this.#failures.set(keyOf(blob, chunk), { error, until: now + REMEMBERED_MS })
    }
  }

  /** The failure that still counts. */
  recent(blob: number, chunk: number, now: number): EngineError | undefined {
    if (this.#failures.size === 0) return undefined
    const found = this.#failures.get(keyOf(blob, chunk))
    if (found === undefined) return undefined
    if (now < found.until) return found.error
    this.#failures.delete(keyOf(blob, chunk))
    return undefined
  }

  /** The backend gives again. */
  clear(): void {
    if (this.#failures.size > 0) this.#failures.clear()
  }
}

function keyOf(blob: number, chunk: number): number {
  return blob * 2 ** 32 + chunk
}
