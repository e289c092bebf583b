import type { Clock } from './clock.ts'

/** After demand the link stays free for so long: the reader who just got its bytes is about to ask for more. */
const QUIET_MS = 30
/** Stored and plain bytes of all fetches under way. */
const MEMORY_BYTES = 96 << 20
/** A prefetch request should keep the link busy for about so long, no longer: that is what a reader may have to wait for it. */
const PIECE_MS = 25
const MIN_PIECE_BYTES = 128 * 1024
const MAX_PIECE_BYTES = 2 << 20

export interface ScheduleLimits {
  readonly demandRequests: number
  readonly prefetchRequests: number
  /** Bytes a second, 0 = no limit. */
  readonly prefetchBandwidth: number
}

/** Who may use the link now: demand always, up to its number of requests; prefetch only while nobody waits for anything. */
export class Schedule {
  readonly #limits: ScheduleLimits
  readonly #clock: Clock
  readonly #onDemandFree: () => void
  #readers = 0
  #demand = 0
  #prefetch = 0
  #bytes = 0
  #lastDemand = -Infinity
  #nextPrefetch = 0
  /** Bytes a second of a lone prefetch request, smoothed. */
  #speed = 0
  readonly #waiting: Array<() => void> = []

  constructor(limits: ScheduleLimits, clock: Clock, onDemandFree: () => void) {
    this.#limits = limits
    this.#clock = clock
    this.#onDemandFree = onDemandFree
  }

  /** A reader waits, for a request or for one that prefetch began: no further prefetch goes out until it has its bytes. */
  readBegins(): void {
    this.#readers++
  }

  readEnds(): void {
    this.#readers--
    this.#lastDemand = this.#clock.now()
    if (this.#readers === 0) this.#wake()
  }

  /** Takes a place for a demand request that needs so much memory; false when there is none now: `onDemandFree` tells when to ask again. */
  tryDemand(memoryBytes: number): boolean {
    if (this.#demand >= this.#limits.demandRequests) return false
    if (this.#bytes > 0 && this.#bytes + memoryBytes > MEMORY_BYTES) return false
    this.#demand++
    this.#bytes += memoryBytes
    return true
  }

  endDemand(memoryBytes: number): void {
    this.#demand--
    this.#bytes -= memoryBytes
    this.#onDemandFree()
    this.#wake()
  }

  /** How large the next prefetch request should be, bytes as stored. */
  get pieceBytes(): number {
    const fitting = (this.#speed * PIECE_MS) / 1000
    return Math.round(Math.min(MAX_PIECE_BYTES, Math.max(MIN_PIECE_BYTES, fitting)))
  }

  /** Waits until a prefetch request may go out, and takes its place. Rejects when the signal is aborted. */
  async startPrefetch(memoryBytes: number, signal: AbortSignal): Promise<void> {
    for (;;) {
      signal.throwIfAborted()
      const now = this.#clock.now()
      const isFull = this.#prefetch >= this.#limits.prefetchRequests
      if (
        this.#readers > 0 ||
        this.#demand > 0 ||
        isFull ||
        (this.#bytes > 0 && this.#bytes + memoryBytes > MEMORY_BYTES)
      ) {
        await this.#change(signal)
        continue
      }
      const until = Math.max(this.#lastDemand + QUIET_MS, this.#nextPrefetch)
      if (until > now) {
        await this.#clock.sleep(until - now, signal)
        continue
      }
      this.#prefetch++
      this.#bytes += memoryBytes
      return
    }
  }

  /** `bytes` came in `ms`; 0 for a failure. */
  endPrefetch(memoryBytes: number, bytes: number, ms: number): void {
    const isAlone = this.#prefetch === 1 && this.#demand === 0 // others would make the link look slow
    this.#prefetch--
    this.#bytes -= memoryBytes
    if (bytes > 0 && ms > 0 && (isAlone || this.#speed === 0)) {
      const speed = (bytes * 1000) / ms
      this.#speed = this.#speed === 0 ? speed : this.#speed * 0.75 + speed * 0.25
    }
    const { prefetchBandwidth } = this.#limits
    if (prefetchBandwidth > 0) {
      const from = Math.max(this.#clock.now() - 1000, this.#nextPrefetch)
      this.#nextPrefetch = from + (bytes * 1000) / prefetchBandwidth
    }
    this.#onDemandFree()
    this.#wake()
  }

  async #change(signal: AbortSignal): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const onAbort = (): void => reject(signal.reason as Error)
    signal.addEventListener('abort', onAbort, { once: true })
    this.#waiting.push(resolve)
    try {
      await promise
    } finally {
      signal.removeEventListener('abort', onAbort)
    }
  }

  #wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve()
  }
}
