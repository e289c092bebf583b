import { type Descriptor, type Digest, type ImageManifest, MEDIA_TYPES } from '../registry/index.ts'
import { ANNOTATIONS } from './annotations.ts'

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
  readonly source: { readonly manifest: ImageManifest; readonly digest: Digest; readonly reference: string; readonly mediaType: string }
  readonly blobs: readonly BlobLayer[]
  readonly bootstrap: BootstrapLayer
  readonly builderVersion: string
  /** OCI media types also for a Docker source. */
  readonly oci: boolean
  /** The manifest that this one is derived from, for the referrers API. */
  readonly subject: Descriptor | undefined
}

/**
 * The config of the Nydus image: everything of the source's is kept; `rootfs.diff_ids` becomes the blobs' digests and the bootstrap's diff id, and the
 * history gets one entry. Source: docs/formats/oci-image.md, "Config".
 */
export function nydusConfig(sourceConfig: Uint8Array, blobs: readonly BlobLayer[], bootstrap: BootstrapLayer): Uint8Array {
  const config = JSON.parse(Buffer.from(sourceConfig).toString('utf8')) as Record<string, unknown>
  const history = Array.isArray(config['history']) ? (config['history'] as unknown[]) : []
  return encode({
    ...config,
    rootfs: { type: 'layers', diff_ids: [...blobs.map(({ digest }) => digest), bootstrap.diffId] },
    history: [...history, { created_by: 'Nydus Converter', comment: 'Nydus Bootstrap Layer' }],
  })
}

/** The manifest, its members in the order in which the original tools write them. Source: docs/formats/oci-image.md, "Manifest". */
export function nydusManifest(parts: NydusParts, config: { readonly digest: Digest; readonly size: number }): { bytes: Uint8Array; mediaType: string } {
  const isOci = parts.oci || parts.source.mediaType === MEDIA_TYPES.ociManifest
  const layers = [
    ...parts.blobs.map(({ digest, size }) => ({ mediaType: MEDIA_TYPES.ociLayerNydusBlob, digest, size, annotations: { [ANNOTATIONS.blob]: 'true' } })),
    {
      mediaType: isOci ? MEDIA_TYPES.ociLayerGzip : MEDIA_TYPES.dockerLayerGzip,
      digest: parts.bootstrap.digest,
      size: parts.bootstrap.size,
      annotations: { [ANNOTATIONS.bootstrap]: 'true', [ANNOTATIONS.fsVersion]: '6' },
    },
  ]
  const annotations = {
    ...parts.source.manifest.annotations,
    [ANNOTATIONS.builderVersion]: parts.builderVersion,
    [ANNOTATIONS.fsVersion]: '6',
    [ANNOTATIONS.sourceDigest]: parts.source.digest,
    [ANNOTATIONS.sourceReference]: parts.source.reference,
  }
  const mediaType = isOci ? MEDIA_TYPES.ociManifest : MEDIA_TYPES.dockerManifest
  const bytes = encode({
    schemaVersion: 2,
    mediaType,
    config: { mediaType: isOci ? MEDIA_TYPES.ociConfig : MEDIA_TYPES.dockerConfig, digest: config.digest, size: config.size },
    layers,
    ...(parts.subject === undefined ? {} : { subject: { mediaType: parts.subject.mediaType, digest: parts.subject.digest, size: parts.subject.size } }),
    annotations: Object.fromEntries(Object.entries(annotations).sort(([a], [b]) => (a < b ? -1 : 1))),
  })
  return { bytes, mediaType }
}

function encode(value: unknown): Uint8Array {
  return Buffer.from(JSON.stringify(value), 'utf8')
}
