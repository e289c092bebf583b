import { localfsBackend } from '../backend/index.ts'
import { BLOB_FEATURES, type BlobCipher, type BlobInfo, BlobWriter } from '../blob/index.ts'
import type { CompressionName } from '../codec/index.ts'
import { type Bootstrap, openBootstrap, type RafsChunk } from '../rafs/index.ts'
import { Artifact } from './artifact.ts'
import { checkBlob } from './check.ts'
import type { ChunkCopier } from './chunk-copier.ts'
import { BuilderError } from './errors.ts'

/** Features that a blob has because of what else is in its file, which the image that names it does not look for. */
const OF_THE_FILE = BLOB_FEATURES.INLINED_FS_META | BLOB_FEATURES.HAS_TAR_HEADER

/** What a blob made of chunks of other blobs is to be. */
export interface NewBlobOptions {
  readonly image: Bootstrap
  /** Its place in the new image's table. */
  readonly blobIndex: number
  readonly folder: string
  readonly compression: CompressionName
  readonly cipher: BlobCipher | undefined
  /** Its parts end with tar headers, as those of the original's prefetch blobs do. */
  readonly tarHeaders: boolean
  readonly signal: AbortSignal
}

/** A blob of copied chunks under a temporary name. Order of calls: `write`, `verify`, `publish`; `discard` on every path. */
export class NewBlob {
  readonly #artifact: Artifact
  readonly #options: NewBlobOptions
  #info: BlobInfo | undefined

  private constructor(artifact: Artifact, options: NewBlobOptions) {
    this.#artifact = artifact
    this.#options = options
  }

  static async create(options: NewBlobOptions): Promise<NewBlob> {
    return new NewBlob(await Artifact.createIn(options.folder, 'blob'), options)
  }

  /** Copies chunks into it; gives them as the new image names them. */
  async write(chunks: readonly RafsChunk[], copier: ChunkCopier): Promise<RafsChunk[]> {
    const { image, blobIndex, compression, cipher, tarHeaders } = this.#options
    const digest = image.blobs[chunks[0]?.blobIndex ?? 0]?.digest ?? 'blake3'
    const toc =
      image.version === 6 && image.blobs.every(({ features }) => (features & BLOB_FEATURES.INLINED_CHUNK_DIGEST) !== 0)
    const writer = new BlobWriter({
      chunkSize: image.chunkSize,
      compression,
      digest,
      inlineBootstrap: tarHeaders,
      toc,
      rafsVersion: image.version,
      alignedChunks: false,
      batches: false,
      cipher,
      offset: 0,
      sink: (bytes) => this.#artifact.write(bytes),
    })
    const copied = await copier.copy(chunks, { writer, blobIndex, compression, digest, cipher })
    const dataSize = writer.size
    await writer.finishData()
    const { id, size, tocSize, tocDigest } = await writer.finish()
    // v5 tells the size of the data, v6 that of the file.
    const info = writer.info({
      index: blobIndex,
      id,
      compressedSize: image.version === 5 ? dataSize : size,
      tocSize,
      tocDigest,
    })
    const features = toc ? info.features & ~BLOB_FEATURES.INLINED_FS_META : info.features & ~OF_THE_FILE
    this.#info = { ...info, features: features >>> 0 }
    return copied
  }

  /** How the new image names it; after `write`. */
  get info(): BlobInfo {
    if (this.#info === undefined) throw new RangeError('the blob is not written yet')
    return this.#info
  }

  /** Reads every chunk back, by the image that names it. Throws BuilderError 'READBACK'. */
  async verify(image: Bootstrap): Promise<void> {
    await this.#artifact.flush()
    const backend = localfsBackend({ blobFile: this.#artifact.temporaryPath ?? '' })
    try {
      const reader = await backend.open(this.info.id)
      for await (const { message } of checkBlob(image, this.info.index, reader, this.#options.signal))
        throw new BuilderError(
          'READBACK',
          `the blob does not read back as it was meant: ${message}; nothing was published, please report this`,
        )
    } finally {
      await backend.close()
    }
  }

  /** Gives it its name. */
  async publish(): Promise<void> {
    await this.#artifact.publish(this.info.id)
  }

  /** Takes it back, also when `publish` failed; not when the blob was there already. */
  async retract(): Promise<void> {
    await this.#artifact.retract()
  }

  async discard(): Promise<void> {
    await this.#artifact.discard()
  }
}

/**
 * Lets blobs and the bootstrap that names them appear, the bootstrap last. When that fails, all of them are removed again. `bootstrapPath` is written under a temporary name before anything appears.
 */
export async function publishImage(
  blobs: readonly NewBlob[],
  bootstrap: Uint8Array,
  { bootstrapPath, signal }: { readonly bootstrapPath: string; readonly signal: AbortSignal },
): Promise<void> {
  const image = openBootstrap(bootstrap)
  for (const blob of blobs) await blob.verify(image)
  const artifact = await Artifact.create(bootstrapPath)
  try {
    await artifact.write(bootstrap)
    await artifact.settle()
    signal.throwIfAborted()
    for (const blob of blobs) await blob.publish()
    await artifact.publish()
  } catch (error) {
    for (const file of [artifact, ...blobs]) await file.retract()
    throw error
  } finally {
    await artifact.discard()
  }
}
