import { CacheError, type ChunkDedup, trimCache } from '../cache/index.ts'
import type { ImageBlob } from './image-blob.ts'

/** A full cache is brought down to this share of its limit, so that it is not full again at once. */
const LOW_SHARE = 0.9
/** The directory is looked at whenever so large a share of the limit was stored. */
const LOOK_SHARE = 1 / 16
const LEAST_LOOK_BYTES = 1 << 20

export interface CacheLimitOptions {
  readonly directory: string
  readonly limitBytes: number
  /** The database that others find chunks of these caches by. */
  readonly dedup: ChunkDedup | undefined
}

/**
 * Keeps the cache directory of an image below its limit: what no mount of any process uses goes first, then chunks of this image that nobody read for the longest time. What others have open is never touched, so
 * a limit that is smaller than what is read by several at once is exceeded.
 */
export class CacheLimit {
  readonly #directory: string
  readonly #limitBytes: number
  readonly #blobs: readonly ImageBlob[]
  readonly #onEvicted: (bytes: number) => void
  readonly #dedup: ChunkDedup | undefined
  /** What was there before is looked at with the first chunk. */
  #unseenBytes = Number.POSITIVE_INFINITY
  #running: Promise<void> | undefined

  constructor(
    { directory, limitBytes, dedup }: CacheLimitOptions,
    blobs: readonly ImageBlob[],
    onEvicted: (bytes: number) => void,
  ) {
    this.#dedup = dedup
    this.#directory = directory
    this.#limitBytes = limitBytes
    this.#blobs = blobs
    this.#onEvicted = onEvicted
  }

  /** So many bytes were stored. Resolves at once, but for those who would fill the disk faster than it is emptied. */
  async stored(bytes: number): Promise<void> {
    this.#unseenBytes += bytes
    if (this.#unseenBytes < Math.max(LEAST_LOOK_BYTES, this.#limitBytes * LOOK_SHARE)) return
    this.#running ??= this.#run().finally(() => (this.#running = undefined))
    await this.#running
  }

  async #run(): Promise<void> {
    this.#unseenBytes = 0
    const wanted = Math.floor(this.#limitBytes * LOW_SHARE)
    try {
      let total = await trimCache(this.#directory, this.#limitBytes)
      const isFull = total > this.#limitBytes
      if (isFull) total = await trimCache(this.#directory, wanted)
      this.#dedup?.collect()
      if (!isFull) return
      let left = total - wanted
      // The original copies what the database names, and would copy holes.
      if (this.#dedup !== undefined) return
      for (const blob of this.#blobs) {
        if (left <= 0) return
        const freed = blob.cache?.evict(left, blob.touched, (chunk) => blob.inFlight.has(chunk)) ?? 0
        left -= freed
        this.#onEvicted(freed)
      }
    } catch (error) {
      if (!(error instanceof CacheError)) throw error // a directory that cannot be read has no limit
    }
  }
}
