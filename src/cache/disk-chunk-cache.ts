import { closeSync } from 'node:fs'
import type { ChunkInfo, VerifiedChunk } from '../blob/index.ts'
import { lockFile, tryLockFile } from '../kernel/index.ts'
import { cachePath } from './cache-files.ts'
import type { ChunkCache, ChunkToStore, FileTwin } from './chunk-cache.ts'
import { type CacheForm, ChunkPages, pagesOf, type StoredUnit } from './chunk-form.ts'
import { ChunkMap, type MapLock } from './chunk-map.ts'
import { DataBytes } from './data-bytes.ts'
import { type DataFile, openDataFile } from './data-file.ts'
import { placeOf, type Run, runsOf } from './chunk-runs.ts'
import { type Lost, lostChunks } from './data-watch.ts'
import { CacheError, cacheError, errnoName } from './errors.ts'
import { writeSome } from './file-io.ts'
import { OpenCache } from './open-caches.ts'
import { pinsIdentity, unpin, WriteTurns } from './pinned-blocks.ts'
import { evictChunks, EvictionHand } from './evict-chunks.ts'
import {
  type ChunkPlace,
  createTrustedChunks,
  distrustChunks,
  type TrustedChunks,
  trustChunk,
} from './trusted-chunks.ts'
import { type SyncFile, syncFile, UnsyncedMarks } from './unsynced-marks.ts'
import { openVolatileMap } from './volatile-map.ts'

/** Which blob, and where. Sizes in bytes, from the bootstrap: checked here against the format's limits before anything is allocated. */
export interface ChunkCacheOptions {
  /** Must exist. */
  readonly directory: string
  readonly blobId: string
  readonly chunkCount: number
  /** Length of a plain data file. */
  readonly uncompressedSize: number
  /** Plain when it is not told. */
  readonly form?: CacheForm
  /** Verify what is claimed at every read. */
  readonly isAlwaysVerified?: boolean
  /** For file systems and tests with locks of their own; the default is flock, which all our processes use. */
  readonly lock?: MapLock
  /** Writes some of the bytes at a position and gives their number; for tests of crashes and bad disks. */
  readonly write?: typeof writeSome
  /** Makes the data file last; for tests of power cuts and bad disks. */
  readonly sync?: SyncFile
  /** Milliseconds from the first store that is not on the disk to the sync; for tests that look into the map. */
  readonly syncPauseMs?: number
}

/** Limits of the format: docs/formats/cache.md, "Limits". */
const MAX_CHUNKS = 2 ** 24
const MAX_SIZE = 2 ** 44

const PLAIN: CacheForm = { kind: 'plain' }
const FLOCK: MapLock = { tryLock: tryLockFile, unlock: (fd) => lockFile(fd, 'unlock') }

/**
 * Opens a blob's cache files in `directory`, or makes them. A filled cache on a read-only place is opened too; its stores fail with 'READ_ONLY'.
 * The caller closes it. Throws CacheError.
 */
export async function openChunkCache(options: ChunkCacheOptions): Promise<ChunkCache> {
  const { directory, blobId, chunkCount, uncompressedSize } = options
  checkLimit('chunks', chunkCount, MAX_CHUNKS, blobId)
  checkLimit('bytes', uncompressedSize, MAX_SIZE, blobId)
  const form = options.form ?? PLAIN
  const plainSize = form.kind === 'encrypted' ? pagesOf(uncompressedSize) : uncompressedSize
  const size = form.kind === 'stored' ? form.size : plainSize
  checkLimit('bytes', size, MAX_SIZE, blobId)
  const dataPath = cachePath(directory, blobId, form.kind === 'stored' ? 'raw' : 'data')
  const mapPath = cachePath(directory, blobId, 'map')
  const pages = form.kind === 'encrypted' ? new ChunkPages(form) : undefined
  const data = openDataFile(dataPath, size, () => pinsIdentity(directory, blobId) !== undefined)
  try {
    const map = new ChunkMap(mapPath, chunkCount, options.lock ?? FLOCK, data.isNew)
    return new DiskChunkCache(options, { path: dataPath, size, pages }, data, map)
  } catch (error) {
    closeSync(data.fd)
    throw error
  }
}

