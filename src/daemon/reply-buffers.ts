/** What is kept for the next answers, bytes. */
const KEPT_BYTES = 4 << 20
const SMALLEST = 4096
/** Stands before the data. */
export const REPLY_HEADER_BYTES = 16

/**
 * Memory of answers, used again: V8 collects garbage after every 64 MiB of buffers that it sees come, also when they are gone at once, and a reader who goes through an image has that many answers in a few seconds.
 */
export class ReplyBuffers {
  readonly #free = new Map<number, Buffer[]>()
  #freeBytes = 0

  /** Room for a header and at least so many bytes; its content is anything. */
  take(bytes: number): Buffer {
    const size = REPLY_HEADER_BYTES + Math.max(SMALLEST, 2 ** Math.ceil(Math.log2(Math.max(1, bytes))))
    const found = this.#free.get(size)?.pop()
    if (found === undefined) return Buffer.allocUnsafeSlow(size)
    this.#freeBytes -= size
    return found
  }

  /** Nobody reads or writes it any more. */
  give(buffer: Buffer): void {
    if (this.#freeBytes + buffer.length > KEPT_BYTES) return
    this.#freeBytes += buffer.length
    const same = this.#free.get(buffer.length)
    if (same === undefined) this.#free.set(buffer.length, [buffer])
    else same.push(buffer)
  }
}
