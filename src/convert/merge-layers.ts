import { mergeImages } from '../builder/index.ts'
import { openBootstrap } from '../rafs/index.ts'
import { digestHex, type Repository } from '../registry/index.ts'
import { packBootstrapLayer } from './bootstrap-layer.ts'
import { bringBlobs, type DictionaryImage } from './chunk-dictionary.ts'
import type { ConvertedLayer } from './layer.ts'
import type { BlobLayer, BootstrapLayer } from './nydus-image.ts'
import type { PushRetry } from './push-retry.ts'

export interface MergeRequest {
  readonly prefetchPaths: readonly string[]
  readonly dictionary: DictionaryImage | undefined
  readonly target: Repository
  readonly retry: PushRetry
  readonly signal: AbortSignal
}

/** An image's layers as one bootstrap. */
export interface MergedLayers {
  readonly bootstrap: BootstrapLayer & { readonly bytes: Uint8Array }
  /** All that the manifest names: the layers' own, also those without data, then the dictionary's that are used. */
  readonly blobs: readonly BlobLayer[]
}

/** Lays an image's layers over each other. Blobs of the dictionary that the result refers to are brought into the target's repository. */
export async function mergeLayers(layers: readonly ConvertedLayer[], request: MergeRequest): Promise<MergedLayers> {
  const { dictionary, prefetchPaths } = request
  const inputs = layers.map(({ digest, bootstrap }) => ({
    name: `layer ${digest}`,
    image: openBootstrap(bootstrap, { inlinedBlobId: digestHex(digest) }),
    blobId: undefined,
    blobSize: undefined,
    tocDigest: undefined,
    tocSize: undefined,
  }))
  const merged = mergeImages(inputs, {
    parent: undefined,
    dictionary: dictionary?.image,
    whiteoutSpec: 'oci',
    prefetchPaths,
  })
  const own = new Set(layers.map(({ digest }) => digestHex(digest)))
  const foreign = merged.blobs.filter(({ id }) => !own.has(id))
  const brought =
    dictionary === undefined ? [] : await bringBlobs(dictionary, foreign, request.target, request.retry, request.signal)
  return {
    bootstrap: await packBootstrapLayer(merged.bootstrap, layers),
    blobs: [...layers.map(({ digest, size }) => ({ digest, size })), ...brought],
  }
}
