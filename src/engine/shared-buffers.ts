const SMALLEST = 64 * 1024

/** Shared memory for bytes on their way, used again: sizes are rounded up to powers of two. */
export class SharedBuffers {
  readonly #keepBytes: number
  readonly #free = new Map<number, SharedArrayBuffer[]>()
  #freeBytes = 0

  constructor(keepBytes: number) {
    this.#keepBytes = keepBytes
  }

  /** At least `bytes` long; its content is anything. */
  take(bytes: number): SharedArrayBuffer {
    const size = Math.max(SMALLEST, 2 ** Math.ceil(Math.log2(Math.max(1, bytes))))
    const found = this.#free.get(size)?.pop()
    if (found === undefined) return new SharedArrayBuffer(size)
    this.#freeBytes -= size
    return found
  }

  /** Nobody looks at it any more. */
  give(buffer: SharedArrayBuffer): void {
    const size = buffer.byteLength
    if (this.#freeBytes + size > this.#keepBytes) return
    this.#freeBytes += size
    const same = this.#free.get(size)
    if (same === undefined) this.#free.set(size, [buffer])
    else same.push(buffer)
  }
}
