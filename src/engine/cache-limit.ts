import { CacheError, trimCache } from '../cache/index.ts'
import type { ImageBlob } from './image-blob.ts'

/** A full cache is brought down to this share of its limit, so that it is not full again at once. */
const LOW_SHARE = 0.9
/** The directory is looked at whenever so large a share of the limit was stored. */
const LOOK_SHARE = 1 / 16
const LEAST_LOOK_BYTES = 1 << 20

/**
 * Keeps the cache directory of an image below its limit: what no mount of any process uses goes first, then chunks of this image that nobody read for the longest time. What others have open is never touched, so
 * a limit that is smaller than what is read by several at once is exceeded.
 */
export class CacheLimit {
  readonly #directory: string
  readonly #limitBytes: number
  readonly #blobs: readonly ImageBlob[]
  readonly #onEvicted: (bytes: number) => void
  /** What was there before is looked at with the first chunk. */
  #unseenBytes = Number.POSITIVE_INFINITY
  #running: Promise<void> | undefined

  constructor(directory: string, limitBytes: number, blobs: readonly ImageBlob[], onEvicted: (bytes: number) => void) {
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
      const total = await trimCache(this.#directory, this.#limitBytes)
      if (total <= this.#limitBytes) return
      let left = (await trimCache(this.#directory, wanted)) - wanted
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
