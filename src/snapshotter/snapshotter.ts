import { chownSync } from 'node:fs'
import { join } from 'node:path'
import { Cleanup } from './cleanup.ts'
import { Contents } from './content.ts'
import { SnapshotterError } from './errors.ts'
import { type IdMapping, parseIdMapping } from './id-mapping.ts'
import { LeftOutLayers } from './left-out-layers.ts'
import { LostAnnotations, withFoundMark } from './lost-annotations.ts'
import { NYDUS_BOOTSTRAP, SNAPSHOT_REF } from './labels.ts'
import type { Operation, SnapshotterParts } from './parts.ts'
import { routeContent, type RouteOptions } from './route.ts'
import type { Labels, Mount, Snapshot, Usage } from './snapshot.ts'
import { TurnsByKey } from './daemons/turns.ts'
import { Usages } from './usage.ts'

/**
 * Snapshots of container images, as containerd wants them.
 *
 * A client unpacks an image layer by layer, the lowest first: it *prepares* an active snapshot on the layer below, writes the layer into it and *commits* it. If the snapshotter has the layer's content otherwise, it commits the
 * snapshot itself under the name that the label `containerd.io/snapshot.ref` gives, and fails the call with 'ALREADY_EXISTS': the client then looks for a committed snapshot with that label and leaves the layer out. Of a Nydus
 * image every layer is left out but the last one, which has the bootstrap. A container's writable layer is an active snapshot without that label. It stands on the image, whose files are there when `prepare` resolves.
 *
 * Calls for different snapshots run at the same time, those for one key one after another. Errors are SnapshotterErrors, or the reason of the signal; a call that fails leaves nothing behind. After a restart, of this process or of
 * the machine, `mounts` gives the same paths as before and mounts what is missing.
 */
export interface Snapshotter {
  /** Makes an active snapshot on `parent`, '' for none. */
  prepare(key: string, parent: string, labels: Labels, signal: AbortSignal): Promise<readonly Mount[]>
  /** Makes a snapshot that is only read. */
  view(key: string, parent: string, labels: Labels, signal: AbortSignal): Promise<readonly Mount[]>
  /** The mounts again. */
  mounts(key: string, signal: AbortSignal): Promise<readonly Mount[]>
  /** Makes an active snapshot a layer. Its labels are those given, and a mark that `prepare` found for it. Quick: containerd holds a lock meanwhile. */
  commit(name: string, key: string, labels: Labels, parent: string): Promise<void>
  /** Forgets a snapshot; what it left goes at the next `cleanup`. */
  remove(key: string, signal: AbortSignal): Promise<void>
  stat(key: string): Snapshot
  update(key: string, labels: Labels, paths: readonly string[]): Promise<Snapshot>
  list(filters: readonly string[]): Iterable<Snapshot>
  usage(key: string, signal: AbortSignal): Promise<Usage>
  /** Removes directories, mounts and cached data of removed snapshots. */
  cleanup(signal: AbortSignal): Promise<void>
  /** Ends what goes on in the background, then the images' part and the store. Mounts stay, unless the configuration has them end. Twice is once. */
  close(): Promise<void>
}

/** The one there is: rules in `route.ts`, mounts in `mounts.ts` and `content.ts`. */
export class NydusSnapshotter implements Snapshotter {
  readonly #parts: SnapshotterParts
  readonly #options: RouteOptions
  readonly #contents: Contents
  readonly #usages: Usages
  readonly #leftOut: LeftOutLayers
  readonly #lost: LostAnnotations
  readonly #cleanup: Cleanup
  readonly #turns = new TurnsByKey()
  readonly #lifetime = new AbortController()
  readonly #background = new Set<Promise<void>>()
  #closed: Promise<void> | undefined