function checkLimit(what: string, value: number, limit: number, blobId: string): void {
  if (Number.isInteger(value) && value >= 0 && value <= limit) return
  throw new CacheError(
    'BAD_OPTION',
    `cannot cache blob ${blobId.slice(0, 80)} of ${value} ${what}: a blob has up to ${limit}`,
  )
}

class DiskChunkCache implements ChunkCache {
  readonly blobId: string
  readonly dataFd: number
  readonly chunks: TrustedChunks
  readonly kind: ChunkCache['kind']
  readonly isNew: boolean
  readonly trusts: boolean
  readonly ways: number
  readonly path: string
  readonly #data: DataBytes
  /** Of the plain blob. */
  readonly #size: number
  readonly #pages: ChunkPages | undefined
  readonly #isWritable: boolean
  readonly #map: ChunkMap
  readonly #unsynced: UnsyncedMarks
  readonly #writeTurns: WriteTurns
  readonly #directory: string
  /** Stores under way, by chunk: a second store of one waits for the first. */
  readonly #stores = new Map<number, Promise<void>>()
  readonly #open: OpenCache
  /** Writes of others when a chunk's bytes were read to be verified. */
  readonly #readAt = new Map<number, number>()
  readonly #hand = new EvictionHand()
  #closed: Promise<void> | undefined

