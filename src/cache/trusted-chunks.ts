import type { ChunkInfo } from '../blob/index.ts'

/**
 * Which chunks of a blob were verified since its cache was opened, and what they are: shared memory, so that threads which answer reads look there without asking anybody. An image's files say
 * themselves where their chunks lie; only when they say the same as the verified record is what lies there what was verified.
 */
export interface TrustedChunks {
  /** A byte a chunk, 1 = its verified bytes are in the data file. */
  readonly trusted: Uint8Array<SharedArrayBuffer>
  /** Of trusted chunks: where they start in the data file, and their bytes. */
  readonly offsets: Float64Array<SharedArrayBuffer>
  readonly sizes: Uint32Array<SharedArrayBuffer>
}

/** Where a chunk lies in the data file. */
export type ChunkPlace = Pick<ChunkInfo, 'index' | 'uncompressedOffset' | 'uncompressedSize'>

export function createTrustedChunks(chunkCount: number): TrustedChunks {
  return {
    trusted: new Uint8Array(new SharedArrayBuffer(chunkCount)),
    offsets: new Float64Array(new SharedArrayBuffer(chunkCount * Float64Array.BYTES_PER_ELEMENT)),
    sizes: new Uint32Array(new SharedArrayBuffer(chunkCount * Uint32Array.BYTES_PER_ELEMENT)),
  }
}

/** The place first: a thread that sees an older one takes the chunk for one that it may not show. */
export function trustChunk(
  { trusted, offsets, sizes }: TrustedChunks,
  { index, uncompressedOffset, uncompressedSize }: ChunkPlace,
): void {
  offsets[index] = uncompressedOffset
  sizes[index] = uncompressedSize
  trusted[index] = 1
}
