/** What a simulated link carries, and when. All times are milliseconds of one clock, which the caller reads. */
import type { Socket } from 'node:net'

type Sender = Pick<Socket, 'pause' | 'resume' | 'isPaused'>
type Receiver = Pick<Socket, 'destroyed' | 'write' | 'end'>

/** Bytes sent in one turn of a connection: small enough that turns are fair, large enough to be cheap. */
const PIECE = 8 * 1024

/** Bytes that wait for the link. */
interface Waiting {
  readonly bytes: Buffer
  readonly sinceMs: number
}

interface Piece {
  readonly bytes: Buffer
  /** When it reaches the far end. */
  dueMs: number
}

/** One direction of one connection: what waits for the link, and what is on its way. */
export class Flow {
  readonly waiting: Waiting[] = []
  waitingBytes = 0
  readonly flying: Piece[] = []
  ended = false
  #dropped = false
  readonly #from: Sender
  readonly #to: Receiver
  readonly #windowBytes: number

  constructor(from: Sender, to: Receiver, windowBytes: number) {
    this.#from = from
    this.#to = to
    this.#windowBytes = windowBytes
  }

  accept(bytes: Buffer, nowMs: number): void {
    if (this.#dropped) return
    for (let at = 0; at < bytes.length; at += PIECE)
      this.waiting.push({ bytes: bytes.subarray(at, at + PIECE), sinceMs: nowMs })
    this.waitingBytes += bytes.length
    if (this.waitingBytes > this.#windowBytes) this.#from.pause()
  }

  take(): Waiting | undefined {
    const piece = this.waiting.shift()
    if (piece === undefined) return undefined
    this.waitingBytes -= piece.bytes.length
    if (this.#from.isPaused() && this.waitingBytes < this.#windowBytes / 2) this.#from.resume()
    return piece
  }

  deliver(nowMs: number): void {
    let sent = 0
    while (sent < this.flying.length && (this.flying[sent]?.dueMs ?? Infinity) <= nowMs) {
      const piece = this.flying[sent++]
      if (piece && !this.#to.destroyed) this.#to.write(piece.bytes)
    }
    this.flying.splice(0, sent)
    if (this.isDone() && !this.#to.destroyed) this.#to.end()
  }

  isDone(): boolean {
    return this.ended && this.waiting.length === 0 && this.flying.length === 0
  }

  /** The far end is gone: nothing more is carried. */
  drop(): void {
    this.waiting.length = 0
    this.flying.length = 0
    this.waitingBytes = 0
    this.ended = true
    this.#dropped = true
    this.#from.resume()
  }
}

/** One direction of the link: hands out its bandwidth in turns. */
export class Direction {
  readonly flows = new Set<Flow>()
  readonly #bytesPerMs: number
  readonly #delayMs: number
  #freeAtMs = 0
  #turn: Flow[] = []

  constructor(bitsPerSecond: number, delayMs: number) {
    this.#bytesPerMs = bitsPerSecond / 8000
    this.#delayMs = delayMs
  }

  /** Moves what the link can carry by now; gives the bytes moved. What this process does late the link did in time: it is idle only while nothing waits. */
  run(nowMs: number): number {
    let moved = 0
    while (this.#freeAtMs <= nowMs) {
      const flow = this.#next()
      const piece = flow?.take()
      if (flow === undefined || piece === undefined) break
      const { bytes, sinceMs } = piece
      this.#freeAtMs = Math.max(this.#freeAtMs, sinceMs) + bytes.length / this.#bytesPerMs
      flow.flying.push({ bytes, dueMs: this.#freeAtMs + this.#delayMs })
      moved += bytes.length
    }
    for (const flow of this.flows) {
      flow.deliver(nowMs)
      if (flow.isDone()) this.flows.delete(flow)
    }
    return moved
  }

  #next(): Flow | undefined {
    for (let round = 0; round < 2; round++) {
      for (let flow = this.#turn.shift(); flow !== undefined; flow = this.#turn.shift()) {
        if (flow.waiting.length > 0) return flow
      }
      this.#turn = [...this.flows]
    }
    return undefined
  }
}
