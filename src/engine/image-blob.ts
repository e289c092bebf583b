import type { Backend, BlobReader } from '../backend/index.ts'
import {
  batchMetaFileSize,
  BLOB_FEATURES,
  BlobError,
  type BlobInfo,
  type BlobLayout,
  ChunkInfo,
  openBatchLayout,
  readBatchMeta,
  type VerifiedChunk,
} from '../blob/index.ts'
import {
  type ChunkCache,
  type ChunkCopy,
  type ChunkDedup,
  type ChunkToStore,
  CacheError,
  createTrustedChunks,
  type FileTwin,
  type StoredUnit,
  type TrustedChunks,
} from '../cache/index.ts'
import { openCache } from './blob-cache.ts'
import { type Bootstrap, RafsError } from '../rafs/index.ts'
import { openContext } from './blob-context.ts'
import { EngineError } from './errors.ts'
import type { ImageCacheForm } from './image-reader.ts'
import type { ChunkPart, InFlightChunk } from './in-flight.ts'
import type { MemoryStore } from './memory-store.ts'
import { ChunkPlace, type PlannedBlob } from './plan.ts'
import { storedSize } from './stored-size.ts'
import { SharedChunks } from './shared-chunks.ts'
import { TarData } from './tar-data.ts'
import { ZranSlices } from './zran-slices.ts'

/** Chunks larger than this, as stored, are in no image that a builder made. */
const MAX_STORED_BYTES = 32 << 20
/** Those of external blobs are as large as somebody wrote into the attributes. */
const MAX_EXTERNAL_BYTES = 256 << 20

export interface ImageBlobParts {
  readonly bootstrap: Bootstrap
  readonly info: BlobInfo
  readonly backend: Backend
  readonly cacheDirectory: string | undefined
  readonly cacheForm?: ImageCacheForm
  readonly dedup?: ChunkDedup | undefined
  readonly memory: MemoryStore
}

/** One blob of an open image: where its chunks are, which are here, and which are on their way. */
export class ImageBlob implements PlannedBlob {
  readonly index: number
  readonly info: BlobInfo
  readonly chunkCount: number
  readonly cache: ChunkCache | undefined
  readonly chunks: TrustedChunks
  readonly touched: Uint8Array<SharedArrayBuffer>
  readonly inFlight = new Map<number, InFlightChunk>()
  /** Missing chunks that somebody waits for and no request was made for yet. */
  readonly wanted = new Set<number>()
  /** For references to a gzip layer: the slices that chunks come from. */
  readonly zran: ZranSlices | undefined
  /** For plain tars: the tar. */
  readonly tar: TarData | undefined
  /** Where chunks are when some share batches. */
  readonly #batches: BlobLayout | undefined
  readonly #bootstrap: Bootstrap
  readonly #backend: Backend
  readonly #memory: MemoryStore
  readonly #shared: SharedChunks | undefined
  readonly #info = new ChunkInfo()
  #reader: Promise<BlobReader> | undefined

  private constructor(
    parts: ImageBlobParts,
    chunkCount: number,
    cache: ChunkCache | undefined,
    zran: ZranSlices | undefined,
    batches: BlobLayout | undefined,
    tar: TarData | undefined,
  ) {
    this.index = parts.info.index
    this.info = parts.info
    this.chunkCount = chunkCount
    this.cache = cache
    this.zran = zran
    this.#batches = batches
    this.tar = tar
    this.chunks = cache?.chunks ?? createTrustedChunks(0)
    this.touched = new Uint8Array(new SharedArrayBuffer(chunkCount))
    this.#bootstrap = parts.bootstrap
    this.#backend = parts.backend
    this.#memory = parts.memory
    this.#shared = SharedChunks.of(parts, cache)
  }

