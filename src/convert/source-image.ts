import {
  type Descriptor,
  formatPlatform,
  formatReference,
  type ImageConfig,
  type ImageIndex,
  type ImageManifest,
  type Manifest,
  parseImageConfig,
  type Platform,
  referenceTarget,
  type Repository,
  samePlatform,
} from '../registry/index.ts'
import { bootstrapLayer, saysNydus } from './annotations.ts'
import { ConvertError } from './errors.ts'

/** Image configs larger than this are refused: real ones are a few kilobytes. */
const CONFIG_LIMIT = 8 * 1024 * 1024

/** One image of one platform with its config. */
export interface OpenedImage {
  readonly repository: Repository
  readonly descriptor: Descriptor
  /** As the index has it; undefined when the reference names the manifest itself. */
  readonly entry: Descriptor | undefined
  readonly manifest: ImageManifest
  readonly configBytes: Uint8Array
  readonly config: ImageConfig
  /** The layer with the bootstrap; undefined for a plain image. */
  readonly bootstrap: Descriptor | undefined
}

/** An index as it stands in the registry. */
export interface OpenedIndex {
  readonly descriptor: Descriptor
  readonly index: ImageIndex
}

/** What a reference stands for on one platform. */
export interface ImagePair {
  readonly index: OpenedIndex | undefined
  readonly plain: OpenedImage | undefined
  readonly nydus: OpenedImage | undefined
}

/** The images to convert. */
export interface SourceImages {
  readonly index: OpenedIndex | undefined
  /** In the index's order; at least one. */
  readonly images: readonly OpenedImage[]
}

/**
 * Finds the plain and the Nydus image of a platform. A reference that names a manifest itself is taken whatever its platform. Throws 'NO_IMAGE' when there is neither; RegistryError.
 */
export async function openPair(repository: Repository, platform: Platform, signal: AbortSignal): Promise<ImagePair> {
  const top = await repository.manifest(referenceTarget(repository.reference), { signal })
  if (top.parsed.kind === 'image') {
    const image = await complete(repository, top, undefined, signal)
    return { index: undefined, plain: image.bootstrap ? undefined : image, nydus: image.bootstrap && image }
  }
  const { index } = top.parsed
  let plain: OpenedImage | undefined
  let nydus: OpenedImage | undefined
  for (const entry of index.manifests) {
    if (!isFor(entry, platform, index)) continue
    const manifest = await repository.manifest(entry.digest, { signal })
    if (manifest.parsed.kind !== 'image') continue
    const image = await complete(repository, manifest, entry, signal)
    if (image.bootstrap === undefined) plain ??= image
    else nydus ??= image
  }
  if (plain === undefined && nydus === undefined) throw noImage(repository, index, platform)
  return { index: { descriptor: top.descriptor, index }, plain, nydus }
}

/**
 * Finds the plain images to convert: those of the platforms, or all. Throws 'NO_IMAGE' when a platform is missing, 'ALREADY_NYDUS', 'BAD_IMAGE' when layers
 * and diff ids do not fit each other; RegistryError.
 */
export async function openSources(
  repository: Repository,
  platforms: readonly Platform[] | 'all',
  signal: AbortSignal,
): Promise<SourceImages> {
  const top = await repository.manifest(referenceTarget(repository.reference), { signal })
  if (top.parsed.kind === 'image')
    return { index: undefined, images: [convertible(await complete(repository, top, undefined, signal))] }
  const { index } = top.parsed
  const images: OpenedImage[] = []
  for (const entry of chooseEntries(repository, index, platforms)) {
    const manifest = await repository.manifest(entry.digest, { signal })
    if (manifest.parsed.kind === 'image') images.push(convertible(await complete(repository, manifest, entry, signal)))
  }
  if (images.length === 0)
    throw new ConvertError(
      'NO_IMAGE',
      `${formatReference(repository.reference)} has no image that could be converted; it offers: ${offered(index)}`,
    )
  return { index: { descriptor: top.descriptor, index }, images }
}

function chooseEntries(
  repository: Repository,
  index: ImageIndex,
  platforms: readonly Platform[] | 'all',
): readonly Descriptor[] {
  const plain = index.manifests.filter((entry) => !saysNydus(entry) && !isAttestation(entry))
  if (platforms === 'all') return plain
  const chosen = new Set<Descriptor>()
  for (const platform of platforms) {
    const entry = plain.find((candidate) => isFor(candidate, platform, { ...index, manifests: plain }))
    if (entry === undefined) throw noImage(repository, index, platform)
    chosen.add(entry)
  }
  return plain.filter((entry) => chosen.has(entry))
}

/** BuildKit's signatures and bills of materials stand in the index as images of an unknown platform. */
function isAttestation({ platform, annotations }: Descriptor): boolean {
  return platform?.os === 'unknown' || annotations?.['vnd.docker.reference.type'] === 'attestation-manifest'
}

function isFor({ platform }: Descriptor, wanted: Platform, index: ImageIndex): boolean {
  if (platform === undefined) return index.manifests.length === 1
  return samePlatform({ ...platform, 'os.features': [] }, wanted)
}

function noImage({ reference }: Repository, index: ImageIndex, platform: Platform): ConvertError {
  return new ConvertError(
    'NO_IMAGE',
    `${formatReference(reference)} has no image for ${formatPlatform(platform)}; it offers: ${offered(index)}; choose with --platform`,
  )
}

function offered(index: ImageIndex): string {
  const platforms = index.manifests.flatMap((entry) =>
    entry.platform === undefined || isAttestation(entry) ? [] : [formatPlatform(entry.platform)],
  )
  return [...new Set(platforms)].slice(0, 20).join(', ') || 'nothing'
}

async function complete(
  repository: Repository,
  { descriptor, parsed }: Manifest,
  entry: Descriptor | undefined,
  signal: AbortSignal,
): Promise<OpenedImage> {
  if (parsed.kind !== 'image')
    throw new ConvertError(
      'NO_IMAGE',
      `${descriptor.digest} is an index within an index; name the inner one by its digest`,
    )
  const { image: manifest } = parsed
  const configBytes = await repository.blob(manifest.config.digest, CONFIG_LIMIT, { signal })
  return {
    repository,
    descriptor,
    entry,
    manifest,
    configBytes,
    config: parseImageConfig(configBytes),
    bootstrap: bootstrapLayer(manifest),
  }
}

function convertible(image: OpenedImage): OpenedImage {
  const { repository, config, manifest, bootstrap } = image
  const name = formatReference(repository.reference)
  if (bootstrap !== undefined)
    throw new ConvertError('ALREADY_NYDUS', `${name} is a Nydus image already; there is nothing to convert`)
  if (config.rootfs.diff_ids.length === manifest.layers.length) return image
  throw new ConvertError(
    'BAD_IMAGE',
    `unmatched layers between manifest and config of ${name}: ${manifest.layers.length} != ${config.rootfs.diff_ids.length} (rootfs.diff_ids); build the image and push it again`,
  )
}
