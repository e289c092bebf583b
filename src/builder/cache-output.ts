import { basename, join } from 'node:path'
import { cachePath, fullMap } from '../cache/index.ts'
import { Artifact, writeWhole } from './artifact.ts'
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
    const [data, meta, map] = (['data', 'meta', 'map'] as const).map((kind) => this.#path(id, kind)) as [
      string,
      string,
      string,
    ] // three kinds, three paths
    await this.#fillTo(own.uncompressedSize)
    await this.#data.publish(basename(data))
    if (blobMeta !== undefined) await writeWhole(meta, blobMeta)
    await writeWhole(map, fullMap(own.chunkCount))
    return undefined
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