  /** Opens the blob's cache files, if it is to have any. Throws CacheError. */
  static async open(parts: ImageBlobParts): Promise<ImageBlob> {
    const { info, cacheDirectory } = parts
    if ((info.features & BLOB_FEATURES.TARFS) !== 0) {
      const tar = await TarData.open(info, parts.backend, cacheDirectory)
      return new ImageBlob(parts, info.chunkCount, undefined, undefined, undefined, tar)
    }
    // Only images of old tools lack these, and their records tell them; the pass over all records is spared the others.
    const isTold = info.chunkCount > 0 && info.uncompressedSize > 0
    const layout = isTold ? undefined : parts.bootstrap.layout(info.index)
    const chunkCount = layout?.chunkCount ?? info.chunkCount
    const uncompressedSize = layout?.uncompressedSize ?? info.uncompressedSize
    const isZran = (info.features & BLOB_FEATURES.ZRAN) !== 0
    const zran = isZran ? await ZranSlices.open(info, parts.backend, cacheDirectory) : undefined
    const batches = (info.features & BLOB_FEATURES.BATCH) === 0 ? undefined : await openBatches(parts)
    const cache = await openCache(parts, chunkCount, uncompressedSize)
    return new ImageBlob(parts, chunkCount, cache, zran, batches, undefined)
  }

