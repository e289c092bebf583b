import { type Descriptor, type Digest, type ImageManifest, MEDIA_TYPES } from '../registry/index.ts'
import { ANNOTATIONS, NYDUS_CONFIG_TYPE } from './annotations.ts'
import { goJson } from './go-json.ts'

/** A converted layer as the manifest names it. */
export interface BlobLayer {
  readonly digest: Digest
  readonly size: number
}

/** The bootstrap layer: a gzip of a tar, and the digest of that tar. */
export interface BootstrapLayer extends BlobLayer {
  readonly diffId: Digest
}

/** All that a Nydus manifest is made of. */
export interface NydusParts {
  readonly source: { readonly manifest: ImageManifest; readonly descriptor: Descriptor; readonly reference: string }
  readonly blobs: readonly BlobLayer[]
  readonly bootstrap: BootstrapLayer
  readonly builderVersion: string
  /** OCI media types also for a Docker source. */
  readonly toOci: boolean
  /** Says that it is derived from the source manifest, for the referrers API. */
  readonly withReferrer: boolean
  /** It will stand beside the plain image in one index. */
  readonly isMerged: boolean
}

/** A document to be pushed. */
export interface Document {
  readonly bytes: Uint8Array
  readonly mediaType: string
}

const HISTORY = { created_by: 'Nydus Converter', comment: 'Nydus Bootstrap Layer' }

/**
 * The config of the Nydus image: everything of the source's is kept; `rootfs.diff_ids` becomes the blobs' digests and the bootstrap's diff id, and the
 * history gets one entry. Source: docs/formats/oci-image.md, "Config".
 */
export function nydusConfig(
  sourceConfig: Uint8Array,
  blobs: readonly BlobLayer[],
  bootstrap: BootstrapLayer,
): Uint8Array {
  return editedConfig(sourceConfig, 'compact', (_, history) => ({
    diffIds: [...blobs.map(({ digest }) => digest), bootstrap.diffId],
    history: [...history, HISTORY],
  }))
}

/** The config of an image whose only layer is the bootstrap. */
export function bootstrapConfig(sourceConfig: Uint8Array, bootstrap: BootstrapLayer): Uint8Array {
  return editedConfig(sourceConfig, 'compact', () => ({ diffIds: [bootstrap.diffId], history: [HISTORY] }))
}

/** A config with other diff ids and another history. */
export function editedConfig(
  config: Uint8Array,
  layout: 'compact' | 'indented',
  edit: (
    diffIds: readonly unknown[],
    history: readonly unknown[],
  ) => { readonly diffIds: readonly unknown[]; readonly history: readonly unknown[] },
): Uint8Array {
  // The document was parsed and checked when it was fetched.
  const parsed = JSON.parse(Buffer.from(config).toString('utf8')) as {
    rootfs?: { diff_ids?: unknown[] | null }
    history?: unknown[] | null
  }
  const { diffIds, history } = edit(parsed.rootfs?.diff_ids ?? [], parsed.history ?? [])
  return goJson('config', { ...parsed, rootfs: { type: 'layers', diff_ids: diffIds }, history }, layout)
}

/** The manifest, its members in the order in which the original tools write them. Source: docs/formats/oci-image.md, "Manifest". */
export function nydusManifest(parts: NydusParts, config: BlobLayer): Document {
  const { manifest: source, descriptor, reference } = parts.source
  const isOci = parts.toOci || descriptor.mediaType === MEDIA_TYPES.ociManifest
  const configType = isOci ? MEDIA_TYPES.ociConfig : MEDIA_TYPES.dockerConfig
  const subject = { mediaType: descriptor.mediaType, digest: descriptor.digest, size: descriptor.size }
  const mediaType = isOci ? MEDIA_TYPES.ociManifest : MEDIA_TYPES.dockerManifest
  const manifest = {
    ...source,
    mediaType,
    config: { mediaType: parts.isMerged ? NYDUS_CONFIG_TYPE : configType, digest: config.digest, size: config.size },
    layers: [...parts.blobs.map(blobDescriptor), bootstrapDescriptor(parts.bootstrap, isOci)],
    ...(parts.withReferrer ? { subject } : {}),
    annotations: {
      ...source.annotations,
      [ANNOTATIONS.builderVersion]: parts.builderVersion,
      [ANNOTATIONS.fsVersion]: '6',
      [ANNOTATIONS.sourceDigest]: descriptor.digest,
      [ANNOTATIONS.sourceReference]: reference,
    },
  }
  return { bytes: goJson('manifest', manifest, 'indented'), mediaType }
}

function blobDescriptor({ digest, size }: BlobLayer): Descriptor {
  return { mediaType: MEDIA_TYPES.ociLayerNydusBlob, digest, size, annotations: { [ANNOTATIONS.blob]: 'true' } }
}

function bootstrapDescriptor({ digest, size }: BootstrapLayer, isOci: boolean): Descriptor {
  return {
    mediaType: isOci ? MEDIA_TYPES.ociLayerGzip : MEDIA_TYPES.dockerLayerGzip,
    digest,
    size,
    annotations: { [ANNOTATIONS.bootstrap]: 'true', [ANNOTATIONS.fsVersion]: '6' },
  }
}
