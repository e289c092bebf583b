import { plainBytes } from '../codec/index.ts'

/** Memory that threads share, and this thread's view of it. */
export interface SharedBuffer {
  readonly memory: SharedArrayBuffer
  readonly bytes: Uint8Array
}

const SMALLEST = 64 * 1024

/** Shared memory for bytes on their way, used again: sizes are rounded up to powers of two. */
export class SharedBuffers {
  readonly #keepBytes: number
  readonly #free = new Map<number, SharedBuffer[]>()
  #freeBytes = 0

  constructor(keepBytes: number) {
    this.#keepBytes = keepBytes
  }

  /** At least `bytes` long; its content is anything. */
  take(bytes: number): SharedBuffer {
    const size = Math.max(SMALLEST, 2 ** Math.ceil(Math.log2(Math.max(1, bytes))))
    const found = this.#free.get(size)?.pop()
    if (found === undefined) {
      const memory = new SharedArrayBuffer(size)
      return { memory, bytes: plainBytes(memory) }
    }
    this.#freeBytes -= size
    return found
  }

  /** Nobody looks at it any more. */
  give(buffer: SharedBuffer): void {
    const size = buffer.memory.byteLength
    if (this.#freeBytes + size > this.#keepBytes) return
    this.#freeBytes += size
    const same = this.#free.get(size)
    if (same === undefined) this.#free.set(size, [buffer])
    else same.push(buffer)
  }
}
