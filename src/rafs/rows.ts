const PAGE_BITS = 10
const PAGE_ROWS = 1 << PAGE_BITS
const PAGE_MASK = PAGE_ROWS - 1

/**
 * A table of rows of 32-bit words, in pages: nothing is copied when it grows, and a small one costs a page. A million objects would take ten times the memory. Row 0 exists from the start
 * and stands for "none".
 */
export class Rows {
  readonly #words: number
  readonly #pages: Uint32Array[] = []
  #count = 0

  /** `words` a row. */
  constructor(words: number) {
    this.#words = words
    this.add()
  }

  /** Rows, with row 0. */
  get count(): number {
    return this.#count
  }

  /** Makes `rows` rows of zeros that follow each other; gives the first. */
  add(rows = 1): number {
    const first = this.#count
    this.#count += rows
    while (this.#pages.length * PAGE_ROWS < this.#count) this.#pages.push(new Uint32Array(PAGE_ROWS * this.#words))
    return first
  }

  get(row: number, word: number): number {
    return this.#pages[row >>> PAGE_BITS][(row & PAGE_MASK) * this.#words + word]
  }

  set(row: number, word: number, value: number): void {
    this.#pages[row >>> PAGE_BITS][(row & PAGE_MASK) * this.#words + word] = value
  }

  /** A safe integer, possibly negative, in two words. */
  getLong(row: number, word: number): number {
    return (this.get(row, word + 1) | 0) * 2 ** 32 + this.get(row, word)
  }

  setLong(row: number, word: number, value: number): void {
    this.set(row, word, value >>> 0) // modulo 2^32, also of numbers beyond 32 bits
    this.set(row, word + 1, Math.floor(value / 2 ** 32))
  }

  /** A view of the bytes from a word of a row on. */
  bytes(row: number, word: number, length: number): Uint8Array {
    const page = this.#pages[row >>> PAGE_BITS]
    return new Uint8Array(page.buffer, ((row & PAGE_MASK) * this.#words + word) * 4, length)
  }
}