  constructor(
    options: ChunkCacheOptions,
    { path, size, pages }: { readonly path: string; readonly size: number; readonly pages: ChunkPages | undefined },
    data: DataFile,
    map: ChunkMap,
  ) {
    this.blobId = options.blobId
    this.dataFd = data.fd
    this.chunks = createTrustedChunks(options.chunkCount)
    this.#open = OpenCache.enter(data.fd, this.chunks)
    this.kind = options.form?.kind ?? 'plain'
    this.isNew = data.isNew
    this.trusts = this.kind === 'plain' && options.isAlwaysVerified !== true
    this.ways = pages?.ways ?? 1
    this.#pages = pages
    this.path = path
    this.#data = new DataBytes({
      fd: data.fd,
      path,
      size,
      write: options.write ?? writeSome,
      onLost: (lost) => this.#lost(lost),
    })
    this.#size = options.uncompressedSize
    this.#isWritable = data.isWritable
    this.#map = map
    this.#unsynced = new UnsyncedMarks({
      dataFd: data.fd,
      map,
      openVolatile: () => openVolatileMap(data.fd, options.chunkCount, FLOCK, data.isNew),
      onLost: (chunks) => distrustChunks(this.chunks, chunks),
      sync: options.sync ?? syncFile,
      pauseMs: options.syncPauseMs,
    })
    this.#writeTurns = new WriteTurns(data.fd, options.directory, options.blobId)
    this.#directory = options.directory
  }

  claimed(chunk: number): boolean {
    if (this.#closed !== undefined || !(chunk >= 0 && chunk < this.#count)) return false
    return this.#map.has(chunk) || this.#unsynced.has(chunk)
  }

  async marked(chunk: number): Promise<boolean> {
    return (await this.#unsynced.marked(chunk)) ?? (this.#closed === undefined && this.#map.has(chunk))
  }

  isTrusted(chunk: number): boolean {
    return this.chunks.trusted[chunk] === 1
  }

  async readUnverified(offset: number, into: Uint8Array): Promise<boolean> {
    this.#checkOpen()
    return await this.#data.read(offset, into)
  }

  async readPlain(chunk: ChunkInfo, into: Uint8Array, way: number): Promise<boolean> {
    const { index, uncompressedOffset, digest } = chunk
    if (this.#pages === undefined) {
      this.#readAt.set(index, this.#open.foreignWrites)
      return await this.readUnverified(uncompressedOffset, into)
    }
    const key = Uint8Array.from(digest)
    const pages = new Uint8Array(pagesOf(into.length))
    if (!(await this.readUnverified(uncompressedOffset, pages))) return false
    into.set(this.#pages.decrypt(key, pages, way).subarray(0, into.length))
    return true
  }

  trust(chunk: ChunkInfo, bytes: VerifiedChunk): void {
    this.#checkChunk(chunk, bytes)
    // What another wrote since its bytes were read may be there now: it is still only a claim.
    const isUnchanged = (this.#readAt.get(chunk.index) ?? this.#open.foreignWrites) === this.#open.foreignWrites
    this.#readAt.delete(chunk.index)
    if (this.trusts && isUnchanged) this.#trust(chunk)
    if (isUnchanged && this.#isWritable) this.#unsynced.found(chunk.index)
  }

  distrust(chunk: number): void {
    if (this.#closed !== undefined || !(chunk >= 0 && chunk < this.#count)) return
    this.#readAt.delete(chunk)
    distrustChunks(this.chunks, [chunk])
    this.#unsynced.withdraw([chunk])
    this.#map.clear([chunk])
  }

  evict(wantedBytes: number, touched: Uint8Array, isBusy: (chunk: number) => boolean): number {
    if (this.#closed !== undefined || !this.#isWritable || !this.trusts) return 0
    const from = { fd: this.dataFd, chunks: this.chunks, map: this.#map, unsynced: this.#unsynced }
    // Nobody else has the file open then: the kernel does not show it.
    const choose = (): number[] => {
      unpin(this.#directory, this.blobId)
      return this.#hand.choose(this.chunks, wantedBytes, touched, (chunk) => this.#stores.has(chunk) || isBusy(chunk))
    }
    try {
      const freed = evictChunks(from, choose)
      this.#data.expect()
      return freed
    } catch (error) {
      if (errnoName(error) === undefined) throw error // what cannot be freed stays
      return 0
    }
  }

  async store(chunk: ChunkInfo, bytes: VerifiedChunk, stored?: StoredUnit, twin?: FileTwin): Promise<void> {
    this.#checkOpen()
    this.#checkChunk(chunk, bytes)
    if (!this.#isWritable || !this.#map.isWritable)
      throw new CacheError('READ_ONLY', `${this.path} or its chunk map may not be written`)
    // The record is the caller's, who fills it anew for the next chunk: what is needed later is copied now.
    const place = placeOf(chunk)
    const { index } = place
    const underWay = this.#stores.get(index)
    if (underWay !== undefined) return await underWay
    const placed = this.#placed(chunk, bytes, stored)
    const store = this.#store(place, placed, twin).finally(() => this.#stores.delete(index))
    this.#stores.set(index, store)
    await store
  }

  async storeAll(chunks: readonly ChunkToStore[]): Promise<void> {
    const isSimple = this.kind === 'plain' && this.#isWritable && this.#map.isWritable && chunks.length > 1
    if (!isSimple || chunks.some(({ chunk: { index } }) => this.#stores.has(index) || this.#map.isClearing(index))) {
      await Promise.all(chunks.map(async ({ chunk, bytes, stored }) => await this.store(chunk, bytes, stored))) // the caller's few
      return
    }
    this.#checkOpen()
    for (const { chunk, bytes } of chunks) this.#checkChunk(chunk, bytes)
    const runs = runsOf(chunks.map(({ chunk, bytes }) => ({ place: placeOf(chunk), bytes })))
    const store = this.#storeRuns(runs).finally(() => {
      for (const { places, end } of runs) {
        for (const { index } of places) this.#stores.delete(index)
        end()
      }
    })
    for (const { places } of runs) for (const { index } of places) this.#stores.set(index, store)
    await store
  }

  close(): Promise<void> {
    this.#closed ??= this.#close()
    return this.#closed
  }

  /** What goes into the data file. */
  #placed(chunk: ChunkInfo, bytes: VerifiedChunk, stored: StoredUnit | undefined): StoredUnit {
    const plain = this.kind === 'plain' ? { offset: chunk.uncompressedOffset, bytes } : undefined
    const unit = plain ?? this.#pages?.encrypt(chunk, bytes) ?? stored
    const { size } = this.#data
    if (unit !== undefined && unit.offset >= 0 && unit.offset + unit.bytes.length <= size) return unit
    const facts = `what is to be kept of chunk ${chunk.index} of blob ${this.blobId}`
    throw new CacheError('OUT_OF_RANGE', `${facts} is not in the ${size} bytes of ${this.path}`)
  }

  async #store(chunk: ChunkPlace, { offset, bytes }: StoredUnit, twin: FileTwin | undefined): Promise<void> {
    const { index } = chunk
    // A claim that is being withdrawn must be gone before new bytes go in: a crash between them would leave it standing on half a chunk.
    if (this.#map.isClearing(index)) await this.#map.settled()
    try {
      if (this.kind === 'stored') await this.#data.putOnce(offset, bytes)
      else await this.#writeInTurn([chunk], { offset, bytes }, twin)
    } catch (error) {
      throw cacheError(error, `cannot write chunk ${index} to ${this.path}`)
    }
    await this.#unsynced.add([index])
  }

  async #storeRuns(runs: readonly Run[]): Promise<void> {
    try {
      // All are waited for: the caller uses the bytes' memory again.
      const ends = await Promise.allSettled(runs.map(({ places, unit }) => this.#writeInTurn(places, unit, undefined)))
      const failed = ends.find((end) => end.status === 'rejected')
      if (failed !== undefined) throw failed.reason as Error
    } catch (error) {
      throw cacheError(error, `cannot write chunks to ${this.path}`)
    }
    await this.#unsynced.add(runs.flatMap(({ places }) => places.map(({ index }) => index)))
  }

  /** Not where the kernel shows what is there, or is about to. */
  async #writeInTurn(chunks: readonly ChunkPlace[], unit: StoredUnit, twin: FileTwin | undefined): Promise<void> {
    const turn = this.#writeTurns.begin(unit.offset, unit.bytes.length)
    if (!(typeof turn === 'boolean' ? turn : await turn))
      throw new CacheError('READ_ONLY', `${this.path} is pinned at ${unit.offset}: the kernel shows it, or is about to`)
    try {
      await this.#writeOwn(chunks, unit, twin)
    } finally {
      this.#writeTurns.end()
    }
  }

  /** Trust comes before the end of the write as others see it: from then on they look at that. */
  async #writeOwn(
    chunks: readonly ChunkPlace[],
    { offset, bytes }: StoredUnit,
    twin: FileTwin | undefined,
  ): Promise<void> {
    const range = { offset, length: bytes.length }
    const isWritten = await this.#open.write(range, async () => {
      await this.#data.put(offset, bytes, twin)
      if (this.trusts) for (const chunk of chunks) this.#trust(chunk)
    })
    if (isWritten) return
    if (!(await this.#data.has(offset, bytes)))
      throw new CacheError(
        'IN_USE',
        `${this.path} has other bytes at ${offset}, which another mount shows; two images disagree on blob ${this.blobId}, or their caches on encryption`,
      )
    if (this.trusts) for (const chunk of chunks) this.#trust(chunk)
  }

  #trust(chunk: ChunkPlace): void {
    this.#data.watch()
    trustChunk(this.chunks, chunk)
    this.#open.shows(chunk.index)
  }

  /** Takes trust back; claims that are in the map stay, and are verified when somebody reads them. */
  #lost(lost: Lost): void {
    const gone = lostChunks(this.chunks, lost)
    if (gone.length === 0) return
    distrustChunks(this.chunks, gone)
    this.#unsynced.withdraw(gone)
  }

  async #close(): Promise<void> {
    await Promise.allSettled(this.#stores.values()) // who asked for a store has its error
    await this.#data.close()
    this.#open.leave()
    await this.#unsynced.close()
    await this.#map.close()
    closeSync(this.dataFd)
  }

  get #count(): number {
    return this.chunks.trusted.length
  }

  #checkOpen(): void {
    if (this.#closed !== undefined) throw new CacheError('CLOSED', `the cache of blob ${this.blobId} is closed`)
  }

  #checkChunk(chunk: ChunkInfo, bytes: Uint8Array): void {
    const { index, uncompressedOffset, uncompressedSize } = chunk
    const isInside = Number.isInteger(index) && index >= 0 && index < this.#count && uncompressedOffset >= 0
    if (isInside && bytes.length === uncompressedSize && uncompressedOffset + uncompressedSize <= this.#size) return
    const facts = `chunk ${index} (${bytes.length} bytes for ${uncompressedSize} at ${uncompressedOffset})`
    throw new CacheError(
      'OUT_OF_RANGE',
      `${facts} is not in blob ${this.blobId} of ${this.#count} chunks, ${this.#size} bytes`,
    )
  }
}
