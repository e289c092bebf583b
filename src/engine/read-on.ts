import type { FetchRange } from './plan.ts'

/** How often it is looked whether somebody reads what was guessed: a request of the usual size takes longer on all but the fastest links. */
const LOOK_MS = 4
/** Who has not come by then reads elsewhere. */
const PATIENCE_MS = 10_000
/** Requests watched at a time: what may be ahead of readers who go on and on. */
const MOST = 64
/** Chunks of a request that are looked at, evenly spread: who reads on comes to one of them soon. */
const SAMPLE = 16

interface Guess {
  readonly chunks: readonly number[]
  readonly touched: Uint8Array
  readonly onRead: () => void
  readonly onGone: () => void
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

  /** Calls `onRead` once, soon after one of the chunks that nobody had asked for is read; `onGone` instead when that takes long. `touched[chunk]` becomes 1 then. */
  watch({ chunks }: FetchRange, touched: Uint8Array, onRead: () => void, onGone: () => void): void {
    const guessed = chunks.filter((chunk) => touched[chunk] !== 1)
    if (guessed.length === 0) return onGone()
    const step = Math.ceil(guessed.length / SAMPLE)
    const sample = guessed.filter((_chunk, index) => index % step === 0)
    this.#guesses.add({ chunks: sample, touched, onRead, onGone, untilMs: this.#now() + PATIENCE_MS })
    const [oldest] = this.#guesses
    if (this.#guesses.size > MOST && oldest !== undefined) {
      this.#guesses.delete(oldest)
      oldest.onGone()
    }
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
      else guess.onGone()
    }
    this.#schedule()
  }
}
