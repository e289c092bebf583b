/**
 * Bytes pulled from an asynchronous stream in the amounts that the reader wants. What lies whole in the current piece is given as a view of it,
 * valid until the next call; only what straddles pieces is copied.
 */
export class ByteSource {
  /** Bytes given or skipped so far. */
  position = 0
  readonly #pieces: AsyncIterator<Uint8Array>
  #piece: Uint8Array = new Uint8Array(0)
  #at = 0
  #ended = false

  constructor(stream: AsyncIterable<Uint8Array>) {
    this.#pieces = stream[Symbol.asyncIterator]()
  }

  /** Without waiting: a view of the next `length` bytes when they lie whole in the current piece. */
  takeNow(length: number): Uint8Array | undefined {
    if (this.#piece.length - this.#at < length) return undefined
    const view = this.#piece.subarray(this.#at, this.#at + length)
    this.#at += length
    this.position += length
    return view
  }

  /** Takes back the last `length` bytes that {@link takeNow} gave, when nothing was asked for since. */
  putBack(length: number): void {
    this.#at -= length
    this.position -= length
  }

  /** Without waiting: fills `into` when all of it lies in the current piece; false leaves all as it is. */
  readNow(into: Uint8Array): boolean {
    const end = this.#at + into.length
    if (end > this.#piece.length) return false
    into.set(this.#piece.subarray(this.#at, end))
    this.#at = end
    this.position += into.length
    return true
  }

  /** The next `length` bytes, or fewer at the end of the stream. */
  async take(length: number): Promise<Uint8Array> {
    const view = this.takeNow(length)
    if (view !== undefined) return view
    const copy = new Uint8Array(length)
    return copy.subarray(0, await this.read(copy))
  }

  /** Fills `into`, or as much of it as the stream still has; gives the bytes written. */
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

  /** Passes over `length` bytes; gives how many there were. */
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

  /** Tells the stream that nothing more is wanted. */
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
