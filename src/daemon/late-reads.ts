import { ERRNO } from '../kernel/index.ts'
import { DaemonError } from './errors.ts'
import { REPLY_HEADER_BYTES, ReplyBuffers } from './reply-buffers.ts'
import type { LateRead } from './transports/fuse-handler.ts'

/** How a read ended; `error` undefined = answered with `bytes`. */
export interface LateReadEnd {
  readonly bytes: number
  readonly latencyMs: number
  readonly error: unknown
}

export interface LateReadParts {
  /** Fills `into` with the file's bytes and gives their number; at most `deadlineMs` later it settles. */
  readonly fill: (read: LateRead, into: Uint8Array, deadlineMs: number) => Promise<number>
  /** Milliseconds that a read may take, waiting for its turn included. */
  readonly deadlineMs: (read: LateRead) => number
  readonly answer: (read: LateRead, message: Buffer, bytes: number, errno: number) => void
  /** Told of each end; `error` undefined = answered with `bytes`. */
  readonly onDone: (read: LateRead, end: LateReadEnd) => void
  /** Memory for answers under way; reads beyond wait their turn, first come first served. */
  readonly budgetBytes: number
}

interface Pending {
  readonly read: LateRead
  readonly deadlineMs: number
  /** Ends the wait for a turn. */
  timer: NodeJS.Timeout | undefined
  readonly arrivedAt: number
  readonly arrivedUnixMs: number
}

/** Reads that wait for data. Each is answered exactly once: with its bytes, or with EIO. */
export class LateReads {
  readonly #parts: LateReadParts
  readonly #pending = new Set<Pending>()
  readonly #queue: Pending[] = []
  readonly #buffers = new ReplyBuffers()
  #bytes = 0

  constructor(parts: LateReadParts) {
    this.#parts = parts
  }

  add(read: LateRead): void {
    const deadlineMs = this.#parts.deadlineMs(read)
    const pending: Pending = {
      read,
      deadlineMs,
      timer: undefined,
      arrivedAt: performance.now(),
      arrivedUnixMs: Date.now(),
    }
    this.#pending.add(pending)
    this.#queue.push(pending)
    this.#next()
    if (this.#queue.at(-1) === pending) pending.timer = setTimeout(() => this.#giveUp(pending), deadlineMs)
  }

  /** What waits now, for `metrics/inflight`. */
  list(): ReadonlyArray<{ readonly read: LateRead; readonly sinceUnixMs: number }> {
    return [...this.#pending].map(({ read, arrivedUnixMs }) => ({ read, sinceUnixMs: arrivedUnixMs }))
  }

  #next(): void {
    for (let first = this.#queue[0]; first !== undefined; first = this.#queue[0]) {
      if (this.#bytes > 0 && this.#bytes + first.read.count > this.#parts.budgetBytes) return
      this.#queue.shift()
      clearTimeout(first.timer)
      this.#bytes += first.read.count
      void this.#answer(first)
    }
  }

  /** Its turn did not come: those before it wait for data that does not come either. */
  #giveUp(pending: Pending): void {
    const index = this.#queue.indexOf(pending)
    if (index === -1) return
    this.#queue.splice(index, 1)
    const why = new DaemonError('IO', `reads before it took longer than ${pending.deadlineMs} ms`)
    this.#end(pending, Buffer.allocUnsafeSlow(REPLY_HEADER_BYTES), 0, why)
  }

  async #answer(pending: Pending): Promise<void> {
    const { read, deadlineMs, arrivedAt } = pending
    const message = this.#buffers.take(read.count)
    const into = message.subarray(REPLY_HEADER_BYTES, REPLY_HEADER_BYTES + read.count)
    let bytes = 0
    let failure: unknown
    try {
      bytes = await this.#parts.fill(read, into, deadlineMs - (performance.now() - arrivedAt))
    } catch (error) {
      failure = error
    }
    this.#bytes -= read.count
    this.#end(pending, message, bytes, failure)
    // After a failure somebody may still write into it.
    if (failure === undefined) this.#buffers.give(message)
    this.#next()
  }

  #end(pending: Pending, message: Buffer, bytes: number, error: unknown): void {
    const { read } = pending
    let failure = error
    this.#pending.delete(pending)
    try {
      this.#parts.answer(read, message, bytes, failure === undefined ? 0 : ERRNO.EIO)
    } catch (error) {
      failure ??= error
    }
    this.#parts.onDone(read, { bytes, latencyMs: performance.now() - pending.arrivedAt, error: failure })
  }
}
