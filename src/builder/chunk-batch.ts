import { plainBytes, worstCase } from '../codec/index.ts'

/**
 * A batch of chunks in shared memory: the one thing that the main thread and the workers both touch. Small chunks travel together, so that
 * a message between threads is paid once for hundreds of them.
 *
 * Layout of the buffer, in this order (all parts 8-byte aligned):
 *   rows     MAX_CHUNKS × 24   i32 offset, length, size in output (0 = stored as it is), u32 CRC-32C, i32 1 = compressed
 *   digests  MAX_CHUNKS × 32
 *   input    capacity          chunks back to back
 *   output   capacity + slack  a compressed chunk starts where its input does: it is kept only when it is smaller. While it is made it may take more, of
 *                              places that come later and are not written yet: the last one takes it from the slack
 */
const ROW_WORDS = 6
const ROW_BYTES = ROW_WORDS * 4
const DIGEST_BYTES = 32

/** Bytes that the smallest chunk takes in both: encrypted ones have 18 at least. Only their different sizes tell that a pack of chunks is compressed, so that one is made as large as this. */
export const MIN_ROOM = 19

/** What the largest chunk may take beyond its own size while it is compressed. */
const SLACK = worstCase(2 ** 24) - 2 ** 24

/** Chunks of one batch: enough that a batch of files of half a KiB is full. A message to a thread costs as much as some hundred of them. */
export const MAX_CHUNKS = 2048

export class ChunkBatch {
  readonly buffer: SharedArrayBuffer
  readonly capacity: number
  readonly input: Uint8Array
  readonly output: Uint8Array
  readonly #rows: Int32Array
  readonly #digests: Uint8Array
  /** Of the main thread only: how far the batch is filled. */
  count = 0
  filled = 0

  constructor(buffer: SharedArrayBuffer) {
    const digestsAt = MAX_CHUNKS * ROW_BYTES
    const inputAt = digestsAt + MAX_CHUNKS * DIGEST_BYTES
    this.buffer = buffer
    this.capacity = (buffer.byteLength - inputAt - SLACK) / 2
    this.#rows = new Int32Array(buffer, 0, MAX_CHUNKS * ROW_WORDS)
    // A batch is with one thread at a time: messages hand it on.
    const bytes = plainBytes(buffer)
    this.#digests = bytes.subarray(digestsAt, inputAt)
    this.input = bytes.subarray(inputAt, inputAt + this.capacity)
    this.output = bytes.subarray(inputAt + this.capacity)
  }

  static create(capacity: number): ChunkBatch {
    return new ChunkBatch(new SharedArrayBuffer(MAX_CHUNKS * (ROW_BYTES + DIGEST_BYTES) + 2 * capacity + SLACK))
  }

  clear(): void {
    this.count = 0
    this.filled = 0
  }

  hasRoom(length: number): boolean {
    return this.count < MAX_CHUNKS && this.filled + length <= this.capacity
  }

  /** Takes the next `length` bytes of `input` as a chunk; gives its number in the batch. */
  add(length: number): number {
    const slot = this.count
    this.#rows[slot * ROW_WORDS] = this.filled
    this.#rows[slot * ROW_WORDS + 1] = length
    this.filled += Math.max(length, MIN_ROOM)
    this.count += 1
    return slot
  }

  chunk(slot: number): Uint8Array {
    const offset = this.offset(slot)
    return this.input.subarray(offset, offset + this.length(slot))
  }

  offset(slot: number): number {
    return this.#rows[slot * ROW_WORDS] ?? 0
  }

  length(slot: number): number {
    return this.#rows[slot * ROW_WORDS + 1] ?? 0
  }

  digest(slot: number): Uint8Array {
    return this.#digests.subarray(slot * DIGEST_BYTES, (slot + 1) * DIGEST_BYTES)
  }

  crc32c(slot: number): number {
    return (this.#rows[slot * ROW_WORDS + 3] ?? 0) >>> 0
  }

  setCrc32c(slot: number, crc: number): void {
    this.#rows[slot * ROW_WORDS + 3] = crc
  }

  /** Bytes in `output`; 0 when the chunk is stored as it is. */
  storedSize(slot: number): number {
    return this.#rows[slot * ROW_WORDS + 2] ?? 0
  }

  isCompressed(slot: number): boolean {
    return this.#rows[slot * ROW_WORDS + 4] === 1
  }

  setStored(slot: number, size: number, isCompressed: boolean): void {
    this.#rows[slot * ROW_WORDS + 2] = size
    this.#rows[slot * ROW_WORDS + 4] = isCompressed ? 1 : 0
  }

  /** The chunk as it is stored. */
  stored(slot: number): Uint8Array {
    const size = this.storedSize(slot)
    const offset = this.offset(slot)
    return size > 0 ? this.output.subarray(offset, offset + size) : this.chunk(slot)
  }
}
