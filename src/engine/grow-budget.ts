/** Bytes that may be fetched ahead before anything is known of the image. */
const ALLOWANCE_BYTES = 1 << 20
/** Later: this share of what was read for good reason. */
const SHARE = 0.25
/** One request takes at most half of what is left, so that one bad guess does not spend all. */
const PART = 2
/** What a round trip and the work of a request are worth, on links of today: a request takes so much along while of all bytes that came at most half are guesses that nobody read. */
const FLOOR_BYTES = 384 * 1024
/** The newest guesses may be on their way to their reader. Of so many before them, no more than that share may be unread where guesses are relied on. */
const NEWEST_BYTES = 2 << 20
const PROVEN_BYTES = 2 << 20
const PROVEN_UNREAD = 0.05
/** Guesses looked at in one go: of the newest so many, and of those before them, which take turns. */
const SWEEP = 4096

interface Guess {
  readonly touched: Uint8Array
  readonly chunk: number
  readonly bytes: number
  /** Bytes that were guessed before. */
  readonly at: number
}

/**
 * How much a request may take beyond what was asked for. Neighbours that are fetched and then read save a round trip each; those that nobody reads are waste. Up to a quarter of what was read (and a
 * first MiB) may be waste for large requests: so images whose files are read in the order of the blob get them, and those read here and there get small ones. Not too small ones: a program that
 * loads hundreds of small files would wait for as many round trips. So much as a round trip is worth a request takes along until there is as much waste as was read (and a first MiB).
 */
export class GrowBudget {
  readonly #maxBytes: number
  readonly #guesses: Guess[] = []
  /** Of the guesses before the newest: those before it were looked at. */
  #looked = 0
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
    const floor = Math.min(FLOOR_BYTES, ALLOWANCE_BYTES + this.#readBytes - this.#unreadBytes)
    return Math.min(this.#maxBytes, Math.max(0, floor, Math.floor(left / PART)))
  }

  /** Nearly all guesses but the newest were read: those that come will be too. Asks after `next`. */
  get isProven(): boolean {
    const older = this.#guessedBytes - NEWEST_BYTES
    let unread = this.#unreadBytes
    for (let index = this.#guesses.length - 1; index >= 0 && this.#guesses[index].at >= older; index--)
      unread -= this.#guesses[index].bytes
    return older >= PROVEN_BYTES && unread <= older * PROVEN_UNREAD
  }

  /** Counts what was read meanwhile. Also of old guesses: who reads small files in another order comes to them late. */
  #sweep(): void {
    const newest = Math.max(0, this.#guesses.length - SWEEP)
    this.#lookAt(newest, this.#guesses.length)
    const from = this.#looked < newest ? this.#looked : 0
    this.#looked = this.#lookAt(from, Math.min(newest, from + SWEEP))
  }

  /** Gives where the guesses behind these are now. */
  #lookAt(from: number, to: number): number {
    let kept = from
    for (let index = from; index < to; index++) {
      const guess = this.#guesses[index]
      if (guess.touched[guess.chunk] === 1) {
        this.#unreadBytes -= guess.bytes
        this.#readBytes += guess.bytes
      } else this.#guesses[kept++] = guess
    }
    if (kept < to) this.#guesses.splice(kept, to - kept)
    return kept
  }
}
