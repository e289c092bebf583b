import { existsSync } from 'node:fs'
import { readFile, open } from 'node:fs/promises'
import { join } from 'node:path'
import { superblockFields } from '../rafs/index.ts'
import { DetectedBootstraps } from './detected-bootstraps.ts'
import { SnapshotterError } from './errors.ts'
import { type IdMapping, parseIdMapping } from './id-mapping.ts'
import { imageBootstrap } from './layer-bootstraps.ts'
import { diskVolume, guestPullVolume, kataOption } from './kata-volume.ts'
import {
  CRI_IMAGE_REF,
  CRI_LAYER_DIGEST,
  NYDUS_IMAGE_BLOCK,
  NYDUS_LAYER_BLOCK,
  NYDUS_PROXY_MODE,
  OVERLAY_VOLATILE,
  SNAPSHOT_REF,
} from './labels.ts'
import {
  extraOption,
  filesOf,
  helperMount,
  imageOptions,
  type Mounted,
  nativeMounts,
  overlay,
  proxyOptions,
} from './mounts.ts'
import type { Tarfs } from './tarfs/index.ts'
import type { ReadyImage, SnapshotterParts } from './parts.ts'
import type { ImageRequest } from './daemons/index.ts'
import { type ContentRoute, isTopLayer, referenceOf, routeContent, type RouteOptions } from './route.ts'
import type { Mount, Snapshot } from './snapshot.ts'

type Layered = Exclude<ContentRoute, { kind: 'native' | 'proxy' }>

/** A snapshot that is mounted for something that begins now, or for one that may run already: a running container is never given its image in another way. */
type Occasion = 'start' | 'again'

interface Shown extends Mounted {
  /** Its number, where the kernel may show its image. */
  readonly user?: { readonly id: number; readonly occasion: Occasion }
}

/** Below a snapshot's own files: a mounted image or a directory in place of one, with the layers between. */
interface Lower {
  readonly path: string
  readonly above: readonly Snapshot[]
  readonly image: ReadyImage | undefined
  /** Options for virtual machines. */
  readonly volumes: readonly string[]
  /** Of ids, where nothing else maps them: containerd does it. */
  readonly mapping?: IdMapping | undefined
}

/** Superblocks of both versions end before this. */
const HEAD_BYTES = 8192
const V6 = 0x600

/** What snapshots show, made ready to be mounted. Prepare, View and Mounts ask the same, so they answer the same, also after a restart. */
export class Contents {
  readonly #parts: SnapshotterParts
  readonly #options: RouteOptions
  readonly #detectedBootstraps: DetectedBootstraps

  constructor(parts: SnapshotterParts, options: RouteOptions) {
    this.#parts = parts
    this.#options = options
    this.#detectedBootstraps = new DetectedBootstraps(parts)
  }

