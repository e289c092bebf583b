import {
  type Descriptor,
  type Digest,
  hostPlatform,
  type ImageIndex,
  type ImageManifest,
  MEDIA_TYPES,
  type Platform,
  RegistryError,
  type Repository,
  samePlatform,
} from '../../registry/index.ts'
import { NYDUS_BOOTSTRAP } from '../labels.ts'
import { MAX_STORED_BYTES } from './bootstrap-layer.ts'

/** What manifests of Nydus images are known by, beside their bootstrap layer. Source: docs/formats/oci-image.md, "Merged indexes". */
const ARTIFACT_TYPE = 'application/vnd.nydus.image.manifest.v1+json'
const CONFIG_TYPE = 'application/vnd.nydus.image.config.v1+json'
const OS_FEATURE = 'nydus.remoteimage.v1'
const MANIFEST_TYPES: readonly string[] = [MEDIA_TYPES.ociManifest, MEDIA_TYPES.dockerManifest]
/** So many manifests that may be Nydus images are read: an index or a list of referrers may name thousands. */
const MOST_IN_INDEX = 4
const MOST_REFERRERS = 8
/** So many referrers are looked through. */
const MOST_LISTED = 10_000

/** The bootstrap layer of the Nydus image beside the image `digest` in the index under `ref` (a tag or digest); undefined when there is none. Throws RegistryError. */
export async function findInIndex(
  repository: Repository,
  ref: string,
  digest: Digest,
  signal: AbortSignal,
): Promise<Descriptor | undefined> {
  if (ref === digest) return undefined // pulled by the image's own digest: no index is known
  const { parsed } = await repository.manifest(ref, { signal })
  if (parsed.kind !== 'index') return undefined
  for (const entry of nydusEntries(parsed.index, digest)) {
    const layer = bootstrapLayer(await imageManifest(repository, entry, signal))
    if (layer !== undefined) return layer
  }
  return undefined
}

/** The same of the Nydus image that refers to `digest`. */
export async function findReferrer(
  repository: Repository,
  digest: Digest,
  signal: AbortSignal,
): Promise<Descriptor | undefined> {
  const listed = await repository.referrers(digest, { atMost: MOST_LISTED, signal })
  const images = listed.filter(({ mediaType }) => MANIFEST_TYPES.includes(mediaType))
  // Signatures and bills of material refer to images too: what says that it is Nydus comes first, then the order of the list.
  const candidates = images.toSorted((a, b) => Number(saysNydus(b)) - Number(saysNydus(a))).slice(0, MOST_REFERRERS)
  for (const entry of candidates) {
    const image = await imageManifest(repository, entry, signal)
    if (image?.subject !== undefined && image.subject.digest !== digest) continue
    const layer = bootstrapLayer(image)
    if (layer !== undefined) return layer
  }
  return undefined
}

/** Nydus manifests for the platform of the image `digest`. */
function nydusEntries(index: ImageIndex, digest: Digest): readonly Descriptor[] {
  const original = index.manifests.find((entry) => entry.digest === digest)
  if (original === undefined) return []
  const platform = original.platform ?? hostPlatform()
  return index.manifests
    .filter((entry) => entry.digest !== digest && saysNydus(entry) && isFor(entry, platform))
    .slice(0, MOST_IN_INDEX)
}

function saysNydus({ artifactType, platform }: Descriptor): boolean {
  return (
    artifactType === ARTIFACT_TYPE ||
    artifactType === CONFIG_TYPE ||
    platform?.['os.features']?.includes(OS_FEATURE) === true
  )
}

function isFor({ platform, mediaType }: Descriptor, wanted: Platform): boolean {
  if (!MANIFEST_TYPES.includes(mediaType)) return false
  return platform === undefined || platform === null || samePlatform(platform, wanted)
}

/** Undefined when the registry lists it and does not have it, or has something else: another one may do. */
async function imageManifest(
  repository: Repository,
  entry: Descriptor,
  signal: AbortSignal,
): Promise<ImageManifest | undefined> {
  try {
    const { parsed } = await repository.manifest(entry.digest, { signal })
    return parsed.kind === 'image' ? parsed.image : undefined
  } catch (error) {
    if (error instanceof RegistryError && (error.code === 'NOT_FOUND' || error.code === 'BAD_MANIFEST'))
      return undefined
    throw error
  }
}

/** The last layer, when it is one with a bootstrap that can be read. */
function bootstrapLayer(image: ImageManifest | undefined): Descriptor | undefined {
  const layer = image?.layers.at(-1)
  if (layer?.annotations === undefined || !Object.hasOwn(layer.annotations, NYDUS_BOOTSTRAP)) return undefined
  return layer.size > 0 && layer.size <= MAX_STORED_BYTES ? layer : undefined
}
