/**
 * Chunk infos of a blob's compression context, both versions. Source: docs/formats/blob.md, "Chunk info v1" and "Chunk info v2".
 */
import { BLOB_FEATURES, type BlobInfo } from './blob-info.ts'
import type { ChunkInfo } from './chunk-info.ts'
import { BlobError } from './errors.ts'
import { MAX_BLOB_BYTES } from './limits.ts'

export const INFO_V1_SIZE = 16
export const INFO_V2_SIZE = 24

const V2_FLAGS = { COMPRESSED: 0x1, ZRAN: 0x2, BATCH: 0x4, ENCRYPTED: 0x8, HAS_CRC32C: 0x10 } as const
const MASK_20 = 0xf_ffff

/** Limit of version 1: sizes of 24 bits + 1, offsets of 44 bits, and 40 in the blob. */
const MAX_UNCOMPRESSED = 2 ** 44

/** Where a chunk lies. */
export type PlacedChunk = Pick<
  ChunkInfo,
  'index' | 'compressedOffset' | 'compressedSize' | 'uncompressedOffset' | 'uncompressedSize'
>

/** Writes one info of version 1 (two 64-bit words, little-endian). Throws 'TOO_LARGE' beyond its limits. */
export function encodeInfoV1(chunk: PlacedChunk, into: DataView, at: number): void {
  const { uncompressedOffset, uncompressedSize, compressedOffset, compressedSize } = chunk
  if (uncompressedOffset % 4096 !== 0 || uncompressedOffset >= MAX_UNCOMPRESSED || compressedOffset >= MAX_BLOB_BYTES) {
    throw new BlobError(
      'TOO_LARGE',
      `chunk ${chunk.index} at ${uncompressedOffset} (stored at ${compressedOffset}) is beyond what a blob can hold; split the layer`,
    )
  }
  const plain = uncompressedSize - 1
  const stored = compressedSize - 1
  // Bits 12..43 of the offset and, in bits 8..11, the size's bits 20..23; bits 44..63 are the size's low 20.
  into.setUint32(at, (uncompressedOffset % 2 ** 32) + ((plain >>> 20) << 8), true)
  into.setUint32(at + 4, Math.floor(uncompressedOffset / 2 ** 32) + (plain & MASK_20) * 4096, true)
  into.setUint32(at + 8, compressedOffset % 2 ** 32, true)
  into.setUint32(
    at + 12,
    Math.floor(compressedOffset / 2 ** 32) + ((stored >>> 20) << 8) + (stored & MASK_20) * 4096,
    true,
  )
}

/** Sizes of version 2 have 24 bits, and the stored one is not minus one. */
const MAX_STORED_V2 = 2 ** 24

/** What version 2 says of a chunk besides its place. */
export type DescribedChunk = PlacedChunk & Pick<ChunkInfo, 'compressed' | 'encrypted' | 'crc32c'>

/** Where a chunk lies in the batches of its blob. */
export interface PlaceInBatch {
  readonly batch: number
  readonly offset: number
}

/** Writes one info of version 2 (three 64-bit words, little-endian). Of a chunk in a batch, the stored offset is the batch's. Throws 'TOO_LARGE' beyond its limits. */
export function encodeInfoV2(
  chunk: DescribedChunk,
  inBatch: PlaceInBatch | undefined,
  into: DataView,
  at: number,
): void {
  const { uncompressedOffset, uncompressedSize, compressedOffset, compressedSize, crc32c } = chunk
  if (uncompressedOffset % 4096 !== 0 || uncompressedOffset >= MAX_UNCOMPRESSED || compressedOffset >= MAX_BLOB_BYTES)
    throw new BlobError(
      'TOO_LARGE',
      `chunk ${chunk.index} at ${uncompressedOffset} (stored at ${compressedOffset}) is beyond what a blob can hold; split the layer`,
    )
  if (compressedSize >= MAX_STORED_V2)
    throw new BlobError(
      'TOO_LARGE',
      `chunk ${chunk.index} is stored in ${compressedSize} bytes, blobs with batches or encryption hold ${MAX_STORED_V2 - 1}; use a smaller chunk size`,
    )
  let flags = chunk.encrypted ? V2_FLAGS.ENCRYPTED : 0
  if (inBatch !== undefined) {
    flags |= V2_FLAGS.COMPRESSED | V2_FLAGS.BATCH
    into.setUint32(at + 16, inBatch.offset, true)
    into.setUint32(at + 20, inBatch.batch, true)
  } else {
    if (chunk.compressed) flags |= V2_FLAGS.COMPRESSED
    // Readers take 0 for none, so a chunk whose sum that is goes without.
    if (crc32c !== undefined && crc32c !== 0) flags |= V2_FLAGS.HAS_CRC32C
    into.setUint32(at + 16, crc32c ?? 0, true)
  }
  into.setUint32(at, uncompressedOffset / 4096, true)
  into.setUint32(at + 4, (uncompressedSize - 1 + flags * 2 ** 24) >>> 0, true)
  into.setUint32(at + 8, compressedOffset % 2 ** 32, true)
  into.setUint32(
    at + 12,
    Math.floor(compressedOffset / 2 ** 32) + (inBatch === undefined ? compressedSize : 0) * 256,
    true,
  )
}

