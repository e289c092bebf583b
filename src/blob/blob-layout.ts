import type { ChunkInfo } from './chunk-info.ts'

/**
 * Where the chunks of one blob lie. Immutable, and cheap to ask: nothing is parsed again.
 * It may come from a bootstrap's chunk table or from the blob's own compression context; who asks cannot tell.
 */
export interface BlobLayout {
  /** Number of chunk slots of the blob (its chunk map has as many bits). */
  readonly chunkCount: number
  /** Length of the uncompressed address space, bytes. */
  readonly uncompressedSize: number
  /** False for a slot that the source of this layout does not describe (a chunk that no file of the image uses). */
  has(index: number): boolean
  /** The first slot from `index` on that is described, or `chunkCount`: a crafted image may claim millions of slots and describe few. */
  next(index: number): number
  /** Fills `into`, digest included. Throws BlobError 'OUT_OF_RANGE' for a slot that is not there. */
  chunk(index: number, into: ChunkInfo): void
}
