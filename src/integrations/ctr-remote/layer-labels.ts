import type { Descriptor, Digest } from '../../registry/index.ts'

const PREFIX = 'containerd.io/snapshot/'
/** The chain id that a layer's snapshot shall be found by. */
const SNAPSHOT_REF = 'containerd.io/snapshot.ref'
/** containerd's bound of a label's key and value together, bytes. */
const MAX_LABEL = 4096
/** What stargz-snapshotter's own client asks to be fetched at once: 10 MiB. */
const STARGZ_PREFETCH_BYTES = 10 * 1024 * 1024

/** Whose labels say which image a layer belongs to: those of containerd's own clients, or those of stargz-snapshotter's. */
export type LabelStyle = 'containerd' | 'stargz'

/** What a layer's labels are made of. */
export interface LayerPlace {
  /** The image, as it was named. */
  readonly reference: string
  readonly manifest: Digest
  readonly layers: readonly Descriptor[]
  readonly index: number
  readonly chainId: string
  readonly style: LabelStyle
  /** stargz-snapshotter is to trust the layer. */
  readonly skipsVerification: boolean
}

/** The labels that a snapshotter gets with a layer: those that its builder wrote as annotations, the chain id, and which image it is part of. */
export function layerLabels(place: LayerPlace): Record<string, string> {
  const { layers, index, chainId } = place
  const inherited = Object.entries(layers[index]?.annotations ?? {}).filter(([key]) => key.startsWith(PREFIX))
  const labels = place.style === 'stargz' ? stargzLabels(place) : criLabels(place)
  const trust: Record<string, string> = place.skipsVerification ? { [`${PREFIX}remote/stargz.skipverify`]: 'true' } : {}
  return { ...Object.fromEntries(inherited), ...labels, ...trust, [SNAPSHOT_REF]: chainId }
}

function criLabels({ reference, manifest, layers, index }: LayerPlace): Record<string, string> {
  const key = `${PREFIX}cri.image-layers`
  return {
    [`${PREFIX}cri.image-ref`]: reference,
    [`${PREFIX}cri.layer-digest`]: layers[index]?.digest ?? '',
    [key]: fitting(
      key,
      layers.slice(index).map(({ digest }) => digest),
    ),
    [`${PREFIX}cri.manifest-digest`]: manifest,
  }
}

function stargzLabels({ reference, layers, index }: LayerPlace): Record<string, string> {
  const key = `${PREFIX}remote/stargz.layers`
  const from = layers.slice(index)
  const urls = from.map(({ urls: of = [] }, at) => {
    const name = `${PREFIX}remote/urls.${at}`
    return [name, fitting(name, of)] as const
  })
  return {
    ...Object.fromEntries(urls.filter(([, value]) => value !== '')),
    [`${PREFIX}remote/stargz.reference`]: reference,
    [`${PREFIX}remote/stargz.digest`]: layers[index]?.digest ?? '',
    [key]: fitting(
      key,
      from.map(({ digest }) => digest),
    ),
    [`${PREFIX}remote/stargz.prefetch`]: `${STARGZ_PREFETCH_BYTES}`,
  }
}

/** As many of these as fit into a label. */
function fitting(key: string, items: readonly string[]): string {
  let value = ''
  for (const item of items) {
    const longer = value === '' ? item : `${value},${item}`
    if (key.length + Buffer.byteLength(longer) > MAX_LABEL) break
    value = longer
  }
  return value
}
