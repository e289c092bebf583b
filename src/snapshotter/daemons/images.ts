import type { KeyObject } from 'node:crypto'
import { mkdirSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { SnapshotterError } from '../errors.ts'
import type { RecordTable } from '../store/index.ts'
import type { Snapshot, Usage } from '../snapshot.ts'
import { readPublicKey } from './bootstrap.ts'
import { blobUsage } from './cache.ts'
import { CacheCollector, type CollectedCache } from './cache-collector.ts'
import { Cgroup } from './cgroup.ts'
import { ConfigTemplate, type Credential } from './config-template.ts'
import type { DaemonImage, DaemonParts, Nydusd } from './daemon.ts'
import { DaemonEvents } from './events.ts'
import { Fleet, type ServedImage } from './fleet.ts'
import { findRecorded } from './found.ts'
import type { CredentialLookup, MirrorLookup } from './image-config.ts'
import type { IdMapping } from '../id-mapping.ts'
import { imageKey, type ImageRequest } from './image-request.ts'
import { messageOf } from './message.ts'
import { Mounter, nameOf } from './mounter.ts'
import { configPath } from './places.ts'
import { PrefetchLists } from './prefetch-lists.ts'
import { sourceSnapshot } from './records.ts'
import { pushLogin } from './relogin.ts'
import type { DaemonLog, DaemonSettings } from './settings.ts'
import { type DaemonMetrics, type DaemonStatus, fetchedBytes } from './status.ts'
import { TurnsByKey, unlessAborted } from './turns.ts'
import { usedBlobs } from './used-blobs.ts'

/** So long a stop waits for what is under way; the next start finds what it left. */
const STOP_MS = 5_000

/** An image that can be read. */
export interface MountedImage {
  readonly key: string
  readonly mountpoint: string
  readonly bootstrap: string
  /** nydusd's configuration of it, which has logins in it. */
  readonly configPath: string
  /** '' where no daemon is wanted. */
  readonly daemonId: string
}

/** An image for others to serve, as a virtual machine's nydusd. */
interface UnservedImage {
  readonly image: DaemonImage
  readonly daemon: undefined
}

export interface ImagesParts {
  readonly settings: DaemonSettings
  readonly records: { readonly daemons: RecordTable; readonly instances: RecordTable }
  readonly credentials: CredentialLookup
  readonly mirrors?: MirrorLookup
  /** Is the snapshot there still? Who asks for its image may be late. */
  readonly isThere: (snapshot: Snapshot) => boolean
  readonly log: DaemonLog
}

/**
 * Images that are mounted, and the nydusd processes under them. An image is mounted once, however many containers stand on it, and stays mounted until it is
 * released, beyond the life of this process: the next one finds all of it by the records. Calls may come at the same time; those for one image are served one
 * after another, and one that hangs or fails hinders no other.
 */
export class Images {
  readonly events: DaemonEvents
  readonly prefetchLists = new PrefetchLists()
  readonly #parts: DaemonParts
  readonly #instances: RecordTable
  readonly #mounter: Mounter
  readonly #collector: CacheCollector
  readonly #fleet: Fleet
  readonly #isThere: (snapshot: Snapshot) => boolean
  /** Mounts that are under way; whoever asks for the same waits for the same. */
  readonly #pending = new Map<string, Promise<MountedImage>>()
  readonly #turns = new TurnsByKey()
  #isStopping = false

  private constructor(
    parts: ImagesParts,
    daemonParts: DaemonParts,
    sources: { readonly template: ConfigTemplate; readonly key: KeyObject | undefined },
  ) {
    this.#parts = daemonParts
    this.events = daemonParts.events
    this.#instances = parts.records.instances
    this.#isThere = parts.isThere
    this.#collector = new CacheCollector(daemonParts.settings.cache.dir, daemonParts.log)
    const found = findRecorded(daemonParts, this.#instances)
    this.#fleet = new Fleet(daemonParts, found)
    this.#mounter = new Mounter({
      ...daemonParts,
      instances: this.#instances,
      template: sources.template,
      publicKey: sources.key,
      credentials: parts.credentials,
      mirrors: parts.mirrors,
      prefetchLists: this.prefetchLists,
      lastNumber: found.lastNumber,
    })
  }

  /**
   * Takes up what an earlier process left. Resolves when daemons that serve are watched again; dead ones come back in the background. Throws SnapshotterError
   * 'BAD_CONFIG' when the template or the key cannot be read.
   */
  static async start(parts: ImagesParts): Promise<Images> {
    const { settings, records, log } = parts
    const { root, image, cgroup, daemon } = settings
    const template = await ConfigTemplate.read(daemon.configPath)
    const key = image.validateSignature ? await readPublicKey(image.publicKeyFile) : undefined
    for (const name of ['socket', 'config', 'supervisor']) mkdirSync(join(root, name), { recursive: true, mode: 0o700 })
    mkdirSync(settings.cache.dir, { recursive: true })
    const events = new DaemonEvents()
    const group = cgroup.enable ? Cgroup.make(cgroup.memoryLimitBytes, log) : undefined
    const images = new Images(
      parts,
      { settings, records: records.daemons, log, events, cgroup: group },
      { template, key },
    )
    await images.#fleet.takeUp()
    return images
  }

  /**
   * The image, when its files can be read: it is there already, or is mounted now, also again when a reboot or a death took it. A caller that gives up does not
   * end the mount. Throws SnapshotterError.
   */
  async ensure(request: ImageRequest, signal: AbortSignal): Promise<MountedImage> {
    if (this.#isStopping) throw new SnapshotterError('UNAVAILABLE', 'the snapshotter stops')
    const key = imageKey(request.snapshot.id, request.idMapping)
    let pending = this.#pending.get(key)
    if (pending === undefined) {
      pending = this.#turns.take(key, () => this.#ensure(key, request)).finally(() => this.#pending.delete(key))
      pending.catch(() => undefined) // callers are told; if all have gone, the next one is
      this.#pending.set(key, pending)
    }
    return await unlessAborted(pending, signal)
  }

  async #ensure(key: string, request: ImageRequest): Promise<MountedImage> {
    return await this.#collector.whileMounting(async () => {
      // Whoever removes a snapshot releases its image afterwards, and waits for this; what begins later would be nobody's.
      if (!this.#isThere(request.snapshot))
        throw new SnapshotterError('NOT_FOUND', `the snapshot ${request.snapshot.key} was removed: not found`)
      const known = this.#find(key)
      if (known === undefined) return await this.#mountNew(key, request)
      const { daemon, image } = known
      if (daemon === undefined) return this.#mounter.described(image, undefined)
      await (daemon.isShared ? daemon.mount(image) : daemon.serving())
      return this.#mounter.described(image, daemon)
    })
  }

  async #mountNew(key: string, request: ImageRequest): Promise<MountedImage> {
    const { daemonMode } = this.#parts.settings
    if (daemonMode === 'none') return await this.#mounter.withoutDaemon(request)
    const isShared = daemonMode === 'shared'
    const daemon = isShared ? this.#fleet.shared() : this.#fleet.dedicated(request)
    try {
      const image = await this.#mounter.mount(request, daemon)
      return this.#mounter.described(image, daemon)
    } catch (error) {
      this.#parts.log.warn(messageOf(error)) // whoever asked may have gone
      await this.#undo(key, daemon).catch((cause: unknown) => this.#parts.log.warn(messageOf(cause)))
      throw error
    }
  }

  /** The record goes last: on a full disk it stays. */
  async #undo(key: string, daemon: Nydusd): Promise<void> {
    if (!daemon.isShared) await this.#fleet.end(daemon)
    else {
      await daemon.unmount(key).catch((error: unknown) => this.#parts.log.warn(messageOf(error)))
      await removeConfig(daemon, key)
    }
    this.#instances.remove(key)
  }

  /** What is mounted, without waiting for anything. */
  find(snapshotId: number, idMapping?: IdMapping): MountedImage | undefined {
    const found = this.#find(imageKey(snapshotId, idMapping))
    return found && this.#mounter.described(found.image, found.daemon)
  }

  #find(key: string): ServedImage | UnservedImage | undefined {
    const image = this.#mounter.undaemoned.get(key)
    return this.#fleet.find(key) ?? (image && { image, daemon: undefined })
  }

  /** Unmounts what was mounted of a snapshot: with `idMapping` only for these ids, else all. Ends dedicated daemons. What cannot be undone is logged. */
  async release(snapshotId: number, idMapping?: IdMapping): Promise<void> {
    const wanted = idMapping === undefined ? undefined : imageKey(snapshotId, idMapping)
    const keys = this.#keys((image) =>
      wanted === undefined ? sourceSnapshot(image.record) === snapshotId : image.record.SnapshotID === wanted,
    )
    const pending = [...this.#pending.keys()].filter((key) =>
      wanted === undefined ? Number.parseInt(key) === snapshotId : key === wanted,
    )
    for (const key of new Set([...keys, ...pending])) await this.#turns.take(key, () => this.#release(key))
  }

  async #release(key: string): Promise<void> {
    const found = this.#find(key)
    if (found === undefined) return
    const { daemon } = found
    this.#instances.remove(key)
    this.#mounter.undaemoned.delete(key)
    if (daemon === undefined)
      return await rm(dirname(this.#mounter.described(found.image, undefined).configPath), {
        recursive: true,
        force: true,
      })
    if (daemon.isShared) {
      await daemon
        .unmount(key)
        .catch((error: unknown) => this.#parts.log.warn(`${nameOf(found.image)} stays mounted: ${messageOf(error)}`))
      await removeConfig(daemon, key)
    } else {
      daemon.images.delete(key)
      await this.#fleet.end(daemon)
    }
    this.#parts.log.info(`${nameOf(found.image)} is unmounted`)
  }

  /** All daemons, and what they serve. */
  list(): readonly DaemonStatus[] {
    return this.#fleet.statuses()
  }

  /** What the daemons count; those that do not serve have nothing to tell. */
  async metrics(signal: AbortSignal): Promise<readonly DaemonMetrics[]> {
    return await this.#fleet.metrics(signal)
  }

  /** Names of the images that are mounted. */
  references(): ReadonlySet<string> {
    return new Set(this.#all().map(({ image }) => image.record.ImageID))
  }

  /** An image has another login from now on: daemons that serve it get it, and those that will. Throws SnapshotterError for the first that cannot be told. */
  async renewed(reference: string, credential: Credential): Promise<void> {
    for (const { image, daemon } of this.#all())
      if (daemon !== undefined && image.record.ImageID === reference) await pushLogin(daemon, image, credential)
  }

  /** The configuration that a daemon's only image, or one image of it, is served with; undefined when there is none. It has logins in it. */
  configOf(daemonId: string, key?: string): string | undefined {
    const daemon = this.#fleet.get(daemonId)
    const [first] = daemon?.images.keys() ?? []
    const wanted = key ?? first
    return daemon !== undefined && wanted !== undefined && daemon.images.has(wanted)
      ? configPath(daemon.record, wanted)
      : undefined
  }

  /** Replaces the program of all daemons while they serve. The first failure ends it; what was not replaced goes on as it was. Throws SnapshotterError. */
  async upgrade({ nydusdPath }: { readonly nydusdPath: string }): Promise<void> {
    await this.#fleet.upgrade(nydusdPath)
  }

  /** What a blob takes in the cache. */
  async cacheUsage(blobId: string): Promise<Usage> {
    return await blobUsage(this.#parts.settings.cache.dir, blobId)
  }

  /** Bytes that were fetched for a snapshot's image since it is mounted. Undefined where no daemon serves it, or none says. */
  async fetched(snapshotId: number, signal: () => AbortSignal): Promise<number | undefined> {
    let sum: number | undefined
    for (const { image, daemon } of this.#all()) {
      if (daemon === undefined || !image.isMounted || sourceSnapshot(image.record) !== snapshotId) continue
      const bytes = await fetchedBytes(daemon, image.record.SnapshotID, signal())
      if (bytes !== undefined) sum = (sum ?? 0) + bytes
    }
    return sum
  }

  /**
   * Removes what is cached of blobs that nobody needs. Needed is what mounted images use, and what `roots` names (digests or ids): blobs of images that are pulled and
   * not mounted, tars, disks. When an image's blobs are not known, nothing is removed.
   */
  async collectCache(roots: () => Iterable<string>, signal: AbortSignal): Promise<CollectedCache> {
    return await this.#collector.collect(
      () =>
        usedBlobs(
          this.#all().map(({ image }) => image),
          this.#parts.log,
        ),
      roots,
      signal,
    )
  }

  /** Resolves when nothing is being removed from the cache that was being removed now. */
  async noRemoval(): Promise<void> {
    await this.#collector.noRemoval()
  }

  /** Resolves when no daemon is being started, brought back or replaced. */
  async settled(): Promise<void> {
    await this.#fleet.settled()
  }

  /** Daemons go on without us, unless the configuration has them end. No call may follow. */
  async stop(): Promise<void> {
    this.#isStopping = true
    this.#fleet.unwatch()
    await Promise.race([
      Promise.allSettled([...this.#pending.values(), this.settled()]),
      sleep(STOP_MS, undefined, { ref: false }),
    ])
    await this.#fleet.leave((key) => this.#instances.remove(key))
  }

  #all(): ReadonlyArray<ServedImage | UnservedImage> {
    const unserved = [...this.#mounter.undaemoned.values()].map((image) => ({ image, daemon: undefined }))
    return [...this.#fleet.images, ...unserved]
  }

  #keys(wanted: (image: DaemonImage) => boolean): string[] {
    return this.#all().flatMap(({ image }) => (wanted(image) ? [image.record.SnapshotID] : []))
  }
}

/** Of an image of a shared daemon. It has logins in it. */
async function removeConfig(daemon: Nydusd, key: string): Promise<void> {
  await rm(dirname(configPath(daemon.record, key)), { recursive: true, force: true })
}
