import { blobOf, blobUsage, cachedBlobs, removeBlob } from './cache.ts'
import { messageOf } from './message.ts'
import type { DaemonLog } from './settings.ts'

/** Images are asked so often what they use before a round is left to the next one. */
const MOST_TRIES = 5

/** What a round did. `skipped` tells why nothing, or not all, was removed. */
export interface CollectedCache {
  readonly removed: number
  readonly failed: number
  readonly freedBytes: number
  readonly inUse: number
  readonly skipped: string | undefined
}

/** Removes what nobody needs from the cache, and never at the moment at which an image is mounted that may need it. */
export class CacheCollector {
  readonly #directory: string
  readonly #log: DaemonLog
  #mounting = 0
  /** Mounts that ever began: who has one more now than before may not know what images use. */
  #begun = 0
  #removing: Promise<void> = Promise.resolve()
  #round: Promise<unknown> = Promise.resolve()

  constructor(directory: string, log: DaemonLog) {
    this.#directory = directory
    this.#log = log
  }

  /** While this runs no blob is removed. */
  async whileMounting<T>(mount: () => Promise<T>): Promise<T> {
    this.#mounting++
    this.#begun++
    try {
      await this.#removing
      return await mount()
    } finally {
      this.#mounting--
    }
  }

  /** Resolves when no blob is being removed that was being removed now. */
  async noRemoval(): Promise<void> {
    await this.#removing
  }

  /** `used` gives ids of blobs, or undefined when they are not known; `roots`, ids or digests, are asked again right before a blob is removed. One round at a time. */
  async collect(
    used: () => Promise<ReadonlySet<string> | undefined>,
    roots: () => Iterable<string>,
    signal: AbortSignal,
  ): Promise<CollectedCache> {
    const mine = this.#round.then(() => this.#collect(used, roots, signal))
    this.#round = mine.catch(() => undefined) // its own caller is told
    return await mine
  }

  async #collect(
    used: () => Promise<ReadonlySet<string> | undefined>,
    roots: () => Iterable<string>,
    signal: AbortSignal,
  ): Promise<CollectedCache> {
    const found = await cachedBlobs(this.#directory)
    const { inUse, begun } = await this.#inUse(used, signal)
    const isMounting = (): boolean => this.#mounting > 0 || this.#begun !== begun
    let [removed, failed, freedBytes] = [0, 0, 0]
    const result = (skipped?: string): CollectedCache => ({
      removed,
      failed,
      freedBytes,
      inUse: inUse?.size ?? 0,
      skipped,
    })
    if (inUse === undefined) return result('the blobs of a mounted image are not known')
    const needed = new Set([...inUse, ...idsOf(roots)])
    for (const id of found) {
      if (needed.has(id)) continue
      if (signal.aborted) return result('it was stopped')
      if (isMounting()) return result('an image is being mounted')
      const { bytes } = await blobUsage(this.#directory, id)
      if (isMounting()) return result('an image is being mounted')
      if (idsOf(roots).includes(id)) continue
      const removing = Promise.withResolvers<void>()
      this.#removing = removing.promise
      try {
        await removeBlob(this.#directory, id)
        removed++
        freedBytes += bytes
      } catch (error) {
        failed++
        this.#log.warn(`the cache of blob ${id} cannot be removed: ${messageOf(error)}`)
      } finally {
        removing.resolve()
      }
    }
    return result()
  }

  /** What images use, and how many mounts had begun when they were asked. One that was mounted meanwhile may not have been asked: then all are asked again. */
  async #inUse(
    used: () => Promise<ReadonlySet<string> | undefined>,
    signal: AbortSignal,
  ): Promise<{ readonly inUse: ReadonlySet<string> | undefined; readonly begun: number }> {
    for (let tries = 1; ; tries++) {
      const begun = this.#begun
      const inUse = await used()
      if (begun === this.#begun || tries === MOST_TRIES || signal.aborted) return { inUse, begun }
    }
  }
}

function idsOf(roots: () => Iterable<string>): string[] {
  return [...roots()].map((root) => blobOf(root.replace(/^sha256:/, '')) ?? root)
}
