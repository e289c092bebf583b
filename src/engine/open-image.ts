import pLimit from 'p-limit'
import { BLOB_FEATURES, type ChunkInfo, type VerifiedChunk } from '../blob/index.ts'
import type { ChunkCopy, FileTwin, StoredUnit } from '../cache/index.ts'
import type { ChunkSpan } from '../rafs/index.ts'
import { CacheLimit } from './cache-limit.ts'
import { type Clock, SYSTEM_CLOCK } from './clock.ts'
import type { DecodePool } from './decode-pool.ts'
import { EngineError } from './errors.ts'
import { FailedChunks } from './failed-chunks.ts'
import { fetchRange, rangeOf, readClaimed } from './fetch.ts'
import { GrowBudget } from './grow-budget.ts'
import { ImageBlob } from './image-blob.ts'
import type { EngineCounters, EngineLimits, HotImage, ImageParts, ImageReader, PrefetchPlan } from './image-reader.ts'
import { type ActiveRead, type ChunkPart, InFlightChunk, partsOf } from './in-flight.ts'
import { keepContexts } from './kept-contexts.ts'
import { MemoryStore } from './memory-store.ts'
import { ChunkPlace, type FetchLimits, type FetchRange, planFetch } from './plan.ts'
import { Prefetcher } from './prefetch.ts'
import { Schedule } from './schedule.ts'
import { readCopy } from './read-copy.ts'
import { SharedBuffers } from './shared-buffers.ts'
import { storedSize } from './stored-size.ts'
import type { TarData } from './tar-data.ts'

/** About what a 100 Mbit/s link brings in a round trip of 10 ms: less than that between two chunks is not worth a second request. */
const JOIN_GAP_BYTES = 128 * 1024
const MAX_STORED_BYTES = 2 << 20
const MAX_PLAIN_BYTES = 8 << 20
const KEEP_BUFFER_BYTES = 32 << 20
/** Claims verified at a time. */
const CLAIMS = 8

/** Opens an image for reading: its caches are opened or made; nothing is fetched. Throws EngineError 'UNSUPPORTED' or CacheError. */
export async function openImage(parts: ImageParts, clock: Clock = SYSTEM_CLOCK): Promise<ImageReader> {
  for (const { id, features, cipher } of parts.bootstrap.blobs) {
    if ((features & BLOB_FEATURES.ENCRYPTED) !== 0 && cipher === undefined)
      throw new EngineError(
        'UNSUPPORTED',
        `cannot read blob ${id}: it is encrypted, and the image has no key for it; RAFS v5 cannot keep one, so build the image as v6`,
      )
  }
  const memory = new MemoryStore(parts.limits.memoryBytes)
  const blobs: ImageBlob[] = []
  try {
    for (const info of parts.bootstrap.blobs) blobs.push(await ImageBlob.open({ ...parts, info, memory }))
  } catch (error) {
    for (const blob of blobs) await blob.close()
    throw error
  }
  return new OpenImage(parts, blobs, memory, clock)
}

class OpenImage implements ImageReader {
  readonly hot: HotImage
  readonly counters: EngineCounters = {
    demandReads: 0,
    failedReads: 0,
    demandRequests: 0,
    demandBytes: 0,
    prefetchRequests: 0,
    prefetchBytes: 0,
    prefetchChunks: 0,
    prefetchMs: 0,
    prefetchBeganAt: 0,
    prefetchEndedAt: 0,
    chunksVerified: 0,
    badChunks: 0,
    chunksUncached: 0,
    chunksShared: 0,
    evictedBytes: 0,
  }
  readonly #parts: ImageParts
  readonly #clock: Clock
  readonly #blobs: readonly ImageBlob[]
  readonly #memory: MemoryStore
  readonly #limits: EngineLimits
  readonly #decoders: DecodePool
  readonly #schedule: Schedule
  readonly #prefetcher: Prefetcher
  readonly #grow: GrowBudget
  readonly #limit: CacheLimit | undefined
  readonly #buffers = new SharedBuffers(KEEP_BUFFER_BYTES)
  readonly #claims = pLimit(CLAIMS)
  readonly #closing = new AbortController()
  readonly #work = new Set<Promise<void>>()
  readonly #failed = new FailedChunks()
  #isFlushPlanned = false
  #closed: Promise<void> | undefined

