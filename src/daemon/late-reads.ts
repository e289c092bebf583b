import { ERRNO } from '../kernel/index.ts'
import type { LateRead } from './transports/fuse-handler.ts'

/** A reply header stands before the data. */
const HEADER = 16

export interface LateReadParts {
  /** Fills `into` with the file's bytes and gives their number. */
  readonly fill: (read: LateRead, into: Uint8Array) => Promise<number>
  readonly answer: (read: LateRead, message: Buffer, bytes: number, errno: number) => void
  /** Told of each end; `error` undefined = answered with `bytes`. */
  readonly onDone: (read: LateRead, end: { bytes: number; latencyMs: number; error: unknown }) => void
  /** Memory for answers under way; reads beyond wait their turn, first come first served. */
  readonly budgetBytes: number
}

interface Pending {
  readonly read: LateRead
  readonly arrivedAt: number
  readonly arrivedUnixMs: number
}

/** Reads that wait for data. Each is answered exactly once: with its bytes, or with EIO. */
export class LateReads {
  readonly #parts: LateReadParts
  readonly #pending = new Set<Pending>()
  readonly #queue: Pending[] = []
  #bytes = 0

  constructor(parts: LateReadParts) {
    this.#parts = parts
  }

  add(read: LateRead): void {
    const pending = { read, arrivedAt: performance.now(), arrivedUnixMs: Date.now() }
    this.#pending.add(pending)
    this.#queue.push(pending)
    this.#next()
  }

  /** What waits now, for `metrics/inflight`. */
  list(): ReadonlyArray<{ readonly read: LateRead; readonly sinceUnixMs: number }> {
    return [...this.#pending].map(({ read, arrivedUnixMs }) => ({ read, sinceUnixMs: arrivedUnixMs }))
  }

  #next(): void {
    for (let first = this.#queue[0]; first !== undefined; first = this.#queue[0]) {
      if (this.#bytes > 0 && this.#bytes + first.read.count > this.#parts.budgetBytes) return
      this.#queue.shift()
      this.#bytes += first.read.count
      void this.#answer(first)
    }
  }

  async #answer(pending: Pending): Promise<void> {
    const { read } = pending
    const message = Buffer.allocUnsafeSlow(HEADER + read.count)
    let bytes = 0
    let failure: unknown
    try {
      bytes = await this.#parts.fill(read, message.subarray(HEADER))
    } catch (error) {
      failure = error
    }
    this.#pending.delete(pending)
    this.#bytes -= read.count
    try {
      this.#parts.answer(read, message, bytes, failure === undefined ? 0 : ERRNO.EIO)
    } catch (error) {
      failure ??= error
    }
    this.#parts.onDone(read, { bytes, latencyMs: performance.now() - pending.arrivedAt, error: failure })
    this.#next()
  }
}
