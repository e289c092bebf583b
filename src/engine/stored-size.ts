import type { ChunkInfo } from '../blob/index.ts'

/** Old images leave the stored size of raw chunks 0. */
export function storedSize(chunk: ChunkInfo): number {
  return chunk.compressed || chunk.compressedSize > 0 ? chunk.compressedSize : chunk.uncompressedSize
}
