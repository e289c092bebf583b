import { basename } from 'node:path'
import pLimit from 'p-limit'
import { CRI_LAYER_DIGEST, NYDUS_BLOB, NYDUS_TARFS, STARGZ } from './labels.ts'
import type { SnapshotterParts } from './parts.ts'
import type { Snapshot } from './snapshot.ts'
import { removeTree } from './store/index.ts'
import { TurnsByKey } from './daemons/turns.ts'

/** Trees that are removed at the same time. */
const AT_ONCE = 4

/** Takes away what removed snapshots left: mounts, daemons, directories, cached data. */
export class Cleanup {
  readonly #parts: SnapshotterParts
  readonly #turns = new TurnsByKey()

  constructor(parts: SnapshotterParts) {
    this.#parts = parts
  }

  /** All of it. What cannot be removed is logged, and tried again the next time. */
  async run(signal: AbortSignal): Promise<void> {
    await this.#turns.take('', async () => {
      await this.#directories(signal)
      const { images, settings, tarfs, log } = this.#parts
      if (!settings.cache.gc) return
      tarfs?.collect(this.#wantedBlobs())
      const { removed, skipped } = await images.collectCache(() => this.#wantedBlobs(), signal)
      if (removed > 0 || skipped !== undefined)
        log.info(`removed ${removed} blobs from the cache${skipped === undefined ? '' : `; stopped, since ${skipped}`}`)
    })
  }

  /** Directories of all removed snapshots, and what is mounted there. */
  async directories(signal: AbortSignal): Promise<void> {
    await this.#turns.take('', async () => await this.#directories(signal))
  }

  /** One directory, when nothing else of the snapshot ever was. */
  async directory(path: string, signal: AbortSignal): Promise<void> {
    try {
      await removeTree(path, signal)
    } catch (error) {
      if (signal.aborted) return // the next round finds it
      this.#parts.log.warn(`${path} stays: ${String(error)}`)
    }
  }

  /** A snapshot that could not be prepared. */
  async undo(snapshot: Snapshot, signal: AbortSignal): Promise<void> {
    const { store, kernelImages, log } = this.#parts
    try {
      store.remove(snapshot.key)
      await store.flush()
      await kernelImages?.giveBack(snapshot.id)
      await this.directory(store.directory(snapshot), signal)
    } catch (error) {
      log.warn(`the snapshot ${snapshot.key}, which could not be prepared, stays: ${String(error)}`)
    }
  }

  async #directories(signal: AbortSignal): Promise<void> {
    const limit = pLimit(AT_ONCE)
    await Promise.all(
      this.#parts.store.orphans().map((path) =>
        limit(async () => {
          signal.throwIfAborted()
          await this.#orphan(path, signal)
        }),
      ),
    )
  }

  async #orphan(path: string, signal: AbortSignal): Promise<void> {
    const id = Number(basename(path))
    try {
      if (Number.isSafeInteger(id)) await this.#release(id, path)
    } catch (error) {
      this.#parts.log.warn(`${path} stays, since what is mounted there cannot be unmounted: ${String(error)}`)
      return
    }
    await this.directory(path, signal)
  }

  async #release(id: number, directory: string): Promise<void> {
    await this.#parts.images.release(id)
    await this.#parts.kernelImages?.forget(id)
    await this.#parts.tarfs?.release(directory)
  }

  /** Blobs of images that are there, mounted or not. */
  #wantedBlobs(): Set<string> {
    const { tarfs, kernelImages } = this.#parts
    const wanted = new Set<string>([...(tarfs?.unclaimed() ?? []), ...(kernelImages?.blobs() ?? [])])
    for (const { labels } of this.#parts.store.list([])) {
      const digest = labels.get(CRI_LAYER_DIGEST)
      if (digest !== undefined && (labels.has(NYDUS_BLOB) || labels.has(STARGZ))) wanted.add(digest)
      const tar = labels.get(NYDUS_TARFS)
      if (tar !== undefined) wanted.add(tar)
    }
    return wanted
  }
}
