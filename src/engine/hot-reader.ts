import { readAt } from '../kernel/index.ts'
import type { TrustedChunks } from '../cache/index.ts'
import type { ChunkSpan } from '../rafs/index.ts'
import type { HotImage } from './image-reader.ts'

/**
 * Answers reads from the caches' data files, on any thread, as long as every chunk is trusted. Neighbours in a data file are read with one call, straight to where the
 * caller wants them. Allocates nothing.
 */
export class HotReader {
  readonly #blobs: HotImage['blobs']

  constructor(hot: HotImage) {
    this.#blobs = hot.blobs
  }

  /**
   * Writes the bytes of `spans[0..count)`, one after another, to a native address with room for them. False when a chunk is not trusted or is not what the file says of it, loses its trust meanwhile, or the data file is shorter than it should be: then
   * `ImageReader.read` is to be asked, and what was written means nothing. Throws KernelError when a file cannot be read.
   */
  read(spans: readonly ChunkSpan[], count: number, address: number): boolean {
    const before = this.#withdrawals(spans, count)
    for (let index = 0; index < count; index++) {
      const span = spans[index]
      const blob = this.#blobs[span.blobIndex]
      if (blob === undefined || (blob.chunks !== undefined && !isVerified(blob.chunks, span))) return false
    }
    let at = address
    for (let index = 0; index < count; ) {
      const { blobIndex } = spans[index]
      const { dataFd, touched } = this.#blobs[blobIndex]
      const from = spans[index].chunkOffset + spans[index].offsetInChunk
      let length = 0
      do {
        const span = spans[index]
        touched[span.chunkIndex] = 1
        length += span.length
        index++
      } while (
        index < count &&
        spans[index].blobIndex === blobIndex &&
        spans[index].chunkOffset + spans[index].offsetInChunk === from + length
      )
      if (readAt(dataFd, at, length, from) !== length) return false
      at += length
    }
    return this.#withdrawals(spans, count) === before
  }

  /** They only grow, so the sum tells whether one did. */
  #withdrawals(spans: readonly ChunkSpan[], count: number): number {
    let sum = 0
    for (let index = 0; index < count; index++) {
      const chunks = this.#blobs[spans[index].blobIndex]?.chunks
      if (chunks !== undefined) sum += Atomics.load(chunks.withdrawals, 0)
    }
    return sum
  }
}

/** The verified chunk lies where the file says, and has what the file wants of it. */
function isVerified({ trusted, offsets, sizes }: TrustedChunks, span: ChunkSpan): boolean {
  const chunk = span.chunkIndex
  return trusted[chunk] === 1 && offsets[chunk] === span.chunkOffset && span.offsetInChunk + span.length <= sizes[chunk]
}
