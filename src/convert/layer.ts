import { createReadStream } from 'node:fs'
import { type FileHandle, open, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { buildLayer, type LayerOptions, Losses } from '../builder/index.ts'
import { digestHex, MEDIA_TYPES, type Repository, RunningDigest, type UploadResult } from '../registry/index.ts'
import { ConvertError } from './errors.ts'
import { type LayerOrigin, LayerStream } from './layer-stream.ts'
import type { BlobLayer } from './nydus-image.ts'
import type { PushRetry } from './push-retry.ts'

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
  readonly outcome: UploadResult['outcome']
  /** What an image cannot hold of the layer, for people: one line, or none. */
  readonly warnings: readonly string[]
}

/** Where a layer goes, and where its blob may lie meanwhile. */
export interface LayerTask {
  readonly origin: LayerOrigin
  readonly target: Repository
  readonly workDirectory: string
  readonly options: LayerOptions
  readonly retry: PushRetry
}

/**
 * Streams a layer from the source through the builder into a blob file (an upload needs its digest first, and its bytes again when it is retried), and uploads that
 * unless the target has it. The layer itself is never stored. The file is gone afterwards, whatever happens. Throws 'BAD_IMAGE', BuilderError, RegistryError or the signal's reason.
 */
export async function convertLayer(task: LayerTask): Promise<ConvertedLayer> {
  const { origin, target, retry } = task
  const { layer, signal } = origin
  checkLayerType(layer)
  const path = join(task.workDirectory, `${digestHex(layer.digest)}.blob`)
  const file = await open(path, 'wx', 0o600)
  try {
    const { digest, size, ...built } = await buildInto(file, task)
    const blob = { digest, size, open: () => createReadStream(path) }
    const { outcome } = await retry.run(() => target.uploadBlob(blob, { signal }), signal)
    return { digest, size, ...built, outcome }
  } finally {
    await file.close()
    await rm(path, { force: true })
  }
}

/** Throws 'BAD_IMAGE' for what is no tar: encrypted layers, artifacts, blobs of Nydus. */
export function checkLayerType(layer: { readonly digest: string; readonly mediaType: string }): void {
  if (LAYER_TYPES.has(layer.mediaType)) return
  throw new ConvertError(
    'BAD_IMAGE',
    `cannot read layer ${layer.digest}: its media type is ${layer.mediaType}, which is no tar; only images of plain, gzip or zstd layers can be converted`,
  )
}

async function buildInto(file: FileHandle, { origin, options }: LayerTask): Promise<Omit<ConvertedLayer, 'outcome'>> {
  const running = new RunningDigest()
  const stream = new LayerStream(origin)
  const losses = new Losses()
  try {
    const { bootstrap, blobMeta } = await buildLayer(stream, {
      ...options,
      signal: origin.signal,
      onLost: losses.add,
      sink: async (bytes) => {
        running.update(bytes)
        await writeAll(file, bytes)
      },
    })
    await stream.finish()
    return { size: running.size, digest: running.digest(), bootstrap, blobMeta, warnings: losses.warnings }
  } finally {
    await stream.abandon()
  }
}

async function writeAll(file: FileHandle, bytes: Uint8Array): Promise<void> {
  try {
    for (let at = 0; at < bytes.length; ) at += (await file.write(bytes, at)).bytesWritten
  } catch (cause) {
    throw new ConvertError(
      'OUTPUT',
      `cannot write to the work directory: ${(cause as Error).message}; choose another with --work-dir`,
      { cause },
    )
  }
}
