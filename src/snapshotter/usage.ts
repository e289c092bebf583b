import { setTimeout } from 'node:timers/promises'
import { SnapshotterError } from './errors.ts'
import type { Snapshot, Usage } from './snapshot.ts'
import { CRI_LAYER_DIGEST, NYDUS_BLOB, NYDUS_TARFS, STARGZ } from './labels.ts'
import { filesOf } from './mounts.ts'
import type { SnapshotterParts } from './parts.ts'
import { measureUsage } from './store/index.ts'
import { TurnsByKey } from './daemons/turns.ts'

/** containerd asks for all snapshots every ten seconds; a cache does not change much faster. */
const CACHE_USAGE_MS = 30_000

/** After a commit. */
const MEASURE_AFTER_MS = 1000

const NOTHING: Usage = { bytes: 0, inodes: 0 }

/** It becomes a name of files, and comes from an image. */
const BLOB = /^sha256:[0-9a-f]{64}$/

/** What snapshots take on the disk. */
export class Usages {
  readonly #parts: SnapshotterParts
  readonly #cached = new Map<string, { readonly until: number; readonly usage: Promise<Usage> }>()
  readonly #measuring = new TurnsByKey()
  /** In the order in which they are due; the first is waited for or measured now. */
  readonly #committed: Array<{ readonly snapshot: Snapshot; readonly dueMs: number }> = []
  readonly #signal: AbortSignal

  /** `signal` ends what goes on in the background. */
  constructor(parts: SnapshotterParts, signal: AbortSignal) {
    this.#parts = parts
    this.#signal = signal
  }

  /** Of an active snapshot, as it is now; of a committed one, as measured once, with what is cached of its blob, and what the kernel shows it by. */
  async of(snapshot: Snapshot, signal: AbortSignal): Promise<Usage> {
    switch (snapshot.kind) {
      case 'view':
        return NOTHING
      case 'active':
        return await measureUsage(filesOf(this.#parts.store.directory(snapshot)), signal)
      case 'committed':
        return sum([
          snapshot.usage ?? (await this.measure(snapshot)),
          await this.#inCache(snapshot),
          ...(await this.#ofKernel(snapshot, signal)),
        ])
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
   * Has a snapshot measured that was just committed, unless somebody asks for it before: not at once, as more calls of its pull are on their way, and one after another. One that was removed meanwhile is nobody's
   * loss. Gives the work that begins with it; undefined when work that is under way comes to it.
   */
  measureLater(snapshot: Snapshot): Promise<void> | undefined {
    this.#committed.push({ snapshot, dueMs: performance.now() + MEASURE_AFTER_MS })
    return this.#committed.length === 1 ? this.#measureCommitted() : undefined
  }

  async #measureCommitted(): Promise<void> {
    for (let next = this.#committed[0]; next !== undefined; next = this.#committed[0]) {
      const waitMs = next.dueMs - performance.now()
      if (waitMs > 0) await setTimeout(waitMs, undefined, { signal: this.#signal, ref: false })
      await this.#measureIfThere(next.snapshot)
      this.#committed.shift()
    }
  }

  async #measureIfThere(snapshot: Snapshot): Promise<void> {
    this.#signal.throwIfAborted()
    if (this.#parts.store.find(snapshot.key)?.id !== snapshot.id) return
    try {
      await whereThere(this.measure(snapshot))
    } catch (error) {
      this.#signal.throwIfAborted()
      this.#parts.log.warn(`cannot measure ${snapshot.key}: ${String(error)}`)
    }
  }

  /** Metadata for the kernel. */
  async #ofKernel({ id }: Snapshot, signal: AbortSignal): Promise<Usage[]> {
    const directories = this.#parts.kernelImages?.directoriesOf(id) ?? []
    return await Promise.all(
      directories.map(async (directory) => (await whereThere(measureUsage(directory, signal))) ?? NOTHING),
    )
  }

  async #inCache({ labels }: Snapshot): Promise<Usage> {
    const digest = labels.get(CRI_LAYER_DIGEST) ?? ''
    if (!BLOB.test(digest) || ![NYDUS_BLOB, NYDUS_TARFS, STARGZ].some((mark) => labels.has(mark))) return NOTHING
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

/** Undefined when what was measured is gone. */
async function whereThere(measured: Promise<Usage>): Promise<Usage | undefined> {
  try {
    return await measured
  } catch (error) {
    if (!(error instanceof SnapshotterError) || error.code !== 'NOT_FOUND') throw error
    return undefined
  }
}

function sum(usages: readonly Usage[]): Usage {
  return usages.reduce((a, b) => ({ bytes: a.bytes + b.bytes, inodes: a.inodes + b.inodes }), NOTHING)
}