  constructor(parts: SnapshotterParts) {
    const { settings, detector } = parts
    this.#parts = parts
    this.#options = {
      proxy: settings.daemon.fsDriver === 'proxy',
      detect: detector !== undefined,
      stargz: parts.stargz !== undefined,
      tarfs: parts.tarfs !== undefined,
    }
    this.#contents = new Contents(parts, this.#options)
    this.#lost = new LostAnnotations(parts.store.root)
    this.#usages = new Usages(parts, this.#lifetime.signal)
    this.#cleanup = new Cleanup(parts)
    this.#leftOut = new LeftOutLayers(parts, this.#options, this.#cleanup, this.#lifetime.signal)
    this.#inBackground('make directories ahead', async () => await parts.store.makeAhead(this.#lifetime.signal))
  }

  async prepare(key: string, parent: string, given: Labels, signal: AbortSignal): Promise<readonly Mount[]> {
    return await this.#timed('PREPARE', key, async () => {
      const isLayer = given.has(SNAPSHOT_REF)
      const labels = isLayer ? await this.#lost.restored(given) : given
      const chain = this.#chainOnto(parent)
      if (isLayer) await this.#leftOut.offer({ key, parent, labels }, chain, signal)
      return await this.#create('active', key, parent, labels, signal)
    })
  }

  async view(key: string, parent: string, labels: Labels, signal: AbortSignal): Promise<readonly Mount[]> {
    return await this.#onDisk(() =>
      this.#turns.take(key, async () => {
        this.#chainOnto(parent)
        return await this.#create('view', key, parent, labels, signal)
      }),
    )
  }

  async mounts(key: string, signal: AbortSignal): Promise<readonly Mount[]> {
    // Not in turn: it changes nothing, and containerd waits for removals with all else that it does.
    return await this.#observed('MOUNTS', async () => {
      const { store } = this.#parts
      const snapshot = store.stat(key)
      if (snapshot.kind === 'committed')
        throw new SnapshotterError(
          'FAILED_PRECONDITION',
          `requested snapshot ${key} not active or view: failed precondition`,
        )
      return await this.#contents.mounts(snapshot, store.chain(key), 'again', signal)
    })
  }

  async commit(name: string, key: string, labels: Labels, parent: string): Promise<void> {
    await this.#onDisk(() =>
      this.#turns.take(key, async () => {
        const { store } = this.#parts
        const committed = store.commit(name, key, withFoundMark(labels, store.find(key)), undefined, parent)
        const measuring = this.#usages.measureLater(committed)
        if (measuring !== undefined) this.#inBackground('measure layers', () => measuring)
        this.#warm(committed)
      }),
    )
  }

  async remove(key: string, signal: AbortSignal): Promise<void> {
    await this.#timed('REMOVE', key, async () => {
      const { store, settings, kernelImages } = this.#parts
      const removed = store.stat(key)
      const mapped = this.#mappedImage(removed)
      store.remove(key)
      await kernelImages?.giveBack(removed.id)
      if (mapped !== undefined && !this.#isUsed(mapped))
        this.#inBackground(
          `unmount what ${key} used`,
          async () => await this.#parts.images.release(mapped.layer.id, mapped.mapping),
        )
      if (settings.snapshot.syncRemove) await this.#cleanup.directories(signal)
    })
  }

  stat(key: string): Snapshot {
    return this.#parts.store.stat(key)
  }

  async update(key: string, labels: Labels, paths: readonly string[]): Promise<Snapshot> {
    return await this.#onDisk(async () => this.#parts.store.update(key, labels, paths))
  }

  list(filters: readonly string[]): Iterable<Snapshot> {
    return this.#parts.store.list(filters)
  }

  async usage(key: string, signal: AbortSignal): Promise<Usage> {
    return await this.#usages.of(this.#parts.store.stat(key), signal)
  }

  async cleanup(signal: AbortSignal): Promise<void> {
    await this.#observed('CLEANUP', async () => await this.#cleanup.run(signal))
  }

  async close(): Promise<void> {
    this.#closed ??= this.#close()
    await this.#closed
  }

  async #close(): Promise<void> {
    this.#lifetime.abort(new SnapshotterError('UNAVAILABLE', 'the snapshotter stops'))
    await Promise.all(this.#background)
    const { images, kernelImages, store, stargz, tarfs } = this.#parts
    stargz?.stop()
    await kernelImages?.stop()
    await tarfs?.stop(store.list([]).map((snapshot) => store.directory(snapshot)))
    await images.stop()
    store.close()
  }

  /** What a snapshot on `parent` would stand on. A parent that is not there was lost with a database. */
  #chainOnto(parent: string): readonly Snapshot[] {
    if (parent === '') return []
    const { store } = this.#parts
    if (store.find(parent) === undefined) {
      if (!this.#options.proxy)
        throw new SnapshotterError(
          'NOT_FOUND',
          `missing parent ${JSON.stringify(parent)} bucket: not found; containerd remembers snapshots that are not here: remove the image (or "ctr snapshots --snapshotter nydus rm" them), and pull it again`,
        )
      this.#replaceLost(parent)
    }
    return [store.stat(parent), ...store.chain(parent)]
  }

  /** Of images that are pulled elsewhere nothing is lost with their snapshots. */
  #replaceLost(name: string): void {
    const { store, log } = this.#parts
    const labels = new Map([
      ['nydus.recovered', 'true'],
      ['nydus.recovered.at', String(Math.floor(Date.now() / 1000))],
    ])
    const { key } = store.create('active', `recovery-${process.hrtime.bigint()}-${name}`, '', labels)
    store.commit(name, key, labels, { bytes: 0, inodes: 0 })
    log.warn(`the snapshot ${name} was missing; an empty one takes its place`)
  }

  async #create(
    kind: 'active' | 'view',
    key: string,
    parent: string,
    labels: Labels,
    signal: AbortSignal,
  ): Promise<readonly Mount[]> {
    const { store } = this.#parts
    signal.throwIfAborted()
    const snapshot = store.create(kind, key, parent, labels)
    try {
      const mapping = parseIdMapping(snapshot.labels)
      if (mapping !== undefined && kind === 'active')
        chownSync(join(store.directory(snapshot), 'work'), mapping.host, mapping.host)
      return await this.#contents.mounts(snapshot, store.chain(key), 'start', signal)
    } catch (error) {
      await this.#cleanup.undo(snapshot, this.#lifetime.signal)
      throw error
    }
  }

  /** Containers of an image that has its bootstrap shall find it mounted. */
  #warm(layer: Snapshot): void {
    const { settings, store } = this.#parts
    if (!layer.labels.has(NYDUS_BOOTSTRAP) || settings.daemonMode === 'none' || settings.daemon.fsDriver !== 'fusedev')
      return
    const below = store.chain(layer.key)
    this.#inBackground(
      `mount ${layer.key} ahead`,
      async () => await this.#contents.warm(layer, below, this.#lifetime.signal),
    )
  }

  /** The image that was mounted for this snapshot's ids alone. */
  #mappedImage(snapshot: Snapshot): { layer: Snapshot; mapping: IdMapping } | undefined {
    if (snapshot.kind === 'committed') return undefined
    const mapping = parseIdMapping(snapshot.labels)
    if (mapping === undefined) return undefined
    const route = routeContent(this.#parts.store.chain(snapshot.key), this.#options)
    return 'layer' in route ? { layer: route.layer, mapping } : undefined
  }

  #isUsed({ layer, mapping }: { layer: Snapshot; mapping: IdMapping }): boolean {
    return [...this.#parts.store.list([])].some((other) => {
      const mapped = this.#mappedImage(other)
      return mapped?.layer.id === layer.id && mapped.mapping.host === mapping.host
    })
  }

  #inBackground(what: string, act: () => Promise<void>): void {
    const { signal } = this.#lifetime
    const work = act()
      .catch((error: unknown) => {
        if (!signal.aborted) this.#parts.log.warn(`cannot ${what}: ${String(error)}`)
      })
      .finally(() => this.#background.delete(work))
    this.#background.add(work)
  }

  async #timed<T>(operation: Operation, key: string, act: () => Promise<T>): Promise<T> {
    return await this.#observed(operation, () => this.#onDisk(() => this.#turns.take(key, act)))
  }

  /** What is told, also by an error, is on the disk then; the next call for the same key need not wait for that. */
  async #onDisk<T>(act: () => Promise<T>): Promise<T> {
    const { store } = this.#parts
    const { losses } = store
    try {
      return await act()
    } finally {
      await store.flush(losses)
    }
  }

  async #observed<T>(operation: Operation, act: () => Promise<T>): Promise<T> {
    const started = performance.now()
    try {
      return await act()
    } finally {
      this.#parts.observe(operation, performance.now() - started)
    }
  }
}
