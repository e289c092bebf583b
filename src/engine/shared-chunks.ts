import { realpathSync } from 'node:fs'
import type { ChunkInfo, VerifiedChunk } from '../blob/index.ts'
import { type ChunkCache, type ChunkCopy, type ChunkDedup, CopyFile, dedupId, type FileTwin } from '../cache/index.ts'
import { hasDigests } from '../rafs/index.ts'
import { type FetchParts, verifyPlain } from './fetch.ts'
import type { ImageBlob, ImageBlobParts } from './image-blob.ts'

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
    return new SharedChunks(dedup, info.digest, realpathSync(cache.path))
  }

  copies({ digest }: ChunkInfo): readonly ChunkCopy[] {
    const id = dedupId(this.#digest, digest)
    return id === undefined ? [] : this.#dedup.find(id, this.#path)
  }

  record({ digest, uncompressedOffset: offset }: ChunkInfo): void {
    const id = dedupId(this.#digest, digest)
    if (id !== undefined) this.#dedup.record(id, { path: this.#path, offset })
  }
}

/** Looks for a chunk's bytes in other files, verifies them, and hands them to `use`, during which they may be used. False when none has them. */
export async function readCopy(
  blob: ImageBlob,
  chunk: number,
  copies: readonly ChunkCopy[],
  parts: FetchParts,
  use: (info: ChunkInfo, bytes: VerifiedChunk, twin: FileTwin) => Promise<void>,
): Promise<boolean> {
  const info = blob.chunk(chunk)
  const plain = parts.buffers.take(info.uncompressedSize)
  for (const { path, offset } of copies) {
    const file = await CopyFile.open(path)
    if (file === undefined) continue
    try {
      if (!(await file.read(offset, plain.bytes.subarray(0, info.uncompressedSize)))) continue
      const verified = await verifyPlain(blob, info, plain, parts.decoders)
      if (verified === undefined) continue
      await use(info, verified, { fd: file.fd, offset })
      parts.buffers.give(plain)
      return true
    } finally {
      await file.close()
    }
  }
  return false
}
