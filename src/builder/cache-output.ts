import { basename, join } from 'node:path'
import { cachePath, fullMap } from '../cache/index.ts'
import { Artifact } from './artifact.ts'
import type { BlobOutput } from './blob-output.ts'
import type { BuiltLayer } from './build-layer.ts'
import type { ChunkRecord } from './dictionary.ts'
import { BuilderError } from './errors.ts'

/** Gaps up to here are written; they are those between chunks. */
const ZEROS = new Uint8Array(4096)

/**
 * Writes what nydusd's cache holds of a blob once all of it was read, and not the blob itself. First the data, then the compression context, last the chunk map, which says that the data is there: a crash leaves
 * files that are whole, and data that nobody believes in yet.
 */
export class CacheOutput implements BlobOutput {
  readonly #data: Artifact
  readonly #directory: string

  private constructor(directory: string, data: Artifact) {
    this.#directory = directory
    this.#data = data
  }

  static async create(directory: string): Promise<CacheOutput> {
    return new CacheOutput(directory, await Artifact.create(join(directory, 'cache')))
  }

  /** The blob's bytes are not kept. */
  write(): void {}

  readonly keep = async ({ uncompressedOffset }: ChunkRecord, plain: Uint8Array): Promise<void> => {
    await this.#fillTo(uncompressedOffset)
    await this.#data.write(plain)
  }

  async publish({ blobs, blobId, blobMeta }: BuiltLayer, givenId: string | undefined): Promise<undefined> {
    const id = givenId ?? blobId
    const own = blobs.find((blob) => blob.id === id)
    if (own === undefined || own.chunkCount === 0) return undefined
    await this.#fillTo(own.uncompressedSize)
    // All of it is written, where the disk may be full, before any of it is there.
    const rest: Artifact[] = []
    try {
      if (blobMeta !== undefined) rest.push(await this.#written(id, 'meta', blobMeta))
      rest.push(await this.#written(id, 'map', fullMap(own.chunkCount)))
      await this.#data.publish(basename(this.#path(id, 'data')))
      for (const file of rest) await file.publish()
    } finally {
      for (const file of rest) await file.discard()
    }
    return undefined
  }

  async #written(id: string, kind: 'meta' | 'map', bytes: Uint8Array): Promise<Artifact> {
    const file = await Artifact.create(this.#path(id, kind))
    try {
      await file.write(bytes)
      await file.flush()
      return file
    } catch (error) {
      await file.discard()
      throw error
    }
  }

  async discard(): Promise<void> {
    await this.#data.discard()
  }

  #path(id: string, kind: 'data' | 'meta' | 'map'): string {
    try {
      return cachePath(this.#directory, id, kind)
    } catch (cause) {
      throw new BuilderError('BAD_OPTION', cause instanceof Error ? cause.message : String(cause), { cause })
    }
  }

  async #fillTo(offset: number): Promise<void> {
    const gap = offset - this.#data.size
    if (gap <= ZEROS.length) await this.#data.write(ZEROS.subarray(0, gap))
    else await this.#data.skip(gap)
  }
}
