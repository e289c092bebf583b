import { referenceOf } from './daemons/index.ts'
import { messageOf } from './daemons/message.ts'
import { SnapshotterError } from './errors.ts'
import { NYDUS_BOOTSTRAP, SNAPSHOT_REF } from './labels.ts'
import type { Log } from './log/index.ts'
import type { Labels, Mount, Snapshot, Usage } from './snapshot.ts'
import type { Snapshotter } from './snapshotter.ts'

/** Of this layer and those above it; clients that pull by CRI's labels set it. */
const IMAGE_LAYERS = 'containerd.io/snapshot/cri.image-layers'
/** Pulls that are followed at the same time; of more, the oldest get no line. */
const MOST_PULLS = 1000
const SHOWN_CHARACTERS = 300
const MIB = 2 ** 20

interface Pull {
  readonly startedMs: number
  unpacked: number
  left: number
  readonly names: string[]
}

/** A snapshotter that tells what it does: a line in the log for each pull and for each start of a container, with bytes and times. */
export class ToldSnapshotter implements Snapshotter {
  readonly #inner: Snapshotter
  readonly #log: Log
  readonly #now: () => number
  readonly #pulls = new Map<string, Pull>()
  readonly #lifetime = new AbortController()

  constructor(inner: Snapshotter, log: Log, now: () => number = () => performance.now()) {
    this.#inner = inner
    this.#log = log
    this.#now = now
  }

  async prepare(key: string, parent: string, labels: Labels, signal: AbortSignal): Promise<readonly Mount[]> {
    const startedMs = this.#now()
    const isLayer = labels.has(SNAPSHOT_REF)
    const pull = isLayer ? this.#pullOf(labels, startedMs) : undefined
    try {
      const mounts = await this.#inner.prepare(key, parent, labels, signal)
      if (!isLayer) this.#tellStart(key, parent, this.#now() - startedMs)
      return mounts
    } catch (error) {
      if (!(error instanceof SnapshotterError) || error.code !== 'ALREADY_EXISTS' || !isLayer) {
        this.#log.warn(`cannot prepare ${shortKey(key)}: ${messageOf(error)}`)
        throw error
      }
      if (pull !== undefined) {
        pull.left++
        this.#tellPullAtEnd(labels, pull)
      }
      throw error
    }
  }

  async commit(name: string, key: string, labels: Labels, parent: string): Promise<void> {
    await this.#inner.commit(name, key, labels, parent)
    const pull = this.#pulls.get(referenceOf(labels))
    if (pull === undefined || !labels.has(SNAPSHOT_REF)) return
    pull.unpacked++
    pull.names.push(name)
    this.#tellPullAtEnd(labels, pull)
  }

  async view(key: string, parent: string, labels: Labels, signal: AbortSignal): Promise<readonly Mount[]> {
    return await this.#inner.view(key, parent, labels, signal)
  }
  async mounts(key: string, signal: AbortSignal): Promise<readonly Mount[]> {
    return await this.#inner.mounts(key, signal)
  }
  async remove(key: string, signal: AbortSignal): Promise<void> {
    await this.#inner.remove(key, signal)
    this.#log.debug(`removed ${shortKey(key)}`)
  }
  stat(key: string): Snapshot {
    return this.#inner.stat(key)
  }
  async update(key: string, labels: Labels, paths: readonly string[]): Promise<Snapshot> {
    return await this.#inner.update(key, labels, paths)
  }
  list(filters: readonly string[]): Iterable<Snapshot> {
    return this.#inner.list(filters)
  }
  async usage(key: string, signal: AbortSignal): Promise<Usage> {
    return await this.#inner.usage(key, signal)
  }
  async cleanup(signal: AbortSignal): Promise<void> {
    await this.#inner.cleanup(signal)
  }
  async close(): Promise<void> {
    this.#lifetime.abort()
    await this.#inner.close()
  }

  #pullOf(labels: Labels, startedMs: number): Pull | undefined {
    const reference = referenceOf(labels)
    if (reference === '') return undefined
    const known = this.#pulls.get(reference)
    if (known !== undefined) return known
    const pull: Pull = { startedMs, unpacked: 0, left: 0, names: [] }
    this.#pulls.set(reference, pull)
    const [oldest] = this.#pulls.keys()
    if (this.#pulls.size > MOST_PULLS && oldest !== undefined) this.#pulls.delete(oldest)
    return pull
  }

  #tellPullAtEnd(labels: Labels, pull: Pull): void {
    if (labels.get(IMAGE_LAYERS)?.includes(',') !== false) return
    const reference = referenceOf(labels)
    this.#pulls.delete(reference)
    const elapsedMs = this.#now() - pull.startedMs
    // Sizes are measured later: containerd waits for the commit, and holds its database meanwhile.
    void this.#bytesOf(pull.names).then((bytes) => {
      const parts = [
        ...(pull.unpacked > 0 ? [`${layers(pull.unpacked)} unpacked (${mib(bytes)})`] : []),
        ...(pull.left > 0 ? [`${layers(pull.left)} left in the registry`] : []),
      ]
      this.#log.info(`pulled ${shown(reference)}: ${parts.join(', ')}, ${seconds(elapsedMs)}`)
    })
  }

  async #bytesOf(names: readonly string[]): Promise<number> {
    let sum = 0
    for (const name of names) {
      const usage = await this.#inner.usage(name, this.#lifetime.signal).catch(() => undefined) // removed meanwhile, or we stop
      sum += usage?.bytes ?? 0
    }
    return sum
  }

  #tellStart(key: string, parent: string, elapsedMs: number): void {
    const { reference, isNydus, bytes } = this.#imageOf(parent)
    const kind = isNydus ? 'lazy' : 'unpacked'
    const image = reference === '' ? 'an image without a name' : shown(reference)
    this.#log.info(`prepared ${shortKey(key)} of ${image}: ${kind}, ${mib(bytes)} here, ${seconds(elapsedMs)}`)
  }

  /** As far as it can be told: a line of the log must not make a call fail. */
  #imageOf(parent: string): { reference: string; isNydus: boolean; bytes: number } {
    const of = { reference: '', isNydus: false, bytes: 0 }
    for (let name = parent; name !== ''; ) {
      const layer = this.#find(name)
      if (layer === undefined) return of
      const { labels, usage, parent: below } = layer
      if (of.reference === '') of.reference = referenceOf(labels)
      if (labels.has(NYDUS_BOOTSTRAP)) of.isNydus = true
      of.bytes += usage?.bytes ?? 0
      name = below
    }
    return of
  }

  #find(name: string): Snapshot | undefined {
    try {
      return this.#inner.stat(name)
    } catch {
      return undefined // removed meanwhile, or we stop
    }
  }
}

/** Without the namespace and number that containerd puts before it. */
function shortKey(key: string): string {
  return shown(key.replace(/^[^/]+\/\d+\//, ''))
}

function shown(text: string): string {
  return text.length > SHOWN_CHARACTERS ? `${text.slice(0, SHOWN_CHARACTERS)}…` : text
}

function layers(count: number): string {
  return count === 1 ? '1 layer' : `${count} layers`
}

function mib(bytes: number): string {
  return `${(bytes / MIB).toFixed(1)} MiB`
}

function seconds(ms: number): string {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`
}
