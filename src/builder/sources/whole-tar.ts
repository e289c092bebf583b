import { sha256Stream } from '../../codec/index.ts'

/** An archive on its way, as it is, compressed or not: measured, digested, and read to its end whatever follows the last entry. */
export class WholeTar {
  size = 0
  /** For the parser, which must not end what is still to be read. */
  readonly archive: AsyncIterable<Uint8Array>
  readonly #hash = sha256Stream()
  /** Of the last piece, beside what its reader does with it. */
  #hashing: Promise<void> | void = undefined
  readonly #isDigested: boolean
  readonly #iterator: AsyncIterator<Uint8Array>
  readonly #onPiece: (bytes: Uint8Array, end: number) => void

  /** `onPiece` is told of each piece, and where it ends; it may throw. */
  constructor(
    stream: AsyncIterable<Uint8Array>,
    isDigested: boolean,
    onPiece: (bytes: Uint8Array, end: number) => void = () => undefined,
  ) {
    this.#iterator = stream[Symbol.asyncIterator]()
    this.#isDigested = isDigested
    this.#onPiece = onPiece
    this.archive = { [Symbol.asyncIterator]: () => ({ next: () => this.#next() }) }
  }

  /** SHA-256 of all bytes; after `finish`. */
  get id(): string {
    return this.#hash.digest().toString('hex')
  }

  async finish(): Promise<void> {
    while ((await this.#next()).done !== true);
  }

  async end(): Promise<void> {
    await this.#iterator.return?.()
  }

  async #next(): Promise<IteratorResult<Uint8Array>> {
    await this.#hashing
    const next = await this.#iterator.next()
    if (next.done === true) return next
    this.size += next.value.length
    this.#onPiece(next.value, this.size)
    if (this.#isDigested) {
      this.#hashing = this.#hash.update(next.value)
      this.#hashing?.catch(() => undefined) // thrown with the next piece
    }
    return next
  }
}