/** Writes the info of a chunk that lies in slice `context` of a gzip file, at `offset` of what that inflates to. Throws as `encodeInfoV2` does. */
export function encodeZranInfo(
  chunk: PlacedChunk,
  { context, offset }: { readonly context: number; readonly offset: number },
  into: DataView,
  at: number,
): void {
  // Of a chunk that is taken from its slice, the stored size tells nothing that is needed.
  const compressedSize = Math.min(chunk.compressedSize, MAX_STORED_V2 - 1)
  const { index, compressedOffset, uncompressedOffset, uncompressedSize } = chunk
  const described = {
    index,
    compressedOffset,
    compressedSize,
    uncompressedOffset,
    uncompressedSize,
    compressed: true,
    encrypted: false,
    crc32c: undefined,
  }
  encodeInfoV2(described, undefined, into, at)
  into.setUint8(at + 7, V2_FLAGS.COMPRESSED | V2_FLAGS.ZRAN)
  into.setUint32(at + 16, offset, true)
  into.setUint32(at + 20, context, true)
}

/** Reads info `index`; the digest stays as it is. Of a chunk in a batch, the stored size is 0: its context tells the rest. Throws 'BAD_META' for what contradicts the blob, 'UNSUPPORTED' for zran chunks. */
export function decodeInfo(from: DataView, index: number, blob: BlobInfo, into: ChunkInfo): void {
  into.index = index
  into.encrypted = false
  into.batchOffset = 0
  into.batchSize = 0
  into.crc32c = undefined
  let isBatched = false
  if ((blob.features & BLOB_FEATURES.CHUNK_INFO_V2) !== 0) isBatched = decodeV2(from, index * INFO_V2_SIZE, into)
  else decodeV1(from, index * INFO_V1_SIZE, into)
  const bad = (what: string): BlobError =>
    new BlobError(
      'BAD_META',
      `chunk ${index} of blob ${blob.id}: ${what}; the compression context is damaged or crafted`,
    )
  if (into.uncompressedSize > blob.chunkSize)
    throw bad(`it has ${into.uncompressedSize} bytes, chunks have up to ${blob.chunkSize}`)
  if (into.uncompressedOffset + into.uncompressedSize > Math.ceil(blob.uncompressedSize / 4096) * 4096)
    throw bad('it ends behind the address space')
  if (into.compressedOffset + into.compressedSize > blob.compressedSize) throw bad('it is stored behind the blob')
  if (isBatched) {
    if ((blob.features & BLOB_FEATURES.BATCH) === 0) throw bad('it is in a batch, and the blob has none')
    return
  }
  if (into.compressedSize === 0) throw bad('it is stored in 0 bytes')
  if (!into.compressed && !into.encrypted && into.compressedSize !== into.uncompressedSize)
    throw bad('it is stored raw with another size')
}

function decodeV1(from: DataView, at: number, into: ChunkInfo): void {
  const [low0, high0, low1, high1] = [
    from.getUint32(at, true),
    from.getUint32(at + 4, true),
    from.getUint32(at + 8, true),
    from.getUint32(at + 12, true),
  ]
  into.uncompressedSize = ((high0 >>> 12) | (((low0 >>> 8) & 0xf) << 20)) + 1
  into.uncompressedOffset = (high0 & 0xfff) * 2 ** 32 + ((low0 & 0xffff_f000) >>> 0)
  into.compressedSize = ((high1 >>> 12) | (((high1 >>> 8) & 0xf) << 20)) + 1
  into.compressedOffset = (high1 & 0xff) * 2 ** 32 + low1
  into.compressed = into.compressedSize !== into.uncompressedSize
}

/** True for a chunk in a batch. */
function decodeV2(from: DataView, at: number, into: ChunkInfo): boolean {
  const [low0, high0, low1, high1] = [
    from.getUint32(at, true),
    from.getUint32(at + 4, true),
    from.getUint32(at + 8, true),
    from.getUint32(at + 12, true),
  ]
  const flags = high0 >>> 24
  if ((flags & V2_FLAGS.ZRAN) !== 0) throw new BlobError('UNSUPPORTED', 'a zran chunk is known by its context only')
  into.uncompressedOffset = low0 * 4096
  into.uncompressedSize = (high0 & 0xff_ffff) + 1
  into.compressedOffset = (high1 & 0xff) * 2 ** 32 + low1
  into.compressedSize = high1 >>> 8
  into.compressed = (flags & V2_FLAGS.COMPRESSED) !== 0
  into.encrypted = (flags & V2_FLAGS.ENCRYPTED) !== 0
  if ((flags & V2_FLAGS.HAS_CRC32C) !== 0) into.crc32c = from.getUint32(at + 16, true)
  return (flags & V2_FLAGS.BATCH) !== 0
}
