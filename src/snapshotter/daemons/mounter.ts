import type { KeyObject } from 'node:crypto'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { checkSignature, copyBlobMetas, readyBootstrap } from './bootstrap.ts'
import { SnapshotterError } from '../errors.ts'
import type { RecordTable } from '../store/index.ts'
import type { ConfigTemplate } from './config-template.ts'
import { writePrivately } from './config-template.ts'
import type { DaemonImage, DaemonParts, Nydusd } from './daemon.ts'
import { type CredentialLookup, type MirrorLookup, writeImageConfig } from './image-config.ts'
import { imageKey, type ImageRequest } from './image-request.ts'
import type { MountedImage } from './images.ts'
import { messageOf } from './message.ts'
import { configPath, sessionPath, snapshotDirectory } from './places.ts'
import type { PrefetchLists } from './prefetch-lists.ts'
import { toldFiles } from './used-blobs.ts'
import { deadlineSignal } from '../../kernel/index.ts'

/** Beside nydusd's own time: for the bootstrap to be whole, and for logins to be found. */
const PREPARE_MS = 60_000

export interface MounterParts extends DaemonParts {
  readonly instances: RecordTable
  readonly template: ConfigTemplate
  readonly publicKey: KeyObject | undefined
  readonly credentials: CredentialLookup
  readonly mirrors: MirrorLookup | undefined
  readonly prefetchLists: PrefetchLists
  /** Of the image that was mounted last. */
  readonly lastNumber: number
}

/** For people. */
export function nameOf({ record: { ImageID, SnapshotID } }: DaemonImage): string {
  return ImageID === '' ? `the image of snapshot ${SnapshotID}` : `${ImageID} (snapshot ${SnapshotID})`
}

/** What has to be done that files of an image can be read, from the bootstrap in its layer to the daemon that serves. */
export class Mounter {
  /** Images for others to serve, as a virtual machine's nydusd. By key. */
  readonly undaemoned = new Map<string, DaemonImage>()
  readonly #parts: MounterParts
  #lastNumber: number

  constructor(parts: MounterParts) {
    this.#parts = parts
    this.#lastNumber = parts.lastNumber
  }

  /** The record is there before anything else is: whatever is killed, the next start knows of it. What fails leaves daemon and record to the caller. */
  async mount(request: ImageRequest, daemon: Nydusd): Promise<DaemonImage> {
    const started = performance.now()
    const image = await this.#prepare(request, daemon)
    const prepared = performance.now()
    const { SnapshotID: key, ImageID: reference } = image.record
    daemon.images.set(key, image)
    this.#parts.instances.put(key, JSON.stringify(image.record))
    try {
      if (daemon.isShared) await daemon.mount(image)
      else await daemon.serving()
    } catch (error) {
      throw new SnapshotterError(
        error instanceof SnapshotterError ? error.code : 'INTERNAL',
        `cannot mount ${nameOf(image)}: ${messageOf(error)}`,
        { cause: error },
      )
    }
    const elapsed = performance.now() - started
    this.#parts.log.info(
      `${nameOf(image)} can be read at ${image.record.Mountpoint} after ${Math.round(elapsed)} ms (prepared in ${Math.round(prepared - started)}; nydusd ${daemon.id})`,
    )
    this.#parts.events.emit('mounted', reference, key, elapsed)
    void this.#learnFiles(image, daemon)
    return image
  }

  /** For others to serve. */
  async withoutDaemon(request: ImageRequest): Promise<MountedImage> {
    const image = await this.#prepare(request, undefined)
    mkdirSync(image.record.Mountpoint, { recursive: true, mode: 0o755 })
    this.undaemoned.set(image.record.SnapshotID, image)
    return this.described(image, undefined)
  }

  described({ record, bootstrap }: DaemonImage, daemon: Nydusd | undefined): MountedImage {
    const { SnapshotID: key, Mountpoint: mountpoint } = record
    const config = daemon === undefined ? this.#ownConfig(key) : configPath(daemon.record, key)
    return { key, mountpoint, bootstrap, configPath: config, daemonId: daemon?.id ?? '' }
  }

  #ownConfig(key: string): string {
    return join(this.#parts.settings.root, 'config', `image-${key}`, 'config.json')
  }

  async #prepare(request: ImageRequest, daemon: Nydusd | undefined): Promise<DaemonImage> {
    const { settings, publicKey, prefetchLists, log } = this.#parts
    const signal = deadlineSignal(PREPARE_MS)
    const bootstrap = await readyBootstrap(request.directory, signal)
    if (publicKey !== undefined) await checkSignature(bootstrap, request.labels, publicKey)
    await copyBlobMetas(bootstrap, settings.cache.dir).catch((error: unknown) =>
      log.warn(`chunk tables of ${request.reference} are fetched, as they cannot be copied: ${messageOf(error)}`),
    )
    const key = imageKey(request.snapshot.id, request.idMapping)
    const config = daemon === undefined ? this.#ownConfig(key) : configPath(daemon.record, key)
    await writeImageConfig(config, request, this.#parts, signal)
    const prefetch = prefetchLists.take(request.reference)
    const image = {
      record: this.#record(key, request, daemon),
      bootstrap,
      prefetch,
      prefetchList: undefined,
      isMounted: false,
    }
    if (daemon === undefined || daemon.isShared || prefetch.length === 0) return image
    const prefetchList = join(daemon.record.ConfigDir, 'prefetch-files')
    await writePrivately(prefetchList, `${prefetch.join('\n')}\n`)
    return { ...image, prefetchList }
  }

  #record(
    key: string,
    { snapshot, directory, reference, idMapping }: ImageRequest,
    daemon: Nydusd | undefined,
  ): DaemonImage['record'] {
    const mountpoint =
      daemon === undefined
        ? join(directory, 'mnt')
        : daemon.isShared
          ? join(daemon.record.Mountpoint, sessionPath(daemon.record, key))
          : daemon.record.Mountpoint
    return {
      Seq: ++this.#lastNumber,
      ImageID: reference,
      DaemonID: daemon?.id ?? '',
      FsDriver: 'fusedev',
      SnapshotID: key,
      SnapshotDir: snapshotDirectory(this.#parts.settings.root, key),
      SourceSnapshotID: idMapping === undefined ? '' : String(snapshot.id),
      UnderlyingFiles: [],
      Mountpoint: mountpoint,
      Annotations: {},
    }
  }

  /** Notes which files of the cache an image uses, once its daemon tells. Nothing waits for this. */
  async #learnFiles(image: DaemonImage, daemon: Nydusd): Promise<void> {
    const { SnapshotID: key } = image.record
    try {
      const files = await toldFiles(daemon, key)
      if (files.length === 0 || daemon.images.get(key) !== image) return
      image.record = { ...image.record, UnderlyingFiles: files }
      this.#parts.instances.put(key, JSON.stringify(image.record))
    } catch (error) {
      this.#parts.log.debug(`nydusd ${daemon.id} does not tell the files of ${key}: ${messageOf(error)}`)
    }
  }
}
