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
  /**
   * One number, which grows whenever trust was taken back, after that and before the data may go: bytes that were read are the chunk's only if it is the same before the look at `trusted` and after the read.
   */
  readonly withdrawals: Int32Array<SharedArrayBuffer>
}

/** Where a chunk lies in the data file. */
export type ChunkPlace = Pick<ChunkInfo, 'index' | 'uncompressedOffset' | 'uncompressedSize'>

export function createTrustedChunks(chunkCount: number): TrustedChunks {
  return {
    trusted: new Uint8Array(new SharedArrayBuffer(chunkCount)),
    offsets: new Float64Array(new SharedArrayBuffer(chunkCount * Float64Array.BYTES_PER_ELEMENT)),
    sizes: new Uint32Array(new SharedArrayBuffer(chunkCount * Uint32Array.BYTES_PER_ELEMENT)),
    withdrawals: new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT)),
  }
}

/** Nobody may show these chunks any more, also not who is reading them now. */
export function distrustChunks({ trusted, withdrawals }: TrustedChunks, chunks: readonly number[]): void {
  for (const chunk of chunks) trusted[chunk] = 0
  Atomics.add(withdrawals, 0, 1)
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
