import {
  type Descriptor,
  type Digest,
  digestOf,
  type ImageManifest,
  MEDIA_TYPES,
  parseDigest,
  type Platform,
} from '../registry/index.ts'
import { ANNOTATIONS, NYDUS_ARTIFACT_TYPE } from './annotations.ts'
import { goJson } from './go-json.ts'
import { type Document, editedConfig } from './nydus-image.ts'
import type { OpenedImage } from './source-image.ts'

/** A gzip of an empty tar, the bytes that the original writes, and the digest of that tar. Source: docs/formats/oci-image.md, "Merged indexes". */
export const EMPTY_LAYER = Buffer.from('H4sIAAAAAAAA/2IYBaNgFIxYAAgAAP//Lq+17wAEAAA=', 'base64')
const EMPTY_LAYER_DIFF_ID = parseDigest('sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef')
const HISTORY = { created_by: 'Nydus Converter', comment: 'Nydus Empty Layer' }

/** A plain image as it stands in a merged index. */
export interface PlainTwin {
  readonly config: Document & { readonly digest: Digest }
  readonly manifest: Document
  readonly descriptor: Descriptor
}

/**
 * The plain image with an empty layer in front: node caches key layers by the chain below them, and a chain shared with the stock image could not be told from it.
 */
export function plainTwin(source: OpenedImage): PlainTwin {
  const { manifest, descriptor } = source
  const isOci = descriptor.mediaType === MEDIA_TYPES.ociManifest
  const configBytes = editedConfig(source.configBytes, 'indented', (diffIds, history) => ({
    diffIds: [EMPTY_LAYER_DIFF_ID, ...diffIds],
    history: [HISTORY, ...history],
  }))
  const config = {
    bytes: configBytes,
    digest: digestOf(configBytes),
    mediaType: isOci ? MEDIA_TYPES.ociConfig : MEDIA_TYPES.dockerConfig,
  }
  const provenance = { [ANNOTATIONS.sourceDigest]: descriptor.digest }
  const emptyLayer: Descriptor = {
    mediaType: isOci ? MEDIA_TYPES.ociLayerGzip : MEDIA_TYPES.dockerLayerGzip,
    digest: digestOf(EMPTY_LAYER),
    size: EMPTY_LAYER.length,
    annotations: { [ANNOTATIONS.emptyLayer]: 'true' },
  }
  const twin: ImageManifest = {
    ...manifest,
    config: { mediaType: config.mediaType, digest: config.digest, size: configBytes.length },
    layers: [emptyLayer, ...manifest.layers],
    annotations: { ...manifest.annotations, ...provenance },
  }
  const bytes = goJson('manifest', twin, 'indented')
  return {
    config,
    manifest: { bytes, mediaType: descriptor.mediaType },
    descriptor: {
      mediaType: descriptor.mediaType,
      digest: digestOf(bytes),
      size: bytes.length,
      annotations: { ...source.entry?.annotations, ...provenance },
      platform: platformOf(source),
    },
  }
}

/** A Nydus manifest as it stands in a merged index. */
export function nydusTwin(source: OpenedImage, { bytes, mediaType }: Document): Descriptor {
  return {
    mediaType,
    digest: digestOf(bytes),
    size: bytes.length,
    platform: platformOf(source),
    artifactType: NYDUS_ARTIFACT_TYPE,
  }
}

/** The index of plain images and their Nydus twins. */
export function mergedIndex(plain: readonly Descriptor[], nydus: readonly Descriptor[]): Document {
  return {
    bytes: goJson('index', { schemaVersion: 2, manifests: [...plain, ...nydus] }, 'indented'),
    mediaType: MEDIA_TYPES.ociIndex,
  }
}

/** What the source's index said, else what its config says. */
export function platformOf({ entry, config }: OpenedImage): Platform {
  return (
    entry?.platform ?? {
      architecture: config.architecture,
      os: config.os,
      ...(config.variant === undefined ? {} : { variant: config.variant }),
    }
  )
}
