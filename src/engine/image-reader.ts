import type { ChunkDedup, TrustedChunks } from '../cache/index.ts'
import type { Bootstrap, ChunkSpan } from '../rafs/index.ts'
import type { Backend } from '../backend/index.ts'
import type { DecodePool } from './decode-pool.ts'

/**
 * What another thread needs to answer reads by itself while data is there: plain values that `postMessage` can carry.
 * File descriptors are numbers of this process; the reader that made them owns and closes them.
 */
export interface HotImage {
  readonly blobs: ReadonlyArray<{
    readonly dataFd: number
    /** Undefined for a plain tar, of which nothing tells the digests: all that its files name is shown. */
    readonly chunks: TrustedChunks | undefined
    /** A byte a chunk, 1 = somebody read some of it. Tells which guesses of the engine were good. */
    readonly touched: Uint8Array<SharedArrayBuffer>
  }>
}

/** Limits and policy of one image; all required, all with units. */
export interface EngineLimits {
  /** A read that cannot be answered by then fails with EngineError 'TIMEOUT' (and its reader gets EIO). */
  readonly readDeadlineMs: number
  /** Most stored bytes that a demand fetch may take beyond what was asked for, when neighbouring chunks are missing too; 0 = only what was asked for. */
  readonly amplifyBytes: number
  /** Backend requests at once: for demand, and for prefetch while no demand waits. */
  readonly demandRequests: number
  readonly prefetchRequests: number
  /** Bytes a second for prefetch, 0 = no limit. */
  readonly prefetchBandwidth: number
  /** What the files of the cache directory may take on the disk, bytes; 0 = what there is. */
  readonly cacheBytes?: number
  /** Decoded chunks kept in memory when they cannot be kept on disk (no cache directory, or it is full). */
  readonly memoryBytes: number
}

/** What to fetch ahead: inodes of the image's own table, paths of a list, everything; in this order, each chunk once. */
export interface PrefetchPlan {
  readonly table: boolean
  readonly paths: readonly Uint8Array[]
  readonly everything: boolean
}

/** Figures since the image was opened; plain numbers, read at any time. */
export interface EngineCounters {
  /** Reads that reached the engine because a chunk was missing, and how many of them failed. */
  demandReads: number
  failedReads: number
  demandRequests: number
  demandBytes: number
  prefetchRequests: number
  prefetchBytes: number
  /** Chunks in those requests, and the milliseconds that they took. */
  prefetchChunks: number
  prefetchMs: number
  /** Unix milliseconds when the first of them began and the last one ended; 0 = there was none. */
  prefetchBeganAt: number
  prefetchEndedAt: number
  chunksVerified: number
  /** Digest mismatches, from the backend and from a cache file that another process wrote. */
  badChunks: number
  chunksUncached: number
  /** Taken over from another cache of this node. */
  chunksShared: number
  /** Bytes of this image that were evicted since the cache had reached its limit. */
  evictedBytes: number
}

/**
 * The read engine of one mounted image. A chunk is fetched once however many readers wait for it; it is verified before anyone sees it; it is
 * written to the cache, then marked, then the readers are answered. A failed fetch fails its readers and is forgotten: the next read tries again.
 * Demand always goes before prefetch. Owns its caches; the backend and the decode pool belong to the caller.
 */
export interface ImageReader {
  readonly hot: HotImage
  readonly counters: Readonly<EngineCounters>
  /**
   * Fills `into` with the bytes of `spans[0..count)` one after another. Throws EngineError: 'TIMEOUT', 'BAD_DIGEST', 'BACKEND' (with cause), 'CLOSED', 'ABORTED'.
   * `spans` may be reused by the caller as soon as the call has returned its promise; `into` belongs to the engine until the promise settles.
   */
  read(spans: readonly ChunkSpan[], count: number, into: Uint8Array, signal: AbortSignal): Promise<void>
  /** Starts fetching ahead; gives up quietly on errors (counted). A second call replaces the first plan. */
  prefetch(plan: PrefetchPlan): void
  /** Keeps the blobs' compression contexts beside their caches, for other daemons and tools, while nobody waits for anything; gives up quietly. */
  keepContexts(): void
  /** Cancels everything under way and waits for it. */
  close(): Promise<void>
}

/** How an image's chunks are kept on disk. */
export interface ImageCacheForm {
  /** As their blob stores them. */
  readonly compressed: boolean
  /** Verify what is in the cache at every read, not only at the first. */
  readonly validate: boolean
  /** Encrypted with this key (32 bytes, its halves different), or, convergent, each with its digest. */
  readonly encryption: { readonly key: Uint8Array; readonly convergent: boolean } | undefined
}

/** Parts of an open image. */
export interface ImageParts {
  readonly bootstrap: Bootstrap
  readonly backend: Backend
  /** Where the chunk caches lie; undefined keeps chunks in memory only. */
  readonly cacheDirectory: string | undefined
  /** How they are kept there; plain when it is not told. */
  readonly cacheForm?: ImageCacheForm
  /** Where other caches of this node have the same chunks; the caller's. */
  readonly dedup?: ChunkDedup | undefined
  /** Shared by all images of the process. */
  readonly decoders: DecodePool
  readonly limits: EngineLimits
}