  /**
   * Mounts for an active snapshot or a view that stands on `chain`, nearest first. What they need is there when this resolves: an image is mounted, again if need be. Throws SnapshotterError, or the reason of
   * the signal.
   */
  async mounts(
    snapshot: Snapshot,
    chain: readonly Snapshot[],
    occasion: Occasion,
    signal: AbortSignal,
  ): Promise<readonly Mount[]> {
    const { settings, store } = this.#parts
    const of: Mounted = {
      kind: snapshot.kind === 'view' ? 'view' : 'active',
      directory: store.directory(snapshot),
      volatile: snapshot.labels.has(OVERLAY_VOLATILE) || settings.snapshot.volatile,
      mapping: parseIdMapping(snapshot.labels),
    }
    const native = (): readonly Mount[] => nativeMounts(of, this.#directories(chain))
    const route = routeContent(chain, this.#options)
    if (route.kind === 'native') return native()
    if (snapshot.labels.has(SNAPSHOT_REF)) return await this.#unpackMounts(of, route, native, signal)
    if (route.kind === 'proxy') return this.#proxyMounts(of, chain)
    if (route.kind === 'data') {
      if (of.kind === 'active') return native()
      throw new SnapshotterError(
        'FAILED_PRECONDITION',
        `${route.layer.key} holds data of a Nydus image, and only the topmost layer of one can be viewed`,
      )
    }
    const lower = await this.#lower(route, { ...of, user: { id: snapshot.id, occasion } }, signal)
    if (lower === undefined) return native()
    return await this.#imageMounts(of, lower)
  }

  /** Begins to mount an image whose bootstrap is there now, so that its first container need not wait. */
  async warm(layer: Snapshot, below: readonly Snapshot[], signal: AbortSignal): Promise<void> {
    const { store, images } = this.#parts
    const reference = referenceOf(layer, below)
    if (reference === '') return
    const request = { snapshot: layer, directory: store.directory(layer), reference, labels: layer.labels }
    this.#parts.kernelImages?.begin(request)
    await images.ensure(request, signal)
  }

  /** A layer that is unpacked upon an image takes owners and modes of directories from it. It needs no more: it is unpacked without it if the image cannot be mounted. */
  async #unpackMounts(
    of: Mounted,
    route: ContentRoute,
    native: () => readonly Mount[],
    signal: AbortSignal,
  ): Promise<readonly Mount[]> {
    if (route.kind !== 'rafs' || this.#parts.settings.daemonMode === 'none') return native()
    try {
      const { path, above } = await this.#rafs(route, of, signal)
      return [overlay(imageOptions(of, this.#directories(above), path, undefined))]
    } catch (error) {
      signal.throwIfAborted()
      this.#parts.log.warn(
        `a layer is unpacked without the image ${route.layer.key} that it stands on: ${String(error)}`,
      )
      return native()
    }
  }

  async #lower(route: Layered, of: Shown, signal: AbortSignal): Promise<Lower | undefined> {
    switch (route.kind) {
      case 'guest':
        return this.#guest(route)
      case 'rafs':
        return await this.#rafs(route, of, signal)
      case 'detected':
      case 'unknown':
        return await this.#detected(route, of, signal)
      case 'tarfs':
        return await this.#tarfs(route, of, signal)
      case 'stargz':
        return await this.#stargz(route, of, signal)
      case 'data':
        return undefined
      default:
        return route.kind satisfies never
    }
  }

  #guest({ layer, above }: Layered): Lower {
    const { store } = this.#parts
    const digest = layer.labels.get(CRI_LAYER_DIGEST)
    const metadata = new Map([
      [NYDUS_PROXY_MODE, 'true'],
      ...(digest === undefined ? [] : [[CRI_LAYER_DIGEST, digest] as const]),
    ])
    const volume = kataOption(guestPullVolume(layer.labels.get(CRI_IMAGE_REF), metadata))
    return { path: filesOf(store.directory(layer)), above, image: undefined, volumes: [volume] }
  }

  /** The kernel mounts it, from the tars of its layers. */
  async #tarfs({ layer, above, below }: Layered, of: Shown, signal: AbortSignal): Promise<Lower> {
    const { store, tarfs, settings } = this.#parts
    if (tarfs === undefined)
      throw new SnapshotterError(
        'FAILED_PRECONDITION',
        `the layer ${layer.key} runs from its tar, and that is switched off now; set experimental.tarfs.enable_tarfs, or remove the image and pull it again`,
      )
    const layers = [layer, ...below]
    const { mountpoint, labels } = await tarfs.open(layers, (one) => store.directory(one), signal)
    const paths = [...labels.keys()].map((key) => `labels.${key}`)
    const top = labels.size === 0 ? layer : store.update(layer.key, labels, paths)
    const volumes = settings.snapshot.kataVolume ? diskVolumes(tarfs, [top, ...below]) : []
    return {
      path: mountpoint ?? filesOf(store.directory(layer)),
      above,
      image: undefined,
      volumes,
      mapping: of.mapping,
    }
  }

  async #stargz(route: Layered, of: Shown, signal: AbortSignal): Promise<Lower> {
    const { store, stargz } = this.#parts
    const { layer, below } = route
    if (!existsSync(imageBootstrap(store.directory(layer)))) {
      if (stargz === undefined)
        throw new SnapshotterError(
          'FAILED_PRECONDITION',
          `${layer.key} is an eStargz layer, and these are switched off now; set experimental.enable_stargz, or remove the image and pull it again`,
        )
      await stargz.merge([layer, ...below], (one) => store.directory(one))
    }
    return await this.#rafs(route, of, signal)
  }

