/** Marks of layers that a build lost. Source: docs/containerd-nydus-grpc.md, "Decisions". */
import { open } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import {
  type Descriptor,
  type Digest,
  digestHex,
  digestOf,
  MEDIA_TYPES,
  parseDigest,
  parseManifest,
} from '../registry/index.ts'
import { Remembered } from './detect/remembered.ts'
import { CRI_LAYER_DIGEST, CRI_MANIFEST_DIGEST, NYDUS_BLOB, NYDUS_BOOTSTRAP, SNAPSHOT_REF } from './labels.ts'
import type { Labels, Snapshot } from './snapshot.ts'

/** Beside the snapshotter's root, where that is in its usual place. */
const CONTENT = 'io.containerd.content.v1.content/blobs'
/** Registries may refuse more. */
const MAX_MANIFEST_BYTES = 4 << 20
const MOST_MANIFESTS = 200
/** What a digest names does not change. */
const KNOWN_MS = 24 * 3_600_000

type Mark = typeof NYDUS_BLOB | typeof NYDUS_BOOTSTRAP

/**
 * BuildKit writes none of the annotations that its base image's layers had, so an image that is built on a Nydus image comes without the marks that tell layers with data from the one with the bootstrap. Their media type is
 * kept: it is read from the manifest, which containerd stored before it prepares a layer.
 */
export class LostAnnotations {
  readonly #content: string
  readonly #marks = new Remembered<ReadonlyMap<string, Mark>>(MOST_MANIFESTS)

  /** `root` is the snapshotter's. */
  constructor(root: string) {
    this.#content = join(dirname(root), CONTENT)
  }

  /** The labels of a layer, with the mark that it lost. As they are when it lost none, or that cannot be told. */
  async restored(labels: Labels): Promise<Labels> {
    const [layer, manifest] = [labels.get(CRI_LAYER_DIGEST), labels.get(CRI_MANIFEST_DIGEST)]
    if (layer === undefined || manifest === undefined || labels.has(NYDUS_BLOB) || labels.has(NYDUS_BOOTSTRAP))
      return labels
    const mark = (await this.#marksOf(manifest)).get(layer)
    return mark === undefined ? labels : new Map([...labels, [mark, 'true']])
  }

  async #marksOf(manifest: string): Promise<ReadonlyMap<string, Mark>> {
    const known = this.#marks.get(manifest)?.value
    if (known !== undefined) return known
    try {
      const marks = marksIn(await readManifest(this.#content, parseDigest(manifest)))
      this.#marks.set(manifest, marks, KNOWN_MS)
      return marks
    } catch {
      return new Map() // no store beside us, or nothing that is an image: the layer is what its labels say
    }
  }
}

/** The labels that a client commits a layer with, and the mark that was found when the layer was prepared: it is none of the client's. */
export function withFoundMark(labels: Labels, active: Snapshot | undefined): Labels {
  const isSame = active?.labels.has(NYDUS_BOOTSTRAP) && active.labels.get(SNAPSHOT_REF) === labels.get(SNAPSHOT_REF)
  return isSame && labels.has(SNAPSHOT_REF) ? new Map([...labels, [NYDUS_BOOTSTRAP, 'true']]) : labels
}

async function readManifest(content: string, digest: Digest): Promise<readonly Descriptor[]> {
  await using file = await open(join(content, 'sha256', digestHex(digest)))
  const { size } = await file.stat()
  if (size > MAX_MANIFEST_BYTES) return []
  const bytes = await file.readFile()
  if (digestOf(bytes) !== digest) throw new Error(`${digest} is not what it is called`)
  const parsed = parseManifest(bytes, '')
  return parsed.kind === 'image' ? parsed.image.layers : []
}

/** The bootstrap lies upon all layers with data. Source: docs/formats/oci-image.md, "Layers". */
function marksIn(layers: readonly Descriptor[]): ReadonlyMap<string, Mark> {
  const isData = ({ mediaType }: Descriptor): boolean => mediaType === MEDIA_TYPES.ociLayerNydusBlob
  const marks = new Map<string, Mark>(layers.filter(isData).map(({ digest }) => [digest, NYDUS_BLOB]))
  const bootstrap = layers[layers.findLastIndex(isData) + 1]
  if (marks.size > 0 && bootstrap !== undefined) marks.set(bootstrap.digest, NYDUS_BOOTSTRAP)
  return marks
}
