import { type BlobCipher, encrypt, looksPadded } from '../blob/index.ts'
import { type CompressionName, type Compressor, compressor, crc32c, digester, type DigestName } from '../codec/index.ts'
import type { ChunkBatch } from './chunk-batch.ts'

/** `storedSize` of a chunk that is not stored, because it is already. */
export const SKIP = -1
/** `storedSize` of a chunk that is stored as a part of a pack. */
export const PACKED = -2

/** The steps of a batch: `digest`, with the checksums; then the main thread decides, in order, which chunks are new; `compress`, of those; `pack` of all chunks, which are packs of others. */
export type Step = 'digest' | 'compress' | 'pack'

export interface ChunkAlgorithms {
  readonly compression: CompressionName
  readonly digest: DigestName
  /** Undefined: nothing is encrypted. */
  readonly cipher: BlobCipher | undefined
}

/** Whether chunks are stored as they are: there is nothing to do between the decision and storing them. */
export function storesPlain({ compression, cipher }: ChunkAlgorithms): boolean {
  return compression === 'none' && cipher === undefined
}

export type ChunkWork = (batch: ChunkBatch, count: number, step: Step) => void

/** How a chunk is stored: compressed, into `output`, where that is smaller, then encrypted. */
export function storedForm(
  chunk: Uint8Array,
  output: Uint8Array,
  compresses: Compressor,
  cipher: BlobCipher | undefined,
): { readonly stored: Uint8Array; readonly compressed: boolean } {
  const size = compresses.compress(chunk, output)
  const packed = size > 0 ? output.subarray(0, size) : chunk
  if (cipher === undefined) return { stored: packed, compressed: size > 0 }
  const compressed = size > 0 && !looksPadded(packed)
  return { stored: encrypt(compressed ? packed : chunk, cipher), compressed }
}

/** The work on one batch, the same on the main thread and in a worker. */
export function createChunkWork({ compression, digest, cipher }: ChunkAlgorithms): ChunkWork {
  const digests = digester(digest)
  const compresses = compressor(compression)
  const compress = (batch: ChunkBatch, slot: number): void => {
    const chunk = batch.chunk(slot)
    // All that is left of the output: what comes later is written later.
    const output = batch.output.subarray(batch.offset(slot))
    const { stored, compressed } = storedForm(chunk, output, compresses, cipher)
    if (cipher !== undefined) output.set(stored)
    batch.setStored(slot, cipher !== undefined || compressed ? stored.length : 0, compressed)
  }
  return (batch, count, step) => {
    for (let slot = 0; slot < count; slot += 1) {
      if (step === 'digest') {
        const chunk = batch.chunk(slot)
        digests.digest(chunk, batch.digest(slot))
        // Of duplicates too: now the bytes are in the processor's cache.
        batch.setCrc32c(slot, crc32c(chunk))
      } else if (step === 'pack' || batch.storedSize(slot) >= 0) compress(batch, slot)
    }
  }
}
