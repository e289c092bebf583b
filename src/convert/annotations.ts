import type { Descriptor, ImageManifest } from '../registry/index.ts'

const PREFIX = 'containerd.io/snapshot/'

/** Annotation keys of Nydus images. Source: docs/formats/oci-image.md, "Annotations". */
export const ANNOTATIONS = {
  blob: `${PREFIX}nydus-blob`,
  bootstrap: `${PREFIX}nydus-bootstrap`,
  fsVersion: `${PREFIX}nydus-fs-version`,
  reference: `${PREFIX}nydus-ref`,
  sourceDigest: `${PREFIX}nydus-source-digest`,
  sourceReference: `${PREFIX}nydus-source-reference`,
  builderVersion: `${PREFIX}nydus-builder-version`,
  emptyLayer: `${PREFIX}nydus-empty-layer`,
  cacheVersion: `${PREFIX}nydus-cache-version`,
  /** The diff id; only in cache images. */
  uncompressed: 'containerd.io/uncompressed',
} as const

/** `artifactType` of a Nydus manifest in an index that also holds the plain one. */
export const NYDUS_ARTIFACT_TYPE = 'application/vnd.nydus.image.manifest.v1+json'
/** Config of a Nydus manifest in such an index: clients that know nothing of Nydus pass over what they do not know. */
export const NYDUS_CONFIG_TYPE = 'application/vnd.nydus.image.config.v1+json'
/** Mark of Nydus entries in indexes of nydusify before 2.3.5. */
const LEGACY_OS_FEATURE = 'nydus.remoteimage.v1'

/** The layer that holds the bootstrap: the last one, by its annotation. Undefined when the image is not a Nydus image. */
export function bootstrapLayer(image: ImageManifest): Descriptor | undefined {
  const last = image.layers.at(-1)
  return last?.annotations?.[ANNOTATIONS.bootstrap] === 'true' ? last : undefined
}

/** True for an index entry that says it is a Nydus manifest, in either form. */
export function saysNydus(entry: Descriptor): boolean {
  return (
    entry.artifactType === NYDUS_ARTIFACT_TYPE || entry.platform?.['os.features']?.includes(LEGACY_OS_FEATURE) === true
  )
}
