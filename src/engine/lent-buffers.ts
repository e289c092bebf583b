import { plainBytes } from '../codec/index.ts'
import type { SharedBuffer } from './shared-buffers.ts'

/** Shared memory in a message: by its number, and itself when the thread has not seen it. */
export interface LentBuffer {
  readonly number: number
  readonly memory?: SharedArrayBuffer
}

/** What a message lends. */
export interface Loan {
  /** All that was lent before is to be forgotten: it may be in use no longer, and its numbers are not used again. */
  readonly isAnew: boolean
  readonly buffers: readonly LentBuffer[]
}

/** What a thread may know at a time. */
const MOST_BYTES = 32 << 20

/**
 * The shared memory that one thread has seen. Memory goes to a thread once: V8 counts each view of it as memory of that thread's own, and collects garbage after every 64 MiB of them, which
 * took a quarter of all that prefetch computes.
 */
export class LentBuffers {
  readonly #mostBytes: number
  readonly #numbers = new Map<SharedArrayBuffer, number>()
  #bytes = 0
  #next = 0

  constructor(mostBytes = MOST_BYTES) {
    this.#mostBytes = mostBytes
  }

  /** For the next message, which must be sent, in the order of the calls. */
  lend(buffers: readonly SharedBuffer[]): Loan {
    const fresh = buffers.filter(({ memory }) => !this.#numbers.has(memory))
    const isAnew = this.#bytes > 0 && this.#bytes + sizeOf(fresh) > this.#mostBytes
    if (isAnew) {
      this.#numbers.clear()
      this.#bytes = 0
    }
    return { isAnew, buffers: buffers.map(({ memory }) => this.#lend(memory)) }
  }

  #lend(memory: SharedArrayBuffer): LentBuffer {
    const known = this.#numbers.get(memory)
    if (known !== undefined) return { number: known }
    const number = this.#next++
    this.#numbers.set(memory, number)
    this.#bytes += memory.byteLength
    return { number, memory }
  }
}

/** The other side: what this thread was lent. */
export class SeenBuffers {
  readonly #buffers = new Map<number, SharedBuffer>()

  /** The buffers of a message, in its order. Throws when a message before it was lost. */
  take({ isAnew, buffers }: Loan): SharedBuffer[] {
    if (isAnew) this.#buffers.clear()
    return buffers.map(({ number, memory }) => {
      if (memory !== undefined) this.#buffers.set(number, { memory, bytes: plainBytes(memory) })
      const buffer = this.#buffers.get(number)
      if (buffer === undefined) throw new Error(`buffer ${number} was never lent to this thread`)
      return buffer
    })
  }
}

function sizeOf(buffers: readonly SharedBuffer[]): number {
  return buffers.reduce((sum, { memory }) => sum + memory.byteLength, 0)
}
