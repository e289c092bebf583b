import { referenceOf } from './daemons/index.ts'
import { messageOf } from './daemons/message.ts'
import { SnapshotterError } from './errors.ts'
import { NYDUS_ALTERNATIVE, NYDUS_BOOTSTRAP, SNAPSHOT_REF, STARGZ } from './labels.ts'
import type { Log } from './log/index.ts'
import type { Labels, Mount, Snapshot, Usage } from './snapshot.ts'
import type { Snapshotter } from './snapshotter.ts'
import { deadlineSignal } from '../kernel/index.ts'

/** Of this layer and those above it; clients that pull by CRI's labels set it. */
const IMAGE_LAYERS = 'containerd.io/snapshot/cri.image-layers'
/** On layers of images that were not fetched whole: Nydus images, plain ones with a Nydus form, eStargz. */
const LAZY = [NYDUS_BOOTSTRAP, NYDUS_ALTERNATIVE, STARGZ] as const
/** Pulls that are followed at the same time; of more, the oldest get no line. */
const MOST_PULLS = 1000
const SHOWN_CHARACTERS = 300
/** A line waits so long for what a daemon says of an image. */
const FETCHED_MS = 5_000
const MIB = 2 ** 20

interface Pull {
  readonly startedMs: number
  unpacked: number
  left: number
  readonly names: string[]
}

/** Who knows how many bytes were fetched for the image of a snapshot, by number; undefined where nobody fetches for it. The signal is for those who ask a daemon: most images have none. */
export type Fetched = (snapshotId: number, signal: () => AbortSignal) => Promise<number | undefined>

interface ToldImage {
  readonly reference: string
  readonly isLazy: boolean
  /** Of the layers' directories. */
  readonly bytes: number
  /** The image's layers, nearest first. */
  readonly ids: readonly number[]
}

/** A snapshotter that tells what it does: a line in the log for each pull and for each start of a container, with bytes and times. */
export class ToldSnapshotter implements Snapshotter {
  readonly #inner: Snapshotter
  readonly #fetched: Fetched
  readonly #log: Log
  readonly #now: () => number
  readonly #pulls = new Map<string, Pull>()
  readonly #lifetime = new AbortController()

  constructor(inner: Snapshotter, fetched: Fetched, log: Log, now: () => number = () => performance.now()) {
    this.#inner = inner
    this.#fetched = fetched
    this.#log = log
    this.#now = now
  }

  async prepare(key: string, parent: string, labels: Labels, signal: AbortSignal): Promise<readonly Mount[]> {
    const startedMs = this.#now()
    const isLayer = labels.has(SNAPSHOT_REF)
    const pull = isLayer ? this.#pullOf(labels, startedMs) : undefined
    try {
      const mounts = await this.#inner.prepare(key, parent, labels, signal)
      if (!isLayer) this.#tellStartSoon(key, parent, this.#now() - startedMs)
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

  /** The answer goes first, and those of other calls that came with this one. */
  #tellStartSoon(key: string, parent: string, elapsedMs: number): void {
    setImmediate(() => void this.#tellStart(key, parent, elapsedMs))
  }

  /** The container does not wait for what a daemon says of its image. */
  async #tellStart(key: string, parent: string, elapsedMs: number): Promise<void> {
    const image = this.#imageOf(parent)
    const fetched = await this.#fetchedFor(image)
    const isLazy = image.isLazy || fetched !== undefined
    const bytes = [
      `${mib(image.bytes)} ${isLazy ? 'of layers here' : 'here'}`,
      ...(fetched === undefined ? [] : [`${mib(fetched)} fetched so far`]),
    ]
    const name = image.reference === '' ? 'an image without a name' : shown(image.reference)
    const kind = isLazy ? 'lazy' : 'unpacked'
    this.#log.info(`prepared ${shortKey(key)} of ${name}: ${kind}, ${bytes.join(', ')}, ${seconds(elapsedMs)}`)
  }

  async #fetchedFor({ ids }: ToldImage): Promise<number | undefined> {
    let within: AbortSignal | undefined
    const signal = (): AbortSignal => (within ??= AbortSignal.any([this.#lifetime.signal, deadlineSignal(FETCHED_MS)]))
    for (const id of ids) {
      const bytes = await this.#fetched(id, signal)
      if (bytes !== undefined) return bytes
    }
    return undefined
  }

  /** As far as it can be told: a line of the log must not make a call fail. */
  #imageOf(parent: string): ToldImage {
    let [reference, isLazy, bytes] = ['', false, 0]
    const ids: number[] = []
    for (let name = parent; name !== ''; ) {
      const layer = this.#find(name)
      if (layer === undefined) break
      const { id, labels, usage, parent: below } = layer
      if (reference === '') reference = referenceOf(labels)
      isLazy ||= LAZY.some((mark) => labels.has(mark))
      bytes += usage?.bytes ?? 0
      ids.push(id)
      name = below
    }
    return { reference, isLazy, bytes, ids }
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
