import { realpathSync } from 'node:fs'
import type { ChunkInfo } from '../blob/index.ts'
import { type ChunkCache, type ChunkCopy, type ChunkDedup, dedupId } from '../cache/index.ts'
import { hasDigests } from '../rafs/index.ts'
import type { ImageBlobParts } from './image-blob.ts'

/** The chunks of one blob in the node's deduplication database. */
export class SharedChunks {
  readonly #dedup: ChunkDedup
  readonly #digest: ImageBlobParts['info']['digest']
  readonly #path: string

  private constructor(dedup: ChunkDedup, digest: ImageBlobParts['info']['digest'], path: string) {
    this.#dedup = dedup
    this.#digest = digest
    this.#path = path
  }

  /** Undefined for blobs that cannot take part: only plain caches have plain bytes at a place. */
  static of({ dedup, info }: ImageBlobParts, cache: ChunkCache | undefined): SharedChunks | undefined {
    if (dedup === undefined || cache?.kind !== 'plain' || !hasDigests(info)) return undefined
    const path = realpathSync(cache.path)
    if (cache.isNew) dedup.forget(path)
    return new SharedChunks(dedup, info.digest, path)
  }

  copies({ digest }: ChunkInfo): readonly ChunkCopy[] {
    const id = dedupId(this.#digest, digest)
    return id === undefined ? [] : this.#dedup.find(id, this.#path)
  }

  /** As soon as the chunk is marked: others believe the database as they believe marks. */
  record({ index, digest, uncompressedOffset: offset }: ChunkInfo, cache: ChunkCache): void {
    const id = dedupId(this.#digest, digest)
    if (id === undefined) return
    void cache.marked(index).then((isMarked) => {
      if (isMarked) this.#dedup.record(id, { path: this.#path, offset })
    })
  }
}
