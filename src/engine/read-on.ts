import type { FetchRange } from './plan.ts'

/** How often it is looked whether somebody reads what was guessed: a request of the usual size takes longer on all but the fastest links. */
const LOOK_MS = 4
/** Who has not come by then reads elsewhere. */
const PATIENCE_MS = 1000
/** Requests watched at a time: of so many readers who go on and on. */
const MOST = 4

interface Guess {
  readonly chunks: readonly number[]
  readonly touched: Uint8Array
  readonly onRead: () => void
  readonly untilMs: number
}

/**
 * Watches the newest requests for the reader who comes to what was guessed. Chunks that are here already are read on other threads without a word: only `touched` tells of it.
 */
export class ReadOn {
  readonly #now: () => number
  readonly #guesses = new Set<Guess>()
  #timer: NodeJS.Timeout | undefined

  /** `now`: milliseconds, monotonic. */
  constructor(now: () => number) {
    this.#now = now
  }

  /** Calls `onRead` once, soon after one of the chunks that nobody had asked for is read; not at all when that takes long. `touched[chunk]` becomes 1 then. */
  watch({ chunks }: FetchRange, touched: Uint8Array, onRead: () => void): void {
    const guessed = chunks.filter((chunk) => touched[chunk] !== 1)
    if (guessed.length === 0) return
    this.#guesses.add({ chunks: guessed, touched, onRead, untilMs: this.#now() + PATIENCE_MS })
    const [oldest] = this.#guesses
    if (this.#guesses.size > MOST && oldest !== undefined) this.#guesses.delete(oldest)
    this.#schedule()
  }

  close(): void {
    clearTimeout(this.#timer)
    this.#guesses.clear()
  }

  #schedule(): void {
    if (this.#guesses.size > 0) this.#timer ??= setTimeout(() => this.#look(), LOOK_MS).unref()
  }

  #look(): void {
    this.#timer = undefined
    const now = this.#now()
    for (const guess of this.#guesses) {
      const isRead = guess.chunks.some((chunk) => guess.touched[chunk] === 1)
      if (!isRead && now < guess.untilMs) continue
      this.#guesses.delete(guess)
      if (isRead) guess.onRead()
    }
    this.#schedule()
  }
}
