import {
  type Descriptor,
  formatPlatform,
  formatReference,
  type ImageConfig,
  type ImageManifest,
  parseImageConfig,
  type Platform,
  type Reference,
  referenceTarget,
  type Repository,
  samePlatform,
  selectPlatform,
} from '../registry/index.ts'
import { bootstrapLayer, saysNydus } from './annotations.ts'
import { ConvertError } from './errors.ts'

/** Image configs larger than this are refused: real ones are a few kilobytes. */
const CONFIG_LIMIT = 8 * 1024 * 1024

/** One image of one platform, its config fetched and compared with the manifest. */
export interface OpenedImage {
  readonly repository: Repository
  readonly reference: Reference
  readonly descriptor: Descriptor
  readonly manifest: ImageManifest
  readonly configBytes: Uint8Array
  readonly config: ImageConfig
  /** Undefined: a plain image. */
  readonly bootstrap: Descriptor | undefined
}

/** Which of an index's images is wanted. */
export interface ImageChoice {
  readonly platform: Platform
  /** Of a merged index: the Nydus image or the plain one; `either` takes the plain one first, as the original's check does. */
  readonly kind: 'plain' | 'nydus' | 'either'
}

/**
 * Resolves a reference to the image for a platform. Throws ConvertError 'NO_IMAGE' when there is none, 'BAD_SOURCE' when the config and
 * the layers do not fit each other; RegistryError for what the registry does.
 */
export async function openImage(repository: Repository, choice: ImageChoice, signal: AbortSignal): Promise<OpenedImage> {
  const { reference } = repository
  const top = await repository.manifest(referenceTarget(reference), { signal })
  if (top.parsed.kind === 'image') return await complete(repository, top.descriptor, top.parsed.image, signal)
  for (const kind of choice.kind === 'either' ? (['plain', 'nydus'] as const) : [choice.kind]) {
    const entry = chooseEntry(top.parsed.index.manifests, choice.platform, kind)
    if (entry === undefined) continue
    const chosen = await repository.manifest(entry.digest, { signal })
    if (chosen.parsed.kind === 'image') return await complete(repository, chosen.descriptor, chosen.parsed.image, signal)
  }
  const offered = top.parsed.index.manifests.flatMap(({ platform }) => (platform ? [formatPlatform(platform)] : []))
  throw new ConvertError(
    'NO_IMAGE',
    `${formatReference(reference)} has no ${choice.kind === 'nydus' ? 'Nydus ' : ''}image for ${formatPlatform(choice.platform)}; it offers: ${offered.join(', ') || 'nothing'}; choose one with --platform`,
  )
}

function chooseEntry(entries: readonly Descriptor[], platform: Platform, kind: 'plain' | 'nydus'): Descriptor | undefined {
  const ofKind = entries.filter((entry) => saysNydus(entry) === (kind === 'nydus'))
  if (kind === 'plain') return selectPlatform({ schemaVersion: 2, manifests: ofKind }, platform)
  const withoutFeatures = (entry: Descriptor): Platform | undefined => entry.platform && { ...entry.platform, 'os.features': [] }
  return ofKind.find((entry) => {
    const offered = withoutFeatures(entry)
    return offered !== undefined && samePlatform(offered, platform)
  })
}

async function complete(repository: Repository, descriptor: Descriptor, manifest: ImageManifest, signal: AbortSignal): Promise<OpenedImage> {
  const name = formatReference(repository.reference)
  const configBytes = await repository.blob(manifest.config.digest, CONFIG_LIMIT, { signal })
  const config = parseImageConfig(configBytes)
  if (config.rootfs.diff_ids.length !== manifest.layers.length) {
    throw new ConvertError(
      'BAD_SOURCE',
      `${name}: its config names ${config.rootfs.diff_ids.length} layers (rootfs.diff_ids), its manifest has ${manifest.layers.length}; build and push it again`,
    )
  }
  return { repository, reference: repository.reference, descriptor, manifest, configBytes, config, bootstrap: bootstrapLayer(manifest) }
}
