import { BLOB_FEATURES } from '../blob/index.ts'
import type { ChunkSpan } from '../rafs/index.ts'
import { type Clock, SYSTEM_CLOCK } from './clock.ts'
import { closed, EngineError } from './errors.ts'
import { ImageBlob } from './image-blob.ts'
import type { EngineCounters, EngineLimits, HotImage, ImageParts, ImageReader, PrefetchPlan } from './image-reader.ts'
import { type ActiveRead, type ChunkPart, partsOf } from './in-flight.ts'
import { keepContexts } from './kept-contexts.ts'
import { MemoryStore } from './memory-store.ts'
import { Misses } from './misses.ts'
import { Prefetcher } from './prefetch.ts'
import type { TarData } from './tar-data.ts'
import { Deadline } from '../kernel/index.ts'

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
  readonly #misses: Misses
  readonly #prefetcher: Prefetcher
  readonly #closing = new AbortController()
  #closed: Promise<void> | undefined

  constructor(parts: ImageParts, blobs: readonly ImageBlob[], memory: MemoryStore, clock: Clock) {
    this.#parts = parts
    this.#clock = clock
    this.#blobs = blobs
    this.#memory = memory
    this.#limits = parts.limits
    const closing = this.#closing.signal
    const onUncached = (): void => void this.#prefetcher.stop()
    this.#misses = new Misses({ parts, blobs, clock, counters: this.counters, closing, onUncached })
    this.#prefetcher = new Prefetcher(parts.bootstrap, blobs, this.#misses.schedule, {
      requests: parts.limits.prefetchRequests,
      clock,
      verify: (blob, chunk) => this.#misses.verify(blob, chunk),
      fetch: (blob, range, place) => this.#misses.prefetchRange(blob, range, place),
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
    using within = new Deadline(this.#limits.readDeadlineMs)
    const deadline = within.signal
    const { promise: ended, reject } = Promise.withResolvers<never>()
    const onAbort = (): void =>
      reject(new EngineError('ABORTED', 'the reader no longer waits', { cause: signal.reason }))
    const onDeadline = (): void => {
      const late = new EngineError('TIMEOUT', `the data did not come in ${this.#limits.readDeadlineMs} ms`)
      for (const { blobIndex, chunk } of wanted)
        if (this.#blobs[blobIndex]?.isHere(chunk) === false) this.#misses.noteFailure(blobIndex, [chunk], late, beganAt)
      reject(late)
    }
    if (signal.aborted) onAbort()
    this.#misses.schedule.readBegins()
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
      this.#misses.schedule.readEnds()
      signal.removeEventListener('abort', onAbort)
      deadline.removeEventListener('abort', onDeadline)
    }
  }

  prefetch(plan: PrefetchPlan): void {
    // Without a place on disk what comes early is gone before it is read.
    if (this.#closed !== undefined || this.#blobs.every(({ cache }) => cache === undefined)) return
    this.#misses.track(this.#prefetcher.start(plan))
  }

  keepContexts(): void {
    const { backend, cacheDirectory, bootstrap } = this.#parts
    if (this.#closed !== undefined || cacheDirectory === undefined) return
    const [schedule, clock, { signal }] = [this.#misses.schedule, this.#clock, this.#closing]
    this.#misses.track(keepContexts(bootstrap.blobs, { backend, cacheDirectory, schedule, clock, signal }))
  }

  close(): Promise<void> {
    this.#closed ??= this.#close()
    return this.#closed
  }

  async #close(): Promise<void> {
    this.#closing.abort(closed())
    await this.#prefetcher.stop()
    await this.#misses.end()
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
      const failure = underWay === undefined ? this.#misses.recentFailure(blob, part.chunk) : undefined
      if (failure !== undefined) throw failure
      const chunk = underWay ?? this.#misses.begin(blob, part.chunk)
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
    using deadline = this.#misses.deadline()
    try {
      await tar.read(part.chunkOffset + part.offsetInChunk, bytes, deadline.signal)
    } catch (error) {
      throw this.#misses.failure(blob, error)
    }
    if (!read.isOver) read.into.set(bytes, part.at)
  }
}
