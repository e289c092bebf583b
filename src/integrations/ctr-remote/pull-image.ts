import {
  type Descriptor,
  formatPlatform,
  formatReference,
  hostPlatform,
  type Manifest,
  parseImageConfig,
  referenceTarget,
  selectPlatform,
} from '../../registry/index.ts'
import { IntegrationError } from '../errors.ts'
import { ContentStore } from './content-store.ts'
import { ContentFetcher } from './fetch-content.ts'
import { putImage } from './image-records.ts'
import type { ImageSource } from './image-source.ts'
import type { LabelStyle } from './layer-labels.ts'
import type { Session } from './session.ts'
import { unpack } from './unpack.ts'

/** An image to be made ready for containers of a containerd. */
export interface PullRequest {
  readonly source: ImageSource
  readonly snapshotter: string
  readonly style: LabelStyle
  readonly skipsVerification: boolean
  /** Of the image's record. */
  readonly labels: Readonly<Record<string, string>>
  /** Told before each manifest, config and layer. */
  readonly onFetch: (descriptor: Descriptor) => void
}

const CONFIG_LIMIT = 8 * 1024 * 1024
/** Indexes within indexes; real ones have one. */
const MAX_DEPTH = 4

/**
 * Pulls an image for this machine's platform and makes snapshots of its layers; those that the snapshotter has by other means are not downloaded. The image's record is made last, so that a
 * pull that fails leaves nothing that is used. Throws RegistryError, ContainerdError, IntegrationError or the signal's reason.
 */
export async function pullImage(session: Session, request: PullRequest): Promise<void> {
  const { source, snapshotter, style, skipsVerification } = request
  const { signal } = session
  const content = new ContentStore(session)
  const fetcher = new ContentFetcher(source, content, request.onFetch)
  const top = await source.manifest(referenceTarget(source.reference), { signal })
  const found = await platformManifest(source, top, fetcher, signal)
  if (found.parsed.kind !== 'image') throw new Error('an index was taken for an image') // platformManifest gives images only
  const { config: configDescriptor, layers } = found.parsed.image
  await fetcher.blob(configDescriptor, signal)
  const reference = formatReference(source.reference)
  await unpack(session, content, {
    snapshotter,
    reference,
    manifest: found.descriptor.digest,
    layers,
    config: parseImageConfig(await content.read(configDescriptor.digest, CONFIG_LIMIT)),
    configDigest: configDescriptor.digest,
    style,
    skipsVerification,
    fetch: (layer, under) => fetcher.blob(layer, under),
  })
  await putImage(session, { name: reference, target: top.descriptor, labels: request.labels })
}

/** Goes down to the manifest for this machine; all on the way is put into the store. */
async function platformManifest(
  source: ImageSource,
  top: Manifest,
  fetcher: ContentFetcher,
  signal: AbortSignal,
): Promise<Manifest> {
  let at = top
  for (let depth = 0; depth < MAX_DEPTH; depth += 1) {
    await fetcher.manifest(at, signal)
    if (at.parsed.kind === 'image') return at
    const entry = selectPlatform(at.parsed.index, hostPlatform())
    if (entry === undefined)
      throw new IntegrationError(
        'NOT_FOUND',
        `no match for platform in manifest: ${formatReference(source.reference)} has no image for ${formatPlatform(hostPlatform())}`,
      )
    at = await source.manifest(entry.digest, { signal })
  }
  throw new IntegrationError(
    'BAD_IMAGE',
    `${formatReference(source.reference)} is an index of indexes of indexes; name an image in it by its digest`,
  )
}
