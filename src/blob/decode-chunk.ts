import { type CompressionName, decompressor } from '../codec/index.ts'
import type { ChunkInfo } from './chunk-info.ts'
import { type BlobCipher, decrypt } from './encryption.ts'
import { BlobError } from './errors.ts'

/** What decoding needs to know of a chunk. */
export type DecodedChunk = Pick<
  ChunkInfo,
  'index' | 'compressed' | 'encrypted' | 'uncompressedSize' | 'batchOffset' | 'batchSize'
>

/** Turns stored bytes of one blob into plain bytes: decrypts, decompresses, cuts out of a batch. Digests are not compared here. Not to be kept longer than the bytes it was given. */
export class ChunkDecoder {
  readonly #compression: CompressionName
  readonly #cipher: BlobCipher | undefined
  /** The last batch: its chunks mostly come one after another. */
  #batchAt = -1
  #batch = new Uint8Array(0)

  constructor(compression: CompressionName, cipher: BlobCipher | undefined) {
    this.#compression = compression
    this.#cipher = cipher
  }

  /**
   * Fills `into`, which has `chunk.uncompressedSize` bytes. `stored` are the chunk's bytes, or those of its batch; `storedAt` tells equal ones: what was decoded last is not decoded
   * again. Throws CodecError, or BlobError 'BAD_DIGEST' | 'BAD_META'.
   */
  decode(stored: Uint8Array, storedAt: number, chunk: DecodedChunk, into: Uint8Array): void {
    if (chunk.batchSize === 0) {
      const isRaw = !chunk.compressed
      const plain = chunk.encrypted ? this.#decrypt(stored, chunk, isRaw ? chunk.uncompressedSize : undefined) : stored
      decompressor(isRaw ? 'none' : this.#compression).decompress(plain, into)
      return
    }
    if (this.#batchAt !== storedAt || this.#batch.length !== chunk.batchSize) this.#open(stored, storedAt, chunk)
    into.set(this.#batch.subarray(chunk.batchOffset, chunk.batchOffset + chunk.uncompressedSize))
  }

  #open(stored: Uint8Array, storedAt: number, chunk: DecodedChunk): void {
    this.#batchAt = -1
    const batch = new Uint8Array(chunk.batchSize)
    // Of a batch only its sizes tell that it is compressed.
    const isRaw = stored.length === batch.length || (chunk.encrypted && stored.length > batch.length)
    const plain = chunk.encrypted ? this.#decrypt(stored, chunk, isRaw ? batch.length : undefined) : stored
    decompressor(isRaw ? 'none' : this.#compression).decompress(plain, batch)
    this.#batch = batch
    this.#batchAt = storedAt
  }

  #decrypt(stored: Uint8Array, { index }: DecodedChunk, size: number | undefined): Uint8Array {
    if (this.#cipher === undefined)
      throw new BlobError(
        'BAD_META',
        `chunk ${index} is encrypted, and the image has no key for it: RAFS v5 cannot keep one, so build the image as v6`,
      )
    return decrypt(stored, this.#cipher, size)
  }
}
