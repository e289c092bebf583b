import { readAt } from '../kernel/index.ts'
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
   * Writes the bytes of `spans[0..count)`, one after another, to a native address with room for them. False when a chunk is not trusted, or its file is shorter than it should be: then
   * `ImageReader.read` is to be asked, and what was written means nothing. Throws KernelError when a file cannot be read.
   */
  read(spans: readonly ChunkSpan[], count: number, address: number): boolean {
    for (let index = 0; index < count; index++) {
      const span = spans[index]
      if (this.#blobs[span.blobIndex]?.trusted[span.chunkIndex] !== 1) return false
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
    return true
  }
}
