import { type CompressionName, compressor, crc32c, digester, type DigestName } from '../codec/index.ts'
import type { ChunkBatch } from './chunk-batch.ts'

/** `storedSize` of a chunk that needs no compression, because it is stored already. */
export const SKIP = -1

/** The two steps of a batch. Between them the main thread decides, in order, which chunks are new. */
export type Step = 'digest' | 'compress'

export interface ChunkAlgorithms {
  readonly compression: CompressionName
  readonly digest: DigestName
}

export type ChunkWork = (batch: ChunkBatch, count: number, step: Step) => void

/** The work on one batch, the same on the main thread and in a worker. */
export function createChunkWork(algorithms: ChunkAlgorithms): ChunkWork {
  const digests = digester(algorithms.digest)
  const compresses = compressor(algorithms.compression)
  return (batch, count, step) => {
    for (let slot = 0; slot < count; slot += 1) {
      const chunk = batch.chunk(slot)
      if (step === 'digest') digests.digest(chunk, batch.digest(slot))
      else if (batch.storedSize(slot) !== SKIP) {
        batch.setCrc32c(slot, crc32c(chunk))
        // All that is left of the output: what comes later is written later.
        const stored = compresses.compress(chunk, batch.output.subarray(batch.offset(slot)))
        batch.setStoredSize(slot, Math.max(0, stored))
      }
    }
  }
}
