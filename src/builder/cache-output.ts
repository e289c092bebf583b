import { basename } from 'node:path'
import { cachePath, fullMap } from '../cache/index.ts'
import { Artifact } from './artifact.ts'
import type { BlobOutput } from './blob-output.ts'
import type { BuiltLayer } from './built-layer.ts'
import type { ChunkRecord } from './dictionary.ts'
import { BuilderError } from './errors.ts'

/** Gaps up to here are written; they are those between chunks. */
const ZEROS = new Uint8Array(4096)
const KINDS = ['data', 'meta', 'map'] as const

/**
 * Writes what nydusd's cache holds of a blob once all of it was read, and not the blob itself. First the data, then the compression context, last the chunk map, which says that the data is there: a crash leaves
 * files that are whole, and data that nobody believes in yet.
 */
export class CacheOutput implements BlobOutput {
  readonly #data: Artifact
  readonly #directory: string
  #meta: Artifact | undefined
  readonly #rest: Artifact[] = []

  private constructor(directory: string, data: Artifact) {
    this.#directory = directory
    this.#data = data
  }

  static async create(directory: string): Promise<CacheOutput> {
    return new CacheOutput(directory, await Artifact.createIn(directory, 'cache'))
  }

  /** The blob's bytes are not kept. */
  write(): void {}

  readonly keep = async ({ uncompressedOffset }: ChunkRecord, plain: Uint8Array): Promise<void> => {
    await this.#fillTo(uncompressedOffset)
    await this.#data.write(plain)
  }

  readonly keepMeta = async (pieces: Iterable<Uint8Array>): Promise<void> => {
    const meta = await Artifact.createIn(this.#directory, 'meta')
    this.#rest.push(meta)
    this.#meta = meta
    for (const piece of pieces) await meta.write(piece)
    await meta.settle()
  }

  /** Of a reference, the files are named for the layer, whose data they hold. */
  async publish({ ownBlob: own }: BuiltLayer): Promise<undefined> {
    if (own === undefined || own.chunkCount === 0) return undefined
    const [data, meta, map] = KINDS.map((kind) => basename(this.#path(own.id, kind)))
    await this.#fillTo(own.uncompressedSize)
    // All of it is written, where the disk may be full, before any of it is there.
    const marks = await Artifact.createIn(this.#directory, 'map')
    this.#rest.push(marks)
    await marks.write(fullMap(own.chunkCount))
    await marks.settle()
    await this.#data.settle()
    await this.#data.publish(data)
    await this.#meta?.publish(meta)
    await marks.publish(map)
    return undefined
  }

  /** The chunk map, which vouches for the rest, first. */
  async retract(): Promise<void> {
    for (const file of [this.#data, ...this.#rest].reverse()) await file.retract()
  }

  async discard(): Promise<void> {
    for (const file of [this.#data, ...this.#rest]) await file.discard()
  }

  #path(id: string, kind: (typeof KINDS)[number]): string {
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
