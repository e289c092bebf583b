/** Bytes that may be fetched ahead before anything is known of the image. */
const ALLOWANCE_BYTES = 1 << 20
/** Later: this share of what was read for good reason. */
const SHARE = 0.25
/** One request takes at most half of what is left, so that one bad guess does not spend all. */
const PART = 2
/** The newest guesses may be on their way to their reader. Of so many before them, no more than that share may be unread where guesses are relied on. */
const NEWEST_BYTES = 2 << 20
const PROVEN_BYTES = 2 << 20
const PROVEN_UNREAD = 0.05
/** Guesses looked at in one go. */
const SWEEP = 4096

interface Guess {
  readonly touched: Uint8Array
  readonly chunk: number
  readonly bytes: number
  /** Bytes that were guessed before. */
  readonly at: number
}

/**
 * How much a request may take beyond what was asked for. Neighbours that are fetched and then read save a round trip each; those that nobody reads are waste, and waste stays below a
 * quarter of what was read (and a first MiB): so images whose files are read in the order of the blob get large requests, and those read here and there get small ones.
 */
export class GrowBudget {
  readonly #maxBytes: number
  readonly #guesses: Guess[] = []
  #readBytes = 0
  #unreadBytes = 0
  #guessedBytes = 0

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes
  }

  /** Somebody asked for this chunk. */
  demanded(bytes: number): void {
    this.#readBytes += bytes
  }

  /** This chunk came along; `touched[chunk]` becomes 1 when it is read. */
  guessed(touched: Uint8Array, chunk: number, bytes: number): void {
    this.#guesses.push({ touched, chunk, bytes, at: this.#guessedBytes })
    this.#unreadBytes += bytes
    this.#guessedBytes += bytes
  }

  /** Bytes that the next request may take beyond what is wanted. */
  next(): number {
    this.#sweep()
    // Of the guesses that nobody has read yet, as many will be read as of all before them: the rest is what will be waste.
    const wasted = this.#guessedBytes === 0 ? 1 : this.#unreadBytes / this.#guessedBytes
    const left = ALLOWANCE_BYTES + this.#readBytes * SHARE - this.#unreadBytes * wasted
    return Math.min(this.#maxBytes, Math.max(0, Math.floor(left / PART)))
  }

  /** Nearly all guesses but the newest were read: those that come will be too. Asks after `next`. */
  get isProven(): boolean {
    const older = this.#guessedBytes - NEWEST_BYTES
    let unread = this.#unreadBytes
    for (let index = this.#guesses.length - 1; index >= 0 && this.#guesses[index].at >= older; index--)
      unread -= this.#guesses[index].bytes
    return older >= PROVEN_BYTES && unread <= older * PROVEN_UNREAD
  }

  #sweep(): void {
    const from = Math.max(0, this.#guesses.length - SWEEP)
    let kept = from
    for (let index = from; index < this.#guesses.length; index++) {
      const guess = this.#guesses[index]
      if (guess.touched[guess.chunk] === 1) {
        this.#unreadBytes -= guess.bytes
        this.#readBytes += guess.bytes
      } else this.#guesses[kept++] = guess
    }
    this.#guesses.length = kept
  }
}
