/** What is done with a layer that a client wants to unpack, and what a snapshot shows. Decisions only: nothing is read, asked or started here. Source: docs/containerd-nydus-grpc.md, "Decisions". */
import { SnapshotterError } from './errors.ts'
import {
  CRI_IMAGE_LAYERS,
  CRI_IMAGE_REF,
  CRI_LAYER_DIGEST,
  CRI_MANIFEST_DIGEST,
  NYDUS_ALTERNATIVE,
  NYDUS_BLOB,
  NYDUS_BOOTSTRAP,
  NYDUS_INDEX_ALTERNATIVE,
  NYDUS_PROXY_MODE,
  NYDUS_TARFS,
  STARGZ,
  STARGZ_REFERENCE,
} from './labels.ts'
import type { Labels, Snapshot } from './snapshot.ts'

/** Which of the ways are configured. */
export interface RouteOptions {
  /** Images are pulled inside virtual machines: nothing is unpacked here. */
  readonly proxy: boolean
  /** A Nydus form of an image is looked for in its index, or among its referrers. */
  readonly detect: boolean
  readonly stargz: boolean
  readonly tarfs: boolean
}

/** Ways to have a layer's content without unpacking it that have to be tried. */
export type LayerProbe = 'detect' | 'stargz' | 'tarfs'

export type LayerRoute =
  /** The client unpacks it into the snapshot. */
  | { readonly kind: 'native' }
  /** Its content comes otherwise: it is committed at once, with these labels. */
  | { readonly kind: 'skip'; readonly labels: Labels }
  /** As `skip` if one of the ways takes it, in this order, else as `native`. */
  | { readonly kind: 'try'; readonly probes: readonly LayerProbe[] }

/** `labels` are those of the layer, which has `containerd.io/snapshot.ref`; `chain` what it stands on, nearest first. Throws SnapshotterError 'INVALID_ARGUMENT'. */
export function routeLayer(labels: Labels, chain: readonly Snapshot[], options: RouteOptions): LayerRoute {
  if (options.proxy) {
    if (!labels.has(CRI_LAYER_DIGEST))
      throw new SnapshotterError(
        'INVALID_ARGUMENT',
        `missing CRI reference annotation: the layer has no label ${CRI_LAYER_DIGEST}, which fs_driver = "proxy" needs; pull by CRI, with disable_snapshot_annotations = false`,
      )
    return { kind: 'skip', labels: new Map([...labels, [NYDUS_PROXY_MODE, 'true']]) }
  }
  if (labels.has(NYDUS_BOOTSTRAP)) return { kind: 'native' }
  if (labels.has(NYDUS_BLOB)) return { kind: 'skip', labels }
  const known = detectedBelow(labels, chain[0])
  if (known.length > 0) return { kind: 'skip', labels: new Map([...labels, ...known]) }
  // A layer on a mounted image is unpacked upon it, and one on unpacked layers upon these: only layers of one way can be shown together.
  const below = contentOf(chain)
  const isFree = below === 'none'
  const probes: LayerProbe[] = []
  if (options.detect && below !== 'rafs') probes.push('detect')
  if (options.stargz && (isFree || below === 'stargz')) probes.push('stargz')
  if (options.tarfs && (isFree || below === 'tarfs')) probes.push('tarfs')
  return probes.length === 0 ? { kind: 'native' } : { kind: 'try', probes }
}

/** A form that was found for a lower layer of the same image is this layer's too; without it that one could not be shown. */
function detectedBelow(labels: Labels, below: Snapshot | undefined): ReadonlyArray<readonly [string, string]> {
  const manifest = labels.get(CRI_MANIFEST_DIGEST)
  if (manifest === undefined || below?.labels.get(CRI_MANIFEST_DIGEST) !== manifest) return []
  return [...below.labels].filter(([key]) => key === NYDUS_ALTERNATIVE || key === NYDUS_INDEX_ALTERNATIVE)
}

