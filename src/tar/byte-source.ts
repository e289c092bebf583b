/** Bytes in order, in the amounts that the reader of an archive wants. One call at a time. */
export interface ByteInput {
  /** Bytes given or skipped so far. */
  readonly position: number
  /** Without waiting: a view of the next `length` bytes when they are at hand, valid until a call that reads or waits. */
  takeNow(length: number): Uint8Array | undefined
  /** Takes back the last `length` bytes that were given, when nothing else was given since. */
  putBack(length: number): void
  /** Without waiting: fills as much of the start of `into` as is at hand; gives how much. */
  readNow(into: Uint8Array): number
  /** The next `length` bytes, or fewer at the end; valid until the next call. */
  take(length: number): Promise<Uint8Array>
  /** Fills `into`, or as much of it as there still is; gives the bytes written. */
  read(into: Uint8Array): Promise<number>
  /** Passes over `length` bytes; gives how many there were. */
  skip(length: number): Promise<number>
  /** Nothing more is wanted. */
  close(): Promise<void>
}

/**
 * Bytes pulled from an asynchronous stream in the amounts that the reader wants. What lies whole in the current piece is given as a view of it,
 * valid until the next call; only what straddles pieces is copied.
 */
export class ByteSource implements ByteInput {
  position = 0
  readonly #pieces: AsyncIterator<Uint8Array>
  #piece: Uint8Array = new Uint8Array(0)
  #at = 0
  #ended = false

  constructor(stream: AsyncIterable<Uint8Array>) {
    this.#pieces = stream[Symbol.asyncIterator]()
  }

  takeNow(length: number): Uint8Array | undefined {
    if (this.#piece.length - this.#at < length) return undefined
    const view = this.#piece.subarray(this.#at, this.#at + length)
    this.#at += length
    this.position += length
    return view
  }

  putBack(length: number): void {
    this.#at -= length
    this.position -= length
  }

  readNow(into: Uint8Array): number {
    const length = Math.min(into.length, this.#piece.length - this.#at)
    into.set(this.#piece.subarray(this.#at, this.#at + length))
    this.#at += length
    this.position += length
    return length
  }

  async take(length: number): Promise<Uint8Array> {
    const view = this.takeNow(length)
    if (view !== undefined) return view
    const copy = new Uint8Array(length)
    return copy.subarray(0, await this.read(copy))
  }

  async read(into: Uint8Array): Promise<number> {
    let filled = 0
    while (filled < into.length) {
      if (this.#at === this.#piece.length && !(await this.#pull())) break
      const part = Math.min(into.length - filled, this.#piece.length - this.#at)
      into.set(this.#piece.subarray(this.#at, this.#at + part), filled)
      this.#at += part
      this.position += part
      filled += part
    }
    return filled
  }

  async skip(length: number): Promise<number> {
    let left = length
    while (left > 0) {
      if (this.#at === this.#piece.length && !(await this.#pull())) break
      const part = Math.min(left, this.#piece.length - this.#at)
      this.#at += part
      this.position += part
      left -= part
    }
    return length - left
  }

  async close(): Promise<void> {
    if (this.#ended) return
    this.#ended = true
    await this.#pieces.return?.()
  }

  async #pull(): Promise<boolean> {
    if (this.#ended) return false
    for (;;) {
      const next = await this.#pieces.next()
      if (next.done === true) {
        this.#ended = true
        return false
      }
      if (next.value.length > 0) {
        // Not as a Buffer: whose `slice` is a view, and what is kept of an entry must be a copy.
        this.#piece = new Uint8Array(next.value.buffer, next.value.byteOffset, next.value.length)
        this.#at = 0
        return true
      }
    }
  }
}
