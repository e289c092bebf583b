import { type ChunkBatch, MIN_ROOM } from './chunk-batch.ts'

/**
 * Gathers chunks of small files into packs, which are compressed as one: the batches of the format, called otherwise here because of the batches that threads work on. Which chunks go into which pack is
 * what the original decides.
 */
export class ChunkPacker {
  readonly #size: number
  readonly #least: number
  readonly #bytes: Uint8Array
  #length = 0

  /** `size`: a power of two. Encrypted packs that are too small get zeros behind their chunks. */
  constructor(size: number, isEncrypted: boolean) {
    this.#size = size
    this.#least = isEncrypted ? MIN_ROOM : 0
    this.#bytes = new Uint8Array(Math.max(size, this.#least))
  }

  get isEmpty(): boolean {
    return this.#length === 0
  }

  /** Whether chunks of that size are for packs. */
  takes(length: number): boolean {
    return length < this.#size / 2
  }

  /** Whether it goes into the pack that is being filled. */
  hasRoom(length: number): boolean {
    return this.#length + length < this.#size
  }

  add(chunk: Uint8Array): void {
    this.#bytes.set(chunk, this.#length)
    this.#length += chunk.length
  }

  /** Ends the pack; gives its slot in `packs`. */
  moveInto(packs: ChunkBatch): number {
    const size = Math.max(this.#length, this.#least)
    packs.input.set(this.#bytes.subarray(0, size).fill(0, this.#length), packs.filled)
    this.#length = 0
    return packs.add(size)
  }
}
