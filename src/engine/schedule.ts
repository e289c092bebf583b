import type { Clock } from './clock.ts'
import { LinkSpeed } from './link-speed.ts'

/** After demand the link stays free for so long: the reader who just got its bytes is about to ask for more. */
const QUIET_MS = 30
/** Stored and plain bytes of all fetches under way. */
const MEMORY_BYTES = 96 << 20
/** All that prefetch has under way, of it. */
const PREFETCH_MEMORY_BYTES = 8 << 20
/** A prefetch request should keep the link busy for about so long, no longer: that is what a reader may have to wait for it. */
const PIECE_MS = 25
/** The next one goes out a round trip, and so much, before the last byte of those before it is there: then the link is never idle, also where this process has to wait for its turn. */
const AHEAD_MS = 30
/** At once, before anything is known of the link. */
const FIRST_REQUESTS = 2
const MIN_PIECE_BYTES = 128 * 1024
const MAX_PIECE_BYTES = 1 << 20

export interface ScheduleLimits {
  readonly demandRequests: number
  readonly prefetchRequests: number
  /** Bytes a second, 0 = no limit. */
  readonly prefetchBandwidth: number
}

/** A prefetch request that may go out. */
export interface PrefetchPlace {
  /** So many bytes of its answer have come, in all. */
  filled(bytes: number): void
  /** The link is free for the next one, while what came is decoded; 0 bytes = it failed. Once. */
  arrived(bytes: number): void
  /** Its memory is free. Once, also after a failure. */
  end(): void
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
  /** Of `#bytes`, for prefetch. */
  #prefetchBytes = 0
  /** Stored bytes that prefetch has asked for and that have not come yet. */
  #coming = 0
  #lastDemand = -Infinity
  #nextPrefetch = 0
  readonly #speed = new LinkSpeed()
  readonly #waiting = new Set<() => void>()

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
    const fitting = this.#speed.bytesPerMs * PIECE_MS
    return Math.round(Math.min(MAX_PIECE_BYTES, Math.max(MIN_PIECE_BYTES, fitting)))
  }

  /** Waits until a prefetch request for so many bytes may go out, and takes its place. Rejects when the signal is aborted. */
  async startPrefetch(stored: number, plain: number, signal: AbortSignal): Promise<PrefetchPlace> {
    for (;;) {
      signal.throwIfAborted()
      const now = this.#clock.now()
      if (!this.#mayPrefetch(stored + plain)) {
        await this.#change(signal)
        continue
      }
      const until = Math.max(this.#lastDemand + QUIET_MS, this.#nextPrefetch)
      if (until > now) {
        await this.#clock.sleep(until - now, signal)
        continue
      }
      return this.#place(stored, stored + plain)
    }
  }

  #mayPrefetch(memoryBytes: number): boolean {
    if (this.#readers > 0 || this.#demand > 0 || this.#prefetch >= this.#limits.prefetchRequests) return false
    if (this.#bytes > 0 && this.#bytes + memoryBytes > MEMORY_BYTES) return false
    if (this.#prefetchBytes > 0 && this.#prefetchBytes + memoryBytes > PREFETCH_MEMORY_BYTES) return false
    return !this.#isLinkBusy
  }

  /** Do the requests under way keep the link busy until another one's answer would begin? */
  get #isLinkBusy(): boolean {
    const { bytesPerMs, roundTripMs } = this.#speed
    if (bytesPerMs === 0) return this.#prefetch >= FIRST_REQUESTS
    return this.#coming > bytesPerMs * (roundTripMs + AHEAD_MS)
  }

  #place(stored: number, memoryBytes: number): PrefetchPlace {
    const isAlone = this.#prefetch === 0
    this.#prefetch++
    this.#bytes += memoryBytes
    this.#prefetchBytes += memoryBytes
    this.#coming += stored
    const [speed, askedAt] = [this.#speed, this.#clock.now()]
    let [before, hasArrived] = [0, false]
    const filled = (bytes: number): void => {
      if (hasArrived || bytes <= before) return
      const now = this.#clock.now()
      if (before === 0) speed.begins(now, bytes, isAlone ? now - askedAt : undefined)
      else speed.came(bytes - before)
      this.#coming -= bytes - before
      before = bytes
      this.#wake()
    }
    const arrived = (bytes: number): void => {
      if (bytes > 0) filled(bytes)
      hasArrived = true
      this.#coming -= stored - before
      const now = this.#clock.now()
      if (before > 0) speed.ends(now, bytes, now - askedAt)
      this.#prefetch--
      this.#count(bytes, now)
      this.#onDemandFree()
      this.#wake()
    }
    const end = (): void => {
      if (!hasArrived) arrived(0)
      this.#bytes -= memoryBytes
      this.#prefetchBytes -= memoryBytes
      this.#onDemandFree()
      this.#wake()
    }
    return { filled, arrived, end }
  }

  /** What the bandwidth of prefetch allows from now on. */
  #count(bytes: number, now: number): void {
    const { prefetchBandwidth } = this.#limits
    if (prefetchBandwidth > 0)
      this.#nextPrefetch = Math.max(now - 1000, this.#nextPrefetch) + (bytes * 1000) / prefetchBandwidth
  }

  async #change(signal: AbortSignal): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const onAbort = (): void => reject(signal.reason as Error)
    signal.addEventListener('abort', onAbort, { once: true })
    this.#waiting.add(resolve)
    try {
      await promise
    } finally {
      this.#waiting.delete(resolve)
      signal.removeEventListener('abort', onAbort)
    }
  }

  /** Asked after every piece of an answer: who waits is told only when even the smallest request might go out. */
  #wake(): void {
    if (this.#waiting.size === 0 || !this.#mayPrefetch(0)) return
    for (const resolve of this.#waiting) resolve()
    this.#waiting.clear()
  }
}