  get #layout(): BlobLayout {
    return this.#batches ?? this.#bootstrap.layout(this.index)
  }

  place(chunk: number, into: ChunkPlace): boolean {
    try {
      if (!this.#layout.has(chunk)) return false
      this.#layout.chunk(chunk, this.#info)
      if (this.zran?.describes(this.#info) === false) return false
    } catch (error) {
      if (error instanceof RafsError || error instanceof BlobError) return false // a damaged record describes nothing
      throw error
    }
    into.compressedOffset = this.#info.compressedOffset
    into.storedSize = storedSize(this.#info)
    into.plainSize = this.#info.uncompressedSize
    const isExternal = (this.info.features & BLOB_FEATURES.EXTERNAL) !== 0
    return into.storedSize <= (isExternal ? MAX_EXTERNAL_BYTES : MAX_STORED_BYTES)
  }

  /** A record of its own for the caller. */
  chunk(chunk: number): ChunkInfo {
    const info = new ChunkInfo()
    this.#layout.chunk(chunk, info)
    return info
  }

  has(chunk: number): boolean {
    return this.#layout.has(chunk)
  }

  /** Throws EngineError for a part that its chunk's record does not have: a file's own words of where its chunks lie are not believed. */
  checkPart({ chunk, chunkOffset, offsetInChunk, length }: ChunkPart): void {
    const place = new ChunkPlace()
    if (chunk >= this.chunkCount || !this.place(chunk, place)) throw this.unknown(chunk)
    const { uncompressedOffset, uncompressedSize } = this.#info
    if (uncompressedOffset === chunkOffset && offsetInChunk + length <= uncompressedSize) return
    throw new EngineError(
      'BAD_IMAGE',
      `a file wants bytes ${offsetInChunk} to ${offsetInChunk + length} of chunk ${chunk} of blob ${this.info.id}, at ${chunkOffset} of its data; the chunk has ${uncompressedSize}, at ${uncompressedOffset}: the image is damaged or crafted, build or pull it again`,
    )
  }

  isMissing(chunk: number): boolean {
    return !this.isHere(chunk) && !this.inFlight.has(chunk) && this.cache?.claimed(chunk) !== true
  }

  isHere(chunk: number): boolean {
    return this.chunks.trusted[chunk] === 1 || this.#memory.has(this.index, chunk)
  }

  /** Fills the part from memory or the data file. Throws CacheError 'CLOSED'. False when the chunk is not here (any more). */
  async readPart(part: ChunkPart, into: Uint8Array): Promise<boolean> {
    const kept = this.#memory.get(this.index, part.chunk)
    if (kept !== undefined) {
      into.set(kept.subarray(part.offsetInChunk, part.offsetInChunk + part.length))
      return true
    }
    if (this.cache === undefined || this.chunks.trusted[part.chunk] !== 1) return false
    this.#layout.chunk(part.chunk, this.#info)
    const from = this.#info.uncompressedOffset + part.offsetInChunk
    const { withdrawals } = this.chunks
    const before = Atomics.load(withdrawals, 0)
    try {
      const isWhole = await this.cache.readUnverified(from, into) // false: somebody cut the file
      if (Atomics.load(withdrawals, 0) !== before) return false
      if (isWhole) return true
    } catch (error) {
      if (!(error instanceof CacheError) || error.code === 'CLOSED') throw error // a broken disk: fetched again
    }
    this.cache.distrust(part.chunk)
    return false
  }

  /** Where else on this node the chunk may be had; asked for a chunk that is missing. */
  copies(chunk: number): readonly ChunkCopy[] {
    return this.#shared === undefined ? [] : this.#shared.copies(this.chunk(chunk))
  }

  /** Verified bytes that the cache claimed. */
  found(chunk: ChunkInfo, bytes: VerifiedChunk, isAwaited: boolean): void {
    this.cache?.trust(chunk, bytes)
    if (isAwaited) this.#remember(chunk, bytes)
  }

  /** What somebody reads of a cache that trusts nothing is soon read on: it is not decoded and verified again for each part. */
  #remember(chunk: ChunkInfo, bytes: VerifiedChunk): void {
    if (this.cache?.trusts === false) this.#memory.put(this.index, chunk.index, bytes)
  }

  /** Writes chunks to the cache that can be written together. False: they are to be kept one by one. Never throws. */
  async keepAll(chunks: readonly ChunkToStore[]): Promise<boolean> {
    const { cache } = this
    if (cache === undefined || cache.kind !== 'plain' || !cache.trusts) return false
    try {
      await cache.storeAll(chunks)
    } catch (error) {
      if (!(error instanceof CacheError)) throw error
      return false // a full disk may have room for some
    }
    for (const { chunk } of chunks) this.#shared?.record(chunk, cache)
    return true
  }

  /** Writes the chunk to the cache, or where that cannot be keeps it in memory. Gives where it is now. Never throws. */
  async keep(
    chunk: ChunkInfo,
    bytes: VerifiedChunk,
    stored: StoredUnit | undefined,
    isAwaited: boolean,
    twin?: FileTwin,
  ): Promise<'cached' | 'in memory'> {
    if (this.cache !== undefined) {
      try {
        await this.cache.store(chunk, bytes, stored, twin)
        this.#shared?.record(chunk, this.cache)
        if (isAwaited) this.#remember(chunk, bytes)
        return 'cached'
      } catch (error) {
        // A full or broken disk: readers go on without it. Everything else is a bug.
        if (!(error instanceof CacheError)) throw error
      }
    }
    this.#memory.put(this.index, chunk.index, bytes)
    return 'in memory'
  }

  reader(): Promise<BlobReader> {
    this.#reader ??= this.#backend.open(this.info.id).catch((error: unknown) => {
      this.#reader = undefined // the next read tries again
      throw error
    })
    return this.#reader
  }

  async close(): Promise<void> {
    try {
      await (await this.#reader)?.close()
    } finally {
      await this.cache?.close()
      await this.tar?.close()
    }
  }

  /** The error for a chunk that the image does not describe. */
  unknown(chunk: number): EngineError {
    return new EngineError('BACKEND', `the image does not describe chunk ${chunk} of blob ${this.info.id}`)
  }
}

function openBatches({ bootstrap, info, backend, cacheDirectory }: ImageBlobParts): Promise<BlobLayout> {
  const kind = {
    storedIn: info.id,
    fileSize: batchMetaFileSize(info),
    fetch: (read: (offset: number, into: Uint8Array) => Promise<void>) => readBatchMeta(info, read),
    parse: (file: Uint8Array) => openBatchLayout(bootstrap.layout(info.index), file, info),
  }
  return openContext(info, kind, backend, cacheDirectory)
}