  constructor(parts: ImageParts, blobs: readonly ImageBlob[], memory: MemoryStore, clock: Clock) {
    this.#parts = parts
    this.#clock = clock
    this.#blobs = blobs
    this.#memory = memory
    this.#limits = parts.limits
    this.#decoders = parts.decoders
    const { cacheBytes = 0 } = parts.limits
    const { cacheDirectory: directory, dedup } = parts
    const onEvicted = (bytes: number): void => void (this.counters.evictedBytes += bytes)
    this.#limit =
      directory === undefined || cacheBytes === 0
        ? undefined
        : new CacheLimit({ directory, limitBytes: cacheBytes, dedup }, blobs, onEvicted)
    this.#grow = new GrowBudget(parts.limits.amplifyBytes)
    this.#schedule = new Schedule(parts.limits, clock, () => this.#planFlush())
    this.#prefetcher = new Prefetcher(parts.bootstrap, blobs, this.#schedule, {
      requests: parts.limits.prefetchRequests,
      clock,
      verify: (blob, chunk) => this.#verify(blob, chunk),
      fetch: (blob, range) => this.#prefetchRange(blob, range),
    })
    this.hot = {
      blobs: blobs.map(({ cache, tar, chunks, touched }) => {
        const dataFd = tar?.fd ?? cache?.dataFd ?? -1
        return { dataFd, chunks: tar !== undefined && dataFd >= 0 ? undefined : chunks, touched }
      }),
    }
  }

  async read(spans: readonly ChunkSpan[], count: number, into: Uint8Array, signal: AbortSignal): Promise<void> {
    if (this.#closed !== undefined) throw closed()
    this.counters.demandReads++
    const read: ActiveRead = { into, isOver: false }
    const [beganAt, wanted] = [this.#clock.now(), partsOf(spans, count)]
    const deadline = AbortSignal.timeout(this.#limits.readDeadlineMs)
    const { promise: ended, reject } = Promise.withResolvers<never>()
    const onAbort = (): void =>
      reject(new EngineError('ABORTED', 'the reader no longer waits', { cause: signal.reason }))
    const onDeadline = (): void => {
      const late = new EngineError('TIMEOUT', `the data did not come in ${this.#limits.readDeadlineMs} ms`)
      for (const { blobIndex, chunk } of wanted)
        if (this.#blobs[blobIndex]?.isHere(chunk) === false) this.#noteFailure(blobIndex, [chunk], late, beganAt)
      reject(late)
    }
    if (signal.aborted) onAbort()
    this.#schedule.readBegins()
    signal.addEventListener('abort', onAbort, { once: true })
    deadline.addEventListener('abort', onDeadline, { once: true })
    try {
      const parts = wanted.map((part) => this.#part(part, read))
      await Promise.race([Promise.all(parts), ended]) // a read has as many parts as fit into 1 MiB
    } catch (error) {
      this.counters.failedReads++
      throw error
    } finally {
      read.isOver = true
      this.#schedule.readEnds()
      signal.removeEventListener('abort', onAbort)
      deadline.removeEventListener('abort', onDeadline)
    }
  }

  prefetch(plan: PrefetchPlan): void {
    // Without a place on disk what comes early is gone before it is read.
    if (this.#closed !== undefined || this.#blobs.every(({ cache }) => cache === undefined)) return
    this.#track(this.#prefetcher.start(plan))
  }

  keepContexts(): void {
    const { backend, cacheDirectory, bootstrap } = this.#parts
    if (this.#closed !== undefined || cacheDirectory === undefined) return
    const [schedule, clock, { signal }] = [this.#schedule, this.#clock, this.#closing]
    this.#track(keepContexts(bootstrap.blobs, { backend, cacheDirectory, schedule, clock, signal }))
  }

  close(): Promise<void> {
    this.#closed ??= this.#close()
    return this.#closed
  }

  async #close(): Promise<void> {
    this.#closing.abort(closed())
    await this.#prefetcher.stop()
    for (const blob of this.#blobs) {
      blob.wanted.clear()
      for (const chunk of blob.inFlight.values()) chunk.fail(closed())
    }
    while (this.#work.size > 0) await Promise.allSettled(this.#work)
    for (const blob of this.#blobs) await blob.close()
    this.#parts.dedup?.collect()
    this.#memory.clear()
  }

  /** Brings one part of a read. A fetch that somebody else began and that failed is tried once more: its failure may be older than this read. */
  async #part(part: ChunkPart, read: ActiveRead): Promise<void> {
    const blob = this.#blobs[part.blobIndex]
    if (blob === undefined) throw new EngineError('BACKEND', `the image has no blob ${part.blobIndex}`)
    blob.touched[part.chunk] = 1
    if (blob.tar !== undefined) return await this.#tarPart(blob, blob.tar, part, read)
    blob.checkPart(part)
    for (let hasRetried = false; ; ) {
      if (this.#closed !== undefined) throw closed()
      if (blob.isHere(part.chunk)) {
        const bytes = Buffer.allocUnsafe(part.length)
        if (await blob.readPart(part, bytes)) {
          if (!read.isOver) read.into.set(bytes, part.at)
          return
        }
        continue
      }
      const underWay = blob.inFlight.get(part.chunk)
      const failure =
        underWay === undefined ? this.#failed.recent(blob.index, part.chunk, this.#clock.now()) : undefined
      if (failure !== undefined) throw failure
      const chunk = underWay ?? this.#begin(blob, part.chunk)
      try {
        await chunk.wait(read, part)
        return
      } catch (error) {
        if (underWay === undefined || hasRetried || read.isOver) throw error
        hasRetried = true
      }
    }
  }

  async #tarPart(blob: ImageBlob, tar: TarData, part: ChunkPart, read: ActiveRead): Promise<void> {
    if (this.#closed !== undefined) throw closed()
    const bytes = Buffer.allocUnsafe(part.length)
    try {
      await tar.read(part.chunkOffset + part.offsetInChunk, bytes, this.#deadline())
    } catch (error) {
      throw this.#failure(blob, error)
    }
    if (!read.isOver) read.into.set(bytes, part.at)
  }

  /** Of what is asked of a backend: it must not hold a place for ever. */
  #deadline(): AbortSignal {
    return AbortSignal.any([this.#closing.signal, AbortSignal.timeout(this.#limits.readDeadlineMs)])
  }

  #begin(blob: ImageBlob, index: number): InFlightChunk {
    const chunk = new InFlightChunk(index)
    blob.inFlight.set(index, chunk)
    if (blob.cache?.claimed(index) === true) this.#track(this.#claims(() => this.#settleClaim(blob, chunk)))
    else {
      const copies = blob.has(index) ? blob.copies(index) : []
      if (copies.length === 0) this.#want(blob, index)
      else this.#track(this.#claims(() => this.#takeOver(blob, chunk, copies)))
    }
    return chunk
  }

  #want(blob: ImageBlob, index: number): void {
    blob.wanted.add(index)
    this.#planFlush()
  }

  /** Requests are planned once for all misses of this turn of the event loop, and when a request has ended. */
  #planFlush(): void {
    if (this.#isFlushPlanned || this.#closed !== undefined) return
    this.#isFlushPlanned = true
    setImmediate(() => {
      this.#isFlushPlanned = false
      for (const blob of this.#blobs) if (blob.wanted.size > 0) this.#flush(blob)
    })
  }

  #flush(blob: ImageBlob): void {
    if (this.#closed !== undefined) return
    const limits: FetchLimits = {
      joinGapBytes: Math.min(JOIN_GAP_BYTES, this.#limits.amplifyBytes),
      growBytes: this.#grow.next(),
      maxStoredBytes: Math.max(MAX_STORED_BYTES, this.#limits.amplifyBytes),
      maxPlainBytes: MAX_PLAIN_BYTES,
    }
    const place = new ChunkPlace()
    for (const index of blob.wanted) if (!blob.place(index, place)) this.#fail(blob, index, blob.unknown(index))
    const planned = this.#plan(blob, limits)
    for (const range of planned) {
      const memoryBytes = range.length + range.plainLength
      if (!this.#schedule.tryDemand(memoryBytes)) return
      const wanted = range.chunks.filter((index) => blob.wanted.delete(index))
      this.#account(blob, range, new Set(wanted))
      this.#track(this.#demandRange(blob, range, false).finally(() => this.#schedule.endDemand(memoryBytes)))
    }
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
    this.counters.demandRequests++
    this.counters.demandBytes += range.length
    await this.#fetch(blob, range, isSecondTry)
  }

  /** Fetches ahead; false when it failed. The place in the schedule is the caller's. */
  async #prefetchRange(blob: ImageBlob, range: FetchRange): Promise<boolean> {
    const { counters } = this
    counters.prefetchRequests++
    counters.prefetchBytes += range.length
    counters.prefetchChunks += range.chunks.length
    const from = Date.now()
    if (counters.prefetchBeganAt === 0) counters.prefetchBeganAt = from
    const isDone = await this.#fetch(blob, range, false, 'prefetch')
    counters.prefetchEndedAt = Date.now()
    counters.prefetchMs += counters.prefetchEndedAt - from
    return isDone
  }

  /** Never throws: who waits for the chunks is told. */
  async #fetch(
    blob: ImageBlob,
    range: FetchRange,
    isSecondTry: boolean,
    purpose: 'demand' | 'prefetch' = 'demand',
  ): Promise<boolean> {
    for (const index of range.chunks) if (!blob.inFlight.has(index)) blob.inFlight.set(index, new InFlightChunk(index))
    const left = new Set(range.chunks)
    const bad: ChunkInfo[] = []
    const signal = this.#deadline()
    const beganAt = this.#clock.now()
    const parts = { decoders: this.#decoders, buffers: this.#buffers, signal, purpose }
    let failure: EngineError | undefined
    try {
      await fetchRange(blob, range, parts, {
        onChunk: async (info, bytes, stored) => {
          this.#failed.clear()
          await this.#keep(blob, info, bytes, stored)
          left.delete(info.index)
        },
        onBadChunk: (info, reason) => {
          this.counters.badChunks++
          left.delete(info.index)
          if (isSecondTry) this.#fail(blob, info.index, new EngineError('BAD_DIGEST', reason))
          else bad.push(info)
        },
      })
    } catch (error) {
      failure = this.#failure(blob, error)
      if (purpose === 'demand') this.#noteFailure(blob.index, left, failure, beganAt)
      for (const index of left) this.#fail(blob, index, failure)
    }
    // Perhaps a mirror, or a bit on the way: asked for once more, alone.
    for (const info of bad) await this.#demandRange(blob, blob.zran?.rangeOf(info) ?? rangeOf(info), true)
    return failure === undefined
  }

  #failure(blob: ImageBlob, error: unknown): EngineError {
    if (error instanceof EngineError) return error
    if (this.#closing.signal.aborted) return closed()
    const code = error instanceof Error && 'code' in error && error.code === 'TIMEOUT' ? 'TIMEOUT' : 'BACKEND'
    return new EngineError(code, `cannot read blob ${blob.info.id}`, { cause: error })
  }

  #noteFailure(blob: number, chunks: Iterable<number>, error: EngineError, beganAt: number): void {
    this.#failed.note(blob, chunks, error, beganAt, this.#clock.now())
  }

  /** Verified bytes: to the readers' buffers, to the cache, and then the readers are told. */
  async #keep(
    blob: ImageBlob,
    info: ChunkInfo,
    bytes: VerifiedChunk,
    stored?: StoredUnit,
    twin?: FileTwin,
  ): Promise<void> {
    this.counters.chunksVerified++
    const chunk = blob.inFlight.get(info.index)
    chunk?.arrived(bytes)
    if ((await blob.keep(info, bytes, stored, chunk?.isAwaited === true, twin)) === 'in memory') {
      this.counters.chunksUncached++
      void this.#prefetcher.stop()
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
      const parts = { decoders: this.#decoders, buffers: this.#buffers, signal: this.#closing.signal }
      const isRight = await readClaimed(blob, chunk.chunk, parts, (info, bytes) => {
        this.counters.chunksVerified++
        blob.found(info, bytes, chunk.isAwaited)
        chunk.arrived(bytes)
        blob.inFlight.delete(chunk.chunk)
        chunk.done()
      })
      if (isRight) return
      this.counters.badChunks++
      blob.cache?.distrust(chunk.chunk)
      if (chunk.isAwaited) this.#want(blob, chunk.chunk)
      else blob.inFlight.delete(chunk.chunk)
    } catch (error) {
      this.#fail(blob, chunk.chunk, this.#failure(blob, error))
    }
  }

  /** A chunk that another cache of this node may have: verified like any other, or fetched. */
  async #takeOver(blob: ImageBlob, chunk: InFlightChunk, copies: readonly ChunkCopy[]): Promise<void> {
    try {
      const parts = { decoders: this.#decoders, buffers: this.#buffers, signal: this.#closing.signal }
      const isTaken = await readCopy(blob, chunk.chunk, copies, parts, async (info, bytes, twin) => {
        this.counters.chunksShared++
        await this.#keep(blob, info, bytes, undefined, twin)
      })
      if (isTaken) return
      if (chunk.isAwaited) this.#want(blob, chunk.chunk)
      else blob.inFlight.delete(chunk.chunk)
    } catch (error) {
      this.#fail(blob, chunk.chunk, this.#failure(blob, error))
    }
  }

  /** For prefetch: makes a claimed chunk trusted, or a missing one, which may come from another cache. */
  async #verify(blob: ImageBlob, index: number): Promise<void> {
    if (this.#closed !== undefined || blob.isHere(index) || blob.inFlight.has(index)) return
    const isClaimed = blob.cache?.claimed(index) === true
    const copies = isClaimed ? [] : blob.copies(index)
    if (!isClaimed && copies.length === 0) return
    const chunk = new InFlightChunk(index)
    blob.inFlight.set(index, chunk)
    await this.#claims(() => (isClaimed ? this.#settleClaim(blob, chunk) : this.#takeOver(blob, chunk, copies)))
  }

  #track(work: Promise<unknown>): void {
    const tracked = work.then(
      () => undefined,
      () => undefined, // who waits for it has the error
    )
    this.#work.add(tracked)
    void tracked.then(() => this.#work.delete(tracked))
  }
}

function closed(): EngineError {
  return new EngineError('CLOSED', 'the image was closed')
}
