import pLimit from 'p-limit'
import type { ChunkInfo, VerifiedChunk } from '../blob/index.ts'
import type { ChunkCopy, ChunkToStore, FileTwin, StoredUnit } from '../cache/index.ts'
import { CacheLimit } from './cache-limit.ts'
import type { Clock } from './clock.ts'
import type { DecodePool } from './decode-pool.ts'
import { closed, EngineError } from './errors.ts'
import { FailedChunks } from './failed-chunks.ts'
import { fetchRange, rangeOf, readClaimed } from './fetch.ts'
import { GrowBudget } from './grow-budget.ts'
import type { ImageBlob } from './image-blob.ts'
import type { EngineCounters, EngineLimits, ImageParts } from './image-reader.ts'
import { InFlightChunk } from './in-flight.ts'
import { ChunkPlace, type FetchLimits, type FetchRange, planFetch, planFollowing } from './plan.ts'
import { readCopy } from './read-copy.ts'
import { ReadOn } from './read-on.ts'
import { type PrefetchPlace, Schedule } from './schedule.ts'
import { SharedBuffers } from './shared-buffers.ts'
import { storedSize } from './stored-size.ts'
import { Deadline } from '../kernel/index.ts'

/** About what a 100 Mbit/s link brings in a round trip of 10 ms: less than that between two chunks is not worth a second request. */
const JOIN_GAP_BYTES = 128 * 1024
const MAX_STORED_BYTES = 2 << 20
const MAX_PLAIN_BYTES = 8 << 20
const KEEP_BUFFER_BYTES = 32 << 20
/** Less is not worth a request of its own. */
const READ_ON_BYTES = 256 * 1024
/** Claims verified at a time. */
const CLAIMS = 8

export interface MissesParts {
  readonly parts: ImageParts
  readonly blobs: readonly ImageBlob[]
  readonly clock: Clock
  readonly counters: EngineCounters
  /** Ends everything under way. */
  readonly closing: AbortSignal
  /** A chunk could not be kept on disk. */
  readonly onUncached: () => void
}

/**
 * Brings chunks that are missing: from claims of the cache, from other caches of the node, or from the backend, where wanted chunks are joined into few requests. One way a chunk, however many wait for it.
 */
export class Misses {
  readonly schedule: Schedule
  readonly #blobs: readonly ImageBlob[]
  readonly #clock: Clock
  readonly #counters: EngineCounters
  readonly #closing: AbortSignal
  readonly #onUncached: () => void
  readonly #limits: EngineLimits
  readonly #decoders: DecodePool
  readonly #grow: GrowBudget
  readonly #limit: CacheLimit | undefined
  readonly #buffers = new SharedBuffers(KEEP_BUFFER_BYTES)
  readonly #claims = pLimit(CLAIMS)
  readonly #work = new Set<Promise<void>>()
  readonly #failed = new FailedChunks()
  readonly #followers: ReadOn
  #isFlushPlanned = false

  constructor({ parts, blobs, clock, counters, closing, onUncached }: MissesParts) {
    this.#blobs = blobs
    this.#clock = clock
    this.#counters = counters
    this.#closing = closing
    this.#onUncached = onUncached
    this.#limits = parts.limits
    this.#decoders = parts.decoders
    const { cacheBytes = 0 } = parts.limits
    const { cacheDirectory: directory, dedup } = parts
    const onEvicted = (bytes: number): void => void (counters.evictedBytes += bytes)
    this.#limit =
      directory === undefined || cacheBytes === 0
        ? undefined
        : new CacheLimit({ directory, limitBytes: cacheBytes, dedup }, blobs, onEvicted)
    this.#grow = new GrowBudget(parts.limits.amplifyBytes)
    this.#followers = new ReadOn(() => clock.now())
    this.schedule = new Schedule(parts.limits, clock, () => this.#planFlush())
  }

  get #isClosed(): boolean {
    return this.#closing.aborted
  }

