/** Layers of Nydus images as manifests name them. Source: docs/formats/oci-image.md, "Layers". */
import { type Descriptor, type Digest, MEDIA_TYPES } from '../../src/registry/index.ts'

const ANNOTATION = 'containerd.io/snapshot/nydus-'

/** The layer with data; of a reference to an ordinary layer: with its metadata. */
export function nydusLayer(blob: { digest: Digest; size: number }, reference: Digest | undefined): Descriptor {
  const annotations: Record<string, string> = reference === undefined ? {} : { [`${ANNOTATION}ref`]: reference }
  return {
    mediaType: MEDIA_TYPES.ociLayerNydusBlob,
    ...blob,
    annotations: { [`${ANNOTATION}blob`]: 'true', ...annotations },
  }
}

export function bootstrapLayer({ digest, size }: { digest: Digest; size: number }): Descriptor {
  const annotations = { [`${ANNOTATION}bootstrap`]: 'true' }
  return { mediaType: MEDIA_TYPES.ociLayerGzip, digest, size, annotations }
}
