import type { ChunkInfo, VerifiedChunk } from '../blob/index.ts'
import type { StoredUnit } from './chunk-form.ts'
import type { TrustedChunks } from './trusted-chunks.ts'

/** A chunk, and what it was decoded from, which a cache of stored bytes keeps. */
export interface ChunkToStore {
  readonly chunk: ChunkInfo
  readonly bytes: VerifiedChunk
  readonly stored: StoredUnit
}

/** An open file that has the same bytes at an offset. */
export interface FileTwin {
  readonly fd: number
  readonly offset: number
}

/**
 * Verified chunks of one blob on disk, in the files that upstream's nydusd uses: `<id>.blob.data` (chunks at their uncompressed offset) and
 * `<id>.blob.data.chunk_map` (a bit a chunk). Order of a store: data, sync, then the mark. A crash or power cut leaves a chunk to fetch again, never a wrong one.
 * Files are shared between processes, also with upstream's daemon, so a set bit is a claim, not a proof:
 *
 * - `claimed(chunk)`: the chunk map says that the data is there (some process wrote it, at some time).
 * - `isTrusted(chunk)`: the bytes were verified since this cache was opened. Only these may be shown to a reader.
 * `chunks` tells it, in shared memory, to all threads.
 * A cache that keeps stored bytes (`<id>.blob.raw`) or encrypted ones, or that is to be verified at every read, trusts nothing: what it claims is read, decoded and verified each time.
 */
export interface ChunkCache {
  readonly blobId: string
  /** Of the data file. */
  readonly path: string
  readonly dataFd: number
  readonly chunks: TrustedChunks
  readonly kind: 'plain' | 'stored' | 'encrypted'
  /** Its data file was empty or absent when it was opened. */
  readonly isNew: boolean
  /** False for a cache that trusts nothing. */
  readonly trusts: boolean
  /** How many ways there are to read a claimed chunk; one of them gives the right bytes. */
  readonly ways: number
  /** Looks into the file when memory says no: what another process fetched counts. */
  claimed(chunk: number): boolean
  isTrusted(chunk: number): boolean
  /** Fills `into` from the data file, as it lies there, without regard to trust. False when the file is too short. */
  readUnverified(offset: number, into: Uint8Array): Promise<boolean>
  /** Fills `into` with what should be the chunk's plain bytes; not for stored ones. `way`: 0 to `ways` - 1. False when the file is too short. */
  readPlain(chunk: ChunkInfo, into: Uint8Array, way: number): Promise<boolean>
  /** The bytes of a claimed chunk were read and verified: from now on it is trusted. */
  trust(chunk: ChunkInfo, bytes: VerifiedChunk): void
  /** The bytes of a claimed chunk are wrong: withdraws the claim in the chunk map, so that it is fetched again. */
  distrust(chunk: number): void
  /**
   * Writes the data and trusts the chunk; resolves when our other processes can see the claim. It is marked a little later (`marked`), when the data is on the disk. `bytes` and `stored` must not change until then; `chunk` may be used again at once.
   * `stored` is what a cache of stored bytes keeps. `twin`: where the same bytes were found in a file; a file system that can share them between files does then.
   * CacheError 'NO_SPACE' leaves it unmarked: readers go on without the cache.
   */
  store(chunk: ChunkInfo, bytes: VerifiedChunk, stored?: StoredUnit, twin?: FileTwin): Promise<void>
  /** The same for chunks that lie near each other: neighbours are written together. Rejects when one cannot be stored; the others may be or not. */
  storeAll(chunks: readonly ChunkToStore[]): Promise<void>
  /** Resolves when the mark of a chunk that was stored is in the map: true, unless it was withdrawn or the disk failed. */
  marked(chunk: number): Promise<boolean>
  /**
   * Gives about so many bytes of trusted chunks back to the file system, those first that nobody touched since the last time (`touched`: a byte a chunk, which it clears). Takes none that `isBusy` names, and none
   * at all while anybody else has the data file open. Gives the bytes that were freed. Readers at work see that trust was taken back.
   */
  evict(wantedBytes: number, touched: Uint8Array, isBusy: (chunk: number) => boolean): number
  /** Waits for stores and reads under way, then closes the files: no thread may use `dataFd` any more. Later calls of it do nothing. */
  close(): Promise<void>
}