  /** Ends all waits for chunks, and resolves when nothing is under way. After `closing` only. */
  async end(): Promise<void> {
    this.#followers.close()
    for (const blob of this.#blobs) {
      blob.wanted.clear()
      for (const chunk of blob.inFlight.values()) chunk.fail(closed())
    }
    while (this.#work.size > 0) await Promise.allSettled(this.#work)
  }

  /** Why the chunk could not be had a moment ago, if that was so. */
  recentFailure(blob: ImageBlob, chunk: number): EngineError | undefined {
    return this.#failed.recent(blob.index, chunk, this.#clock.now())
  }

  /** Of what is asked of a backend: it must not hold a place for ever. To be disposed of. */
  deadline(): Deadline {
    return new Deadline(this.#limits.readDeadlineMs, this.#closing)
  }

  begin(blob: ImageBlob, index: number): InFlightChunk {
    const chunk = new InFlightChunk(index)
    blob.inFlight.set(index, chunk)
    if (blob.cache?.claimed(index) === true) this.track(this.#claims(() => this.#settleClaim(blob, chunk)))
    else {
      const copies = blob.has(index) ? blob.copies(index) : []
      if (copies.length === 0) this.#want(blob, index)
      else this.track(this.#claims(() => this.#takeOver(blob, chunk, copies)))
    }
    return chunk
  }

  #want(blob: ImageBlob, index: number): void {
    blob.wanted.add(index)
    this.#planFlush()
  }

  /** Requests are planned once for all misses of this turn of the event loop, and when a request has ended. */
  #planFlush(): void {
    if (this.#isFlushPlanned || this.#isClosed) return
    this.#isFlushPlanned = true
    setImmediate(() => {
      this.#isFlushPlanned = false
      for (const blob of this.#blobs) if (blob.wanted.size > 0) this.#flush(blob)
    })
  }

  #fetchLimits(): FetchLimits {
    return {
      joinGapBytes: Math.min(JOIN_GAP_BYTES, this.#limits.amplifyBytes),
      growBytes: this.#grow.next(),
      maxStoredBytes: Math.max(MAX_STORED_BYTES, this.#limits.amplifyBytes),
      maxPlainBytes: MAX_PLAIN_BYTES,
    }
  }

  #flush(blob: ImageBlob): void {
    if (this.#isClosed) return
    const limits = this.#fetchLimits()
    const place = new ChunkPlace()
    for (const index of blob.wanted) if (!blob.place(index, place)) this.#fail(blob, index, blob.unknown(index))
    const planned = this.#plan(blob, limits)
    for (const range of planned) {
      const memoryBytes = range.length + range.plainLength
      if (!this.schedule.tryDemand(memoryBytes)) return
      const wanted = range.chunks.filter((index) => blob.wanted.delete(index))
      this.#account(blob, range, new Set(wanted))
      this.track(this.#demandRange(blob, range, false).finally(() => this.schedule.endDemand(memoryBytes)))
    }
  }

  /**
   * A reader has come to what was guessed before that was there: it reads on. Where guesses were good so far, what follows is asked for now, so that the link is not idle while the next answer is awaited.
   */
  #readOn(blob: ImageBlob, range: FetchRange): void {
    const limits = this.#fetchLimits()
    if (this.#isClosed || !this.#grow.isProven || limits.growBytes < READ_ON_BYTES) return
    const following = planFollowing(range, blob, limits)
    if (following === undefined) return
    const memoryBytes = following.length + following.plainLength
    if (!this.schedule.tryDemand(memoryBytes)) return
    this.#account(blob, following, new Set())
    this.track(this.#demandRange(blob, following, false).finally(() => this.schedule.endDemand(memoryBytes)))
  }

  #plan(blob: ImageBlob, limits: FetchLimits): FetchRange[] {
    if (blob.zran === undefined) return planFetch([...blob.wanted], blob, limits)
    return blob.zran.plan([...blob.wanted], blob)
  }

  #account(blob: ImageBlob, range: FetchRange, wanted: ReadonlySet<number>): void {
    for (const index of range.chunks) {
      const info = blob.chunk(index)
      if (wanted.has(index)) this.#grow.demanded(storedSize(info))
      else this.#grow.guessed(blob.touched, index, storedSize(info))
    }
  }

  async #demandRange(blob: ImageBlob, range: FetchRange, isSecondTry: boolean): Promise<void> {
    this.#counters.demandRequests++
    this.#counters.demandBytes += range.length
    await this.#fetch(blob, range, isSecondTry)
  }

  /** Fetches ahead; false when it failed. The place in the schedule is the caller's, who learns what came and ends it. */
  async prefetchRange(blob: ImageBlob, range: FetchRange, place: PrefetchPlace): Promise<boolean> {
    const counters = this.#counters
    counters.prefetchRequests++
    counters.prefetchBytes += range.length
    counters.prefetchChunks += range.chunks.length
    const from = Date.now()
    if (counters.prefetchBeganAt === 0) counters.prefetchBeganAt = from
    const isDone = await this.#fetch(blob, range, false, place)
    counters.prefetchEndedAt = Date.now()
    counters.prefetchMs += counters.prefetchEndedAt - from
    return isDone
  }

  /** Never throws: who waits for the chunks is told. */
  async #fetch(blob: ImageBlob, range: FetchRange, isSecondTry: boolean, ahead?: PrefetchPlace): Promise<boolean> {
    const waits = { onWait: (): void => undefined }
    const readOn = ahead === undefined && blob.zran === undefined ? once(() => this.#readOn(blob, range)) : undefined
    const onWait = (): void => {
      waits.onWait()
      readOn?.()
    }
    if (readOn !== undefined && this.#grow.isProven) this.#followers.watch(range, blob.touched, readOn)
    for (const index of range.chunks)
      if (!blob.inFlight.has(index)) blob.inFlight.set(index, new InFlightChunk(index, onWait))
    const left = new Set(range.chunks)
    const bad: ChunkInfo[] = []
    using deadline = this.deadline()
    const { signal } = deadline
    const beganAt = this.#clock.now()
    const purpose = ahead === undefined ? 'demand' : 'prefetch'
    const parts = {
      decoders: this.#decoders,
      buffers: this.#buffers,
      signal,
      purpose,
      afterWrongBytes: isSecondTry,
      waits,
      ...(ahead && { ahead }),
    } as const
    let failure: EngineError | undefined
    try {
      await fetchRange(blob, range, parts, {
        onChunks: async (chunks) => {
          this.#failed.clear()
          await this.#keepAll(blob, chunks)
          for (const { chunk } of chunks) left.delete(chunk.index)
        },
        onBadChunk: (info, reason) => {
          this.#counters.badChunks++
          left.delete(info.index)
          if (isSecondTry) this.#fail(blob, info.index, new EngineError('BAD_DIGEST', reason))
          else bad.push(info)
        },
      })
    } catch (error) {
      failure = this.failure(blob, error)
      if (purpose === 'demand') this.noteFailure(blob.index, left, failure, beganAt)
      for (const index of left) this.#fail(blob, index, failure)
    }
    // Perhaps a mirror, a bit on the way, or a file that was replaced: asked for once more, alone, from the source.
    for (const info of bad) await this.#demandRange(blob, blob.zran?.rangeOf(info) ?? rangeOf(info), true)
    return failure === undefined
  }

  failure(blob: ImageBlob, error: unknown): EngineError {
    if (error instanceof EngineError) return error
    if (this.#closing.aborted) return closed()
    const code = error instanceof Error && 'code' in error && error.code === 'TIMEOUT' ? 'TIMEOUT' : 'BACKEND'
    return new EngineError(code, `cannot read blob ${blob.info.id}`, { cause: error })
  }

  noteFailure(blob: number, chunks: Iterable<number>, error: EngineError, beganAt: number): void {
    this.#failed.note(blob, chunks, error, beganAt, this.#clock.now())
  }

  /** The same as for each alone, with less to do for all. */
  async #keepAll(blob: ImageBlob, chunks: readonly ChunkToStore[]): Promise<void> {
    for (const { chunk, bytes } of chunks) blob.inFlight.get(chunk.index)?.arrived(bytes)
    if (chunks.length < 2 || !(await blob.keepAll(chunks))) {
      await Promise.all(chunks.map(async (each) => await this.#keep(blob, each.chunk, each.bytes, each.stored))) // as many as one task has
      return
    }
    this.#counters.chunksVerified += chunks.length
    let sum = 0
    for (const { chunk, bytes } of chunks) {
      const inFlight = blob.inFlight.get(chunk.index)
      blob.inFlight.delete(chunk.index)
      inFlight?.done()
      sum += bytes.length
    }
    await this.#limit?.stored(sum)
  }

  /** Verified bytes: to the readers' buffers, to the cache, and then the readers are told. */
  async #keep(
    blob: ImageBlob,
    info: ChunkInfo,
    bytes: VerifiedChunk,
    stored?: StoredUnit,
    twin?: FileTwin,
  ): Promise<void> {
    this.#counters.chunksVerified++
    const chunk = blob.inFlight.get(info.index)
    chunk?.arrived(bytes)
    if ((await blob.keep(info, bytes, stored, chunk?.isAwaited === true, twin)) === 'in memory') {
      this.#counters.chunksUncached++
      this.#onUncached()
    }
    blob.inFlight.delete(info.index)
    chunk?.done()
    await this.#limit?.stored(bytes.length)
  }

  #fail(blob: ImageBlob, index: number, error: EngineError): void {
    const chunk = blob.inFlight.get(index)
    blob.inFlight.delete(index)
    blob.wanted.delete(index)
    chunk?.fail(error)
  }

  /** A chunk that the cache claims to have: verified, or the claim is withdrawn and the chunk fetched. */
  async #settleClaim(blob: ImageBlob, chunk: InFlightChunk): Promise<void> {
    try {
      const parts = { decoders: this.#decoders, buffers: this.#buffers, signal: this.#closing }
      const isRight = await readClaimed(blob, chunk.chunk, parts, (info, bytes) => {
        this.#counters.chunksVerified++
        blob.found(info, bytes, chunk.isAwaited)
        chunk.arrived(bytes)
        blob.inFlight.delete(chunk.chunk)
        chunk.done()
      })
      if (isRight) return
      this.#counters.badChunks++
      blob.cache?.distrust(chunk.chunk)
      if (chunk.isAwaited) this.#want(blob, chunk.chunk)
      else blob.inFlight.delete(chunk.chunk)
    } catch (error) {
      this.#fail(blob, chunk.chunk, this.failure(blob, error))
    }
  }

  /** A chunk that another cache of this node may have: verified like any other, or fetched. */
  async #takeOver(blob: ImageBlob, chunk: InFlightChunk, copies: readonly ChunkCopy[]): Promise<void> {
    try {
      const parts = { decoders: this.#decoders, buffers: this.#buffers, signal: this.#closing }
      const isTaken = await readCopy(blob, chunk.chunk, copies, parts, async (info, bytes, twin) => {
        this.#counters.chunksShared++
        await this.#keep(blob, info, bytes, undefined, twin)
      })
      if (isTaken) return
      if (chunk.isAwaited) this.#want(blob, chunk.chunk)
      else blob.inFlight.delete(chunk.chunk)
    } catch (error) {
      this.#fail(blob, chunk.chunk, this.failure(blob, error))
    }
  }

  /** For prefetch: makes a claimed chunk trusted, or a missing one, which may come from another cache. */
  async verify(blob: ImageBlob, index: number): Promise<void> {
    if (this.#isClosed || blob.isHere(index) || blob.inFlight.has(index)) return
    const isClaimed = blob.cache?.claimed(index) === true
    const copies = isClaimed ? [] : blob.copies(index)
    if (!isClaimed && copies.length === 0) return
    const chunk = new InFlightChunk(index)
    blob.inFlight.set(index, chunk)
    await this.#claims(() => (isClaimed ? this.#settleClaim(blob, chunk) : this.#takeOver(blob, chunk, copies)))
  }

  track(work: Promise<unknown>): void {
    const tracked = work.then(
      () => undefined,
      () => undefined, // who waits for it has the error
    )
    this.#work.add(tracked)
    void tracked.then(() => this.#work.delete(tracked))
  }
}

function once(act: () => void): () => void {
  let isDone = false
  return () => {
    if (!isDone) act()
    isDone = true
  }
}
