import { createReadStream } from 'node:fs'
import { open, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { buildLayer, type LayerOptions } from '../builder/index.ts'
import { type Descriptor, digestHex, MEDIA_TYPES, type Repository, RunningDigest } from '../registry/index.ts'
import { ConvertError } from './errors.ts'
import type { BlobLayer } from './nydus-image.ts'

/** Layers that can be read: media types of OCI and Docker tars, in any compression. */
const LAYER_TYPES: ReadonlySet<string> = new Set([
  MEDIA_TYPES.ociLayer,
  MEDIA_TYPES.ociLayerGzip,
  MEDIA_TYPES.ociLayerZstd,
  MEDIA_TYPES.ociLayerNondistributable,
  MEDIA_TYPES.ociLayerNondistributableGzip,
  MEDIA_TYPES.dockerLayer,
  MEDIA_TYPES.dockerLayerGzip,
  MEDIA_TYPES.dockerLayerZstd,
  MEDIA_TYPES.dockerForeignLayerGzip,
])

/** A layer after its conversion and upload. */
export interface ConvertedLayer extends BlobLayer {
  /** The layer's own bootstrap, to be merged. */
  readonly bootstrap: Uint8Array
  /** Compression context in cache-file form; undefined when the layer has no file data. */
  readonly blobMeta: Uint8Array | undefined
  readonly outcome: 'uploaded' | 'existed' | 'mounted'
}

/** Where a layer comes from, where it goes, and where its blob may lie meanwhile. */
export interface LayerTask {
  readonly layer: Descriptor
  readonly source: Repository
  readonly target: Repository
  readonly workDirectory: string
  readonly options: LayerOptions
  readonly signal: AbortSignal
  readonly onRead: (bytes: number) => void
}

/**
 * Streams a layer from the source through the builder into a blob file (an upload needs its digest first, and its bytes again when it is retried),
 * and uploads that unless the target has it. The layer itself is never stored. The file is gone afterwards, whatever happens.
 */
export async function convertLayer(task: LayerTask): Promise<ConvertedLayer> {
  const { layer, signal } = task
  if (!LAYER_TYPES.has(layer.mediaType)) {
    throw new ConvertError('BAD_SOURCE', `cannot convert layer ${layer.digest}: its media type is ${layer.mediaType}, not a tar`)
  }
  const path = join(task.workDirectory, `${digestHex(layer.digest)}.blob`)
  const file = await open(path, 'w', 0o600)
  try {
    const running = new RunningDigest()
    const built = await buildLayer(counted(task.source.blobStream(layer.digest, { size: layer.size, signal }), task.onRead), {
      ...task.options,
      signal,
      sink: async (bytes) => {
        running.update(bytes)
        await file.writeFile(bytes)
      },
    })
    const digest = running.digest()
    const { size } = running
    const { outcome } = await task.target.uploadBlob({ digest, size, open: () => createReadStream(path) }, { signal })
    return { digest, size, bootstrap: built.bootstrap, blobMeta: built.blobMeta, outcome }
  } finally {
    await file.close()
    await rm(path, { force: true })
  }
}

async function* counted(stream: AsyncIterable<Uint8Array>, onRead: (bytes: number) => void): AsyncGenerator<Uint8Array> {
  for await (const bytes of stream) {
    onRead(bytes.length)
    yield bytes
  }
}
