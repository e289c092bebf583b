import type { ChunkInfo, VerifiedChunk } from '../blob/index.ts'
import type { TrustedChunks } from './trusted-chunks.ts'

/**
 * Verified chunks of one blob on disk, in the files that upstream's nydusd uses: `<id>.blob.data` (chunks at their uncompressed offset) and
 * `<id>.blob.data.chunk_map` (a bit a chunk). Order of a store: data, then the mark. A crash leaves a chunk to fetch again, never a wrong one.
 * Files are shared between processes, also with upstream's daemon, so a set bit is a claim, not a proof:
 *
 * - `claimed(chunk)`: the chunk map says that the data is there (some process wrote it, at some time).
 * - `isTrusted(chunk)`: the bytes were verified since this cache was opened. Only these may be shown to a reader.
 * `chunks` tells it, in shared memory, to all threads.
 */
export interface ChunkCache {
  readonly blobId: string
  readonly dataFd: number
  readonly chunks: TrustedChunks
  /** Looks into the file when memory says no: what another process fetched counts. */
  claimed(chunk: number): boolean
  isTrusted(chunk: number): boolean
  /** Fills `into` from the data file, without regard to trust. False when the file is too short. */
  readUnverified(uncompressedOffset: number, into: Uint8Array): Promise<boolean>
  /** The bytes of a claimed chunk were read and verified: from now on it is trusted. */
  trust(chunk: ChunkInfo, bytes: VerifiedChunk): void
  /** The bytes of a claimed chunk are wrong: withdraws the claim in the chunk map, so that it is fetched again. */
  distrust(chunk: number): void
  /**
   * Writes the data, trusts the chunk, then marks it; resolves when the mark is in the file. `bytes` must not change until then; `chunk` may be used again at once.
   * CacheError 'NO_SPACE' leaves it unmarked: readers go on without the cache.
   */
  store(chunk: ChunkInfo, bytes: VerifiedChunk): Promise<void>
  /** Waits for stores and reads under way, then closes the files: no thread may use `dataFd` any more. Later calls of it do nothing. */
  close(): Promise<void>
}