  async #rafs({ layer, above, below }: Layered, of: Shown, signal: AbortSignal): Promise<Lower> {
    const { store, images, settings } = this.#parts
    const directory = store.directory(layer)
    if (settings.daemon.fsDriver === 'nodev') return { path: filesOf(directory), above, image: undefined, volumes: [] }
    if (settings.daemon.fsDriver === 'blockdev')
      throw new SnapshotterError(
        'FAILED_PRECONDITION',
        `${layer.key} is a Nydus image, which fs_driver = "blockdev" does not run; use "fusedev"`,
      )
    const named = { snapshot: layer, directory, reference: referenceOf(layer, below), labels: layer.labels }
    const request = of.mapping === undefined ? named : { ...named, idMapping: of.mapping }
    const lent = await this.#lent(request, of, signal)
    if (lent !== undefined) return { path: lent, above, image: undefined, volumes: [] }
    const image = await images.ensure(request, signal)
    return { path: image.mountpoint, above, image, volumes: [] }
  }

  /** Where the kernel shows the image. */
  async #lent(request: ImageRequest, { user }: Shown, signal: AbortSignal): Promise<string | undefined> {
    const { kernelImages } = this.#parts
    if (user === undefined || kernelImages === undefined) return undefined
    const { id, occasion } = user
    return occasion === 'start' ? await kernelImages.lend(request, id) : await kernelImages.lentTo(request, id, signal)
  }

  /** An image whose other form was found when it was pulled. Undefined: it has none. */
  async #detected(route: Layered, of: Shown, signal: AbortSignal): Promise<Lower | undefined> {
    const { layer } = route
    if (!(await this.#detectedBootstraps.ready({ kind: route.kind, layer }, signal))) return undefined
    if (!isTopLayer(layer))
      throw new SnapshotterError(
        'FAILED_PRECONDITION',
        `the layer ${layer.key} was not unpacked, since ${referenceOf(layer, []) || 'the image it was pulled for'} has a Nydus form, and that image has more layers; remove that image, and pull this one again`,
      )
    return await this.#rafs(route, of, signal)
  }

  #proxyMounts(of: Mounted, chain: readonly Snapshot[]): readonly Mount[] {
    const { settings, store } = this.#parts
    const options = proxyOptions(of, this.#directories(chain), join(store.root, 'snapshots'))
    return [
      helperMount(settings.snapshot.nydusOverlayfsPath, [
        ...options,
        kataOption(guestPullVolume(undefined, new Map())),
      ]),
    ]
  }

  async #imageMounts(of: Mounted, { path, above, image, volumes, mapping }: Lower): Promise<readonly Mount[]> {
    const { snapshot, daemonMode } = this.#parts.settings
    const options = imageOptions(of, this.#directories(above), path, mapping)
    const helper = snapshot.nydusOverlayfsPath
    if (snapshot.kataVolume)
      return [volumes.length === 0 ? overlay(options) : helperMount(helper, [...options, ...volumes])]
    if (image === undefined || !(snapshot.nydusOverlayfs || daemonMode === 'none')) return [overlay(options)]
    const { bootstrap, configPath } = image
    const config = await readFile(configPath, 'utf8')
    const version = await versionOf(bootstrap)
    return [helperMount(helper, [...options, extraOption({ bootstrap, config, directory: of.directory, version })])]
  }

  #directories(snapshots: readonly Snapshot[]): string[] {
    return snapshots.map((one) => this.#parts.store.directory(one))
  }
}

/** Of the image, or one for each layer, as they were exported; the nearest layer first. */
function diskVolumes(tarfs: Tarfs, layers: readonly Snapshot[]): string[] {
  const [top] = layers
  const image = top?.labels.get(NYDUS_IMAGE_BLOCK)
  if (top !== undefined && image !== undefined)
    return [kataOption(diskVolume('image', tarfs.diskOf('image', top), image))]
  if (top?.labels.has(NYDUS_LAYER_BLOCK) !== true) return []
  return layers.map((layer) =>
    kataOption(diskVolume('layer', tarfs.diskOf('layer', layer), layer.labels.get(NYDUS_LAYER_BLOCK) ?? '')),
  )
}

async function versionOf(bootstrap: string): Promise<'v5' | 'v6'> {
  const file = await open(bootstrap)
  try {
    const { bytesRead, buffer } = await file.read(Buffer.alloc(HEAD_BYTES), 0, HEAD_BYTES, 0)
    return superblockFields(buffer.subarray(0, bytesRead)).version >= V6 ? 'v6' : 'v5'
  } finally {
    await file.close()
  }
}
