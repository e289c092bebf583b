import { setTimeout } from 'node:timers/promises'
import { SnapshotterError } from './errors.ts'
import type { Snapshot, Usage } from './snapshot.ts'
import { CRI_LAYER_DIGEST, NYDUS_BLOB, NYDUS_TARFS, STARGZ } from './labels.ts'
import { filesOf } from './mounts.ts'
import type { SnapshotterParts } from './parts.ts'
import { measureUsage } from './store/index.ts'
import { Turns, TurnsByKey } from './daemons/turns.ts'

/** containerd asks for all snapshots every ten seconds; a cache does not change much faster. */
const CACHE_USAGE_MS = 30_000

/** After a commit. */
const MEASURE_AFTER_MS = 1000

/** It becomes a name of files, and comes from an image. */
const BLOB = /^sha256:[0-9a-f]{64}$/

/** What snapshots take on the disk. */
export class Usages {
  readonly #parts: SnapshotterParts
  readonly #cached = new Map<string, { readonly until: number; readonly usage: Promise<Usage> }>()
  readonly #measuring = new TurnsByKey()
  readonly #later = new Turns()
  readonly #signal: AbortSignal

  /** `signal` ends what goes on in the background. */
  constructor(parts: SnapshotterParts, signal: AbortSignal) {
    this.#parts = parts
    this.#signal = signal
  }

  /** Of an active snapshot, as it is now; of a committed one, as measured once, with what is cached of its blob. */
  async of(snapshot: Snapshot, signal: AbortSignal): Promise<Usage> {
    switch (snapshot.kind) {
      case 'view':
        return { bytes: 0, inodes: 0 }
      case 'active':
        return await measureUsage(filesOf(this.#parts.store.directory(snapshot)), signal)
      case 'committed':
        return add(snapshot.usage ?? (await this.measure(snapshot)), await this.#inCache(snapshot))
      default:
        return snapshot.kind satisfies never
    }
  }

  /** Measures a committed snapshot and keeps the result. A large layer takes seconds, for which containerd must not wait when it commits. */
  async measure({ key, id }: Snapshot): Promise<Usage> {
    return await this.#measuring.take(key, async () => {
      const { store } = this.#parts
      const now = store.stat(key)
      if (now.usage !== undefined) return now.usage
      const usage = await measureUsage(filesOf(store.directory(now)), this.#signal)
      // It may have been removed meanwhile, and another one have its name.
      if (store.find(key)?.id === id) store.setUsage(key, usage)
      return usage
    })
  }

  /**
   * Measures a snapshot that was just committed, unless somebody asks for it before: not at once, as more calls of its pull are on their way, and one after another. One that was removed meanwhile is nobody's
   * loss.
   */
  async measureLater(snapshot: Snapshot): Promise<void> {
    await setTimeout(MEASURE_AFTER_MS, undefined, { signal: this.#signal, ref: false })
    await this.#later.take(async () => await this.#measureIfThere(snapshot))
  }

  async #measureIfThere(snapshot: Snapshot): Promise<void> {
    try {
      this.#signal.throwIfAborted()
      await this.measure(snapshot)
    } catch (error) {
      if (!(error instanceof SnapshotterError) || error.code !== 'NOT_FOUND') throw error
    }
  }

  async #inCache({ labels }: Snapshot): Promise<Usage> {
    const digest = labels.get(CRI_LAYER_DIGEST) ?? ''
    if (!BLOB.test(digest) || ![NYDUS_BLOB, NYDUS_TARFS, STARGZ].some((mark) => labels.has(mark)))
      return { bytes: 0, inodes: 0 }
    const now = performance.now()
    const known = this.#cached.get(digest)
    if (known !== undefined && known.until > now) return await known.usage
    for (const [key, { until }] of this.#cached) if (until <= now) this.#cached.delete(key)
    const usage = this.#parts.images.cacheUsage(digest.replace(/^sha256:/, ''))
    this.#cached.set(digest, { until: now + CACHE_USAGE_MS, usage })
    usage.catch(() => this.#cached.delete(digest))
    return await usage
  }
}

function add(a: Usage, b: Usage): Usage {
  return { bytes: a.bytes + b.bytes, inodes: a.inodes + b.inodes }
}