function contentOf([nearest, ...deeper]: readonly Snapshot[]): 'none' | 'stargz' | 'tarfs' | 'rafs' | 'native' {
  if (nearest === undefined) return 'none'
  if (nearest.labels.has(STARGZ)) return 'stargz'
  if (nearest.labels.has(NYDUS_TARFS)) return 'tarfs'
  return [nearest, ...deeper].some(({ labels }) => labels.has(NYDUS_BOOTSTRAP)) ? 'rafs' : 'native'
}

/** What a snapshot shows below its own files. `above` are the layers between it and `layer`, nearest first: they lie on what `layer` gives. */
export type ContentRoute =
  /** The files of the layers that it stands on. */
  | { readonly kind: 'native' }
  /** Nothing that is here: the machine that runs the container brings it. */
  | { readonly kind: 'proxy' }
  | {
      /**
       * `guest`: pulled inside a virtual machine. `rafs`: the layer has the image's bootstrap. `detected`: the image has another form, whose bootstrap is fetched.
       * `stargz`, `tarfs`: the layer and those below it make one image. `unknown`: perhaps `detected`; earlier versions left no mark. `data`: the bootstrap lies in a layer above that is not there.
       */
      readonly kind: 'guest' | 'rafs' | 'detected' | 'stargz' | 'tarfs' | 'unknown' | 'data'
      readonly layer: Snapshot
      readonly above: readonly Snapshot[]
      /** What `layer` stands on, nearest first. */
      readonly below: readonly Snapshot[]
    }

/** `chain` is what the snapshot stands on, nearest first. Docker and clients that commit put layers of their own on an image, so the whole chain is walked. */
export function routeContent(chain: readonly Snapshot[], options: RouteOptions): ContentRoute {
  if (isForeign(chain[0]?.labels ?? new Map(), options)) return { kind: 'proxy' }
  for (const [i, layer] of chain.entries()) {
    const kind = kindOf(layer, options)
    if (kind !== undefined) return { kind, layer, above: chain.slice(0, i), below: chain.slice(i + 1) }
  }
  return { kind: 'native' }
}

/** Made by a snapshotter of the other way: with `proxy`, something that was unpacked elsewhere; without, something that only a virtual machine can pull. */
function isForeign(labels: Labels, options: RouteOptions): boolean {
  if (options.proxy && labels.has(CRI_IMAGE_REF)) return false
  return options.proxy !== labels.has(NYDUS_PROXY_MODE)
}

function kindOf(
  { key, labels }: Snapshot,
  options: RouteOptions,
): Exclude<ContentRoute['kind'], 'native' | 'proxy'> | undefined {
  if (labels.has(NYDUS_PROXY_MODE)) return 'guest'
  if (labels.has(NYDUS_BOOTSTRAP)) return 'rafs'
  if (labels.has(NYDUS_ALTERNATIVE) || labels.has(NYDUS_INDEX_ALTERNATIVE)) return 'detected'
  if (labels.has(STARGZ)) return 'stargz'
  if (labels.has(NYDUS_TARFS)) return 'tarfs'
  if (labels.has(NYDUS_BLOB)) return 'data'
  // Clients commit under names with their namespace; one with the bare digest was skipped by a snapshotter.
  if (options.detect && /^[a-z0-9]+:[0-9a-f]+$/.test(key) && labels.has(CRI_MANIFEST_DIGEST)) return 'unknown'
  return undefined
}

/**
 * Is the layer the last one of the image that it was pulled for? A detected image is known by the labels of a layer; one that several images share has the labels of the first of them, and that one's other
 * layers must not appear in containers of the others.
 */
export function isTopLayer({ labels }: Snapshot): boolean {
  return !(labels.get(CRI_IMAGE_LAYERS) ?? '').includes(',')
}

/** The image's name, as clients tell it; '' when none did. Layers below are asked too: a client may have committed the layer without labels. */
export function referenceOf(layer: Snapshot, below: readonly Snapshot[]): string {
  for (const { labels } of [layer, ...below]) {
    const found = labels.get(CRI_IMAGE_REF) ?? labels.get(STARGZ_REFERENCE)
    if (found !== undefined) return found
  }
  return ''
}
