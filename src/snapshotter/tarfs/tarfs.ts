import { existsSync, readdirSync, rmSync } from 'node:fs'
import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { unmount } from '../../kernel/index.ts'
import { openBootstrap } from '../../rafs/index.ts'
import { TurnsByKey } from '../daemons/turns.ts'
import { SnapshotterError } from '../errors.ts'
import { NYDUS_IMAGE_BLOCK, NYDUS_LAYER_BLOCK, NYDUS_TARFS } from '../labels.ts'
import { type ConvertedLayer, mergeLayerBootstraps, placeLayerBootstrap } from '../layer-bootstraps.ts'
import type { Settings } from '../settings/index.ts'
import type { Labels, Snapshot } from '../snapshot.ts'
import { type DiskKind, DiskExport } from './disk-export.ts'
import { isMounted, mountImage } from './image-mount.ts'
import { LayerConversions, type LayerConversionsParts } from './layer-conversions.ts'

export interface TarfsParts
  extends Omit<LayerConversionsParts, 'directory' | 'cacheDir' | 'concurrency' | 'hint' | 'signal'> {
  readonly settings: Pick<Settings, 'root' | 'cache' | 'tarfs' | 'cleanupOnClose'>
}

/** An image of converted layers. */
export interface TarfsImage {
  /** Where its files are; undefined: they are not mounted on this machine. */
  readonly mountpoint: string | undefined
  /** Labels that became known with it, for its top layer. */
  readonly labels: Labels
}

/**
 * Images that run from the tars of their layers: a layer is fetched and unpacked from its compression, and nothing else is done with its data; `nydus-image` writes an EROFS image of metadata over it, merges those of an image's
 * layers, and the kernel mounts the result with the tars as its devices. No daemon is needed. All that is known is on the disk, so that it outlives this process; mounts stay too, and are made again when they are lost.
 *
 * `<cache>/<hex>` are the tars, `<root>/tarfs/<hex>.boot` the layers' metadata, `snapshots/<id>/fs/image/image.boot` the image's, `snapshots/<id>/mnt` its mount.
 */
export class Tarfs {
  readonly #parts: TarfsParts
  readonly #directory: string
  readonly #conversions: LayerConversions
  readonly #disks: DiskExport
  readonly #turns = new TurnsByKey()
  readonly #lifetime = new AbortController()

  constructor(parts: TarfsParts) {
    const { root, cache, tarfs } = parts.settings
    this.#parts = parts
    this.#directory = join(root, 'tarfs')
    const places = { directory: this.#directory, cacheDir: cache.dir, signal: this.#lifetime.signal }
    this.#conversions = new LayerConversions({ ...parts, ...places, concurrency: tarfs.concurrency, hint: tarfs.hint })
    this.#disks = new DiskExport({ ...places, program: parts.program, mode: tarfs.exportMode })
  }

  /** The layer, when it was converted; undefined: it is not one that can be, by its labels or by the image's wish. Layers above it are begun too. Throws SnapshotterError. */
  async take(labels: Labels, signal: AbortSignal): Promise<ConvertedLayer | undefined> {
    const hex = await this.#conversions.take(labels, signal)
    if (hex === undefined) return undefined
    const bootstrap = this.#layer(hex)
    const verity = await this.#disks.export('layer', hex, bootstrap)
    return {
      labels: new Map([[NYDUS_TARFS, hex], ...(verity === undefined ? [] : ([[NYDUS_LAYER_BLOCK, verity]] as const))]),
      place: async (directory) => await placeLayerBootstrap(bootstrap, directory),
    }
  }

  /** The image of these layers, the top one first; `directoryOf` gives their directories. It is there when this resolves, mounted if that is configured. Throws SnapshotterError. */
  async open(
    layers: readonly Snapshot[],
    directoryOf: (snapshot: Snapshot) => string,
    signal: AbortSignal,
  ): Promise<TarfsImage> {
    const [top] = layers
    if (top === undefined) throw new SnapshotterError('INVALID_ARGUMENT', 'an image of no layers')
    return await this.#turns.take(String(top.id), async () => {
      signal.throwIfAborted()
      const directory = directoryOf(top)
      const { program } = this.#parts
      const bootstrap = await mergeLayerBootstraps({ program, layers, directoryOf, signal: this.#lifetime.signal })
      const verity = top.labels.has(NYDUS_IMAGE_BLOCK)
        ? undefined
        : await this.#disks.export('image', hexOf(top), bootstrap)
      const labels: Labels = verity === undefined ? new Map() : new Map([[NYDUS_IMAGE_BLOCK, verity]])
      if (!this.#parts.settings.tarfs.mountOnHost) return { mountpoint: undefined, labels }
      const mountpoint = join(directory, 'mnt')
      await this.#mount(bootstrap, mountpoint)
      return { mountpoint, labels }
    })
  }

  /** The disk of a layer, or of the image that it is the top of. */
  diskOf(kind: DiskKind, layer: Snapshot): string {
    return this.#disks.path(kind, hexOf(layer))
  }

  /** Unmounts what was mounted of a snapshot. */
  async release(directory: string): Promise<void> {
    const at = join(directory, 'mnt')
    if (await isMounted(at)) await unmount(at)
  }

  /** Digests, in hex, of layers that are being converted or were just now: no snapshot has them yet. */
  unclaimed(): Iterable<string> {
    return this.#conversions.recent()
  }

  /** Forgets metadata of layers that nobody has. */
  collect(wanted: ReadonlySet<string>): void {
    if (!existsSync(this.#directory)) return
    // At once: a layer that is taken in between would find metadata that goes.
    const recent = new Set(this.#conversions.recent())
    for (const name of readdirSync(this.#directory)) {
      const hex = name.split('.')[0] ?? ''
      if (!wanted.has(hex) && !recent.has(hex)) rmSync(join(this.#directory, name), { force: true })
    }
  }

  /** Ends conversions; mounts stay, unless the configuration has them end. `directories` are those of all snapshots. */
  async stop(directories: Iterable<string>): Promise<void> {
    this.#lifetime.abort(new SnapshotterError('UNAVAILABLE', 'the snapshotter stops'))
    await this.#conversions.settled()
    if (this.#parts.settings.cleanupOnClose) for (const directory of directories) await this.release(directory)
  }

  #layer(hex: string): string {
    return join(this.#directory, `${hex}.boot`)
  }

  async #mount(bootstrap: string, at: string): Promise<void> {
    if (await isMounted(at)) return
    const { blobs } = openBootstrap(await readFile(bootstrap))
    const tars = blobs.map(({ id }) => join(this.#parts.settings.cache.dir, id))
    const missing = tars.find((tar) => !existsSync(tar))
    if (missing !== undefined)
      throw new SnapshotterError(
        'NOT_FOUND',
        `${missing}, the tar of a layer, is gone; remove the image and pull it again`,
      )
    await mkdir(at, { recursive: true })
    await mountImage(bootstrap, at, tars)
  }
}

function hexOf({ key, labels }: Snapshot): string {
  const hex = labels.get(NYDUS_TARFS) ?? ''
  if (/^[0-9a-f]{64}$/.test(hex)) return hex
  throw new SnapshotterError(
    'FAILED_PRECONDITION',
    `the layer ${key}, below one that runs from its tar, was not converted; remove the image and pull it again`,
  )
}
