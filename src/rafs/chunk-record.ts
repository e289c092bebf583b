/**
 * The 80-byte chunk record: RAFS v5 stores it in inodes, v6 in its chunk table. Source: docs/formats/rafs-v5.md, "Chunk record".
 */
import { BLOB_FEATURES, type BlobInfo, type ChunkInfo } from '../blob/index.ts'
import type { ByteReader } from './byte-reader.ts'
import { RafsError } from './errors.ts'
import { setLong } from './numbers.ts'
import type { RafsChunk } from './tree.ts'

/** 32 + 4 × 4 + 8 × 3 + 4 × 2 = 80 bytes. */
export const CHUNK_RECORD = {
  size: 80,
  digest: 0,
  blobIndex: 32,
  flags: 36,
  compressedSize: 40,
  uncompressedSize: 44,
  compressedOffset: 48,
  uncompressedOffset: 56,
  fileOffset: 64,
  index: 72,
  crc32c: 76,
} as const

export const CHUNK_FLAGS = { COMPRESSED: 0x1, HOLE: 0x2, ENCRYPTED: 0x4, BATCH: 0x8, HAS_CRC32C: 0x10 } as const

/** Chunks per blob that a bootstrap can address. */
export const MAX_CHUNKS = 1 << 24

/** Fills `into` from the record at `at`; checks it against the blob that it names. */
export function readChunkRecord(from: ByteReader, at: number, blob: BlobInfo, into: ChunkInfo): void {
  from.check(at, CHUNK_RECORD.size)
  const flags = from.u32(at + CHUNK_RECORD.flags)
  into.index = from.u32(at + CHUNK_RECORD.index)
  into.compressedSize = from.u32(at + CHUNK_RECORD.compressedSize)
  into.uncompressedSize = from.u32(at + CHUNK_RECORD.uncompressedSize)
  into.compressedOffset = from.u64(at + CHUNK_RECORD.compressedOffset)
  into.uncompressedOffset = from.u64(at + CHUNK_RECORD.uncompressedOffset)
  into.compressed = (flags & CHUNK_FLAGS.COMPRESSED) !== 0
  into.encrypted = (flags & CHUNK_FLAGS.ENCRYPTED) !== 0
  into.batchOffset = 0
  into.batchSize = 0
  into.crc32c = (flags & CHUNK_FLAGS.HAS_CRC32C) !== 0 ? from.u32(at + CHUNK_RECORD.crc32c) : undefined
  for (let byte = 0; byte < 32; byte++) into.digest[byte] = from.bytes[at + byte] // checked above
  checkChunk(blob, into)
}

/** Writes the record of a chunk that a file uses at `fileOffset`. */
export function writeChunkRecord(view: DataView, at: number, chunk: RafsChunk, fileOffset: number): void {
  const flags = chunkFlags(chunk)
  new Uint8Array(view.buffer, view.byteOffset).set(chunk.digest, at + CHUNK_RECORD.digest)
  view.setUint32(at + CHUNK_RECORD.blobIndex, chunk.blobIndex, true)
  view.setUint32(at + CHUNK_RECORD.flags, flags, true)
  view.setUint32(at + CHUNK_RECORD.compressedSize, chunk.compressedSize, true)
  view.setUint32(at + CHUNK_RECORD.uncompressedSize, chunk.uncompressedSize, true)
  setLong(view, at + CHUNK_RECORD.compressedOffset, chunk.compressedOffset)
  setLong(view, at + CHUNK_RECORD.uncompressedOffset, chunk.uncompressedOffset)
  setLong(view, at + CHUNK_RECORD.fileOffset, fileOffset)
  view.setUint32(at + CHUNK_RECORD.index, chunk.index, true)
  view.setUint32(at + CHUNK_RECORD.crc32c, chunk.crc32c ?? 0, true)
}

export function chunkFlags({ compressed, encrypted, crc32c }: RafsChunk): number {
  let flags = compressed ? CHUNK_FLAGS.COMPRESSED : 0
  if (encrypted) flags |= CHUNK_FLAGS.ENCRYPTED
  return crc32c === undefined ? flags : flags | CHUNK_FLAGS.HAS_CRC32C
}

/** A chunk must lie inside its blob in both address spaces. Throws 'BAD_CHUNK'. */
function checkChunk(blob: BlobInfo, chunk: ChunkInfo): void {
  const bad = (what: string): RafsError =>
    new RafsError('BAD_CHUNK', `chunk ${chunk.index} of blob ${blob.id}: ${what}; the bootstrap is damaged or crafted`)
  if (chunk.index >= MAX_CHUNKS || (blob.chunkCount > 0 && chunk.index >= blob.chunkCount))
    throw bad(`its number is beyond the blob's ${blob.chunkCount} chunks`)
  const isExternal = (blob.features & BLOB_FEATURES.EXTERNAL) !== 0
  if (chunk.uncompressedSize === 0 || (chunk.uncompressedSize > blob.chunkSize && !isExternal))
    throw bad(`it has ${chunk.uncompressedSize} bytes, chunks have up to ${blob.chunkSize}`)
  const roundedEnd = Math.ceil(blob.uncompressedSize / 4096) * 4096
  if (blob.uncompressedSize > 0 && chunk.uncompressedOffset + chunk.uncompressedSize > roundedEnd) {
    throw bad(
      `it ends at byte ${chunk.uncompressedOffset + chunk.uncompressedSize} of an address space of ${blob.uncompressedSize}`,
    )
  }
  if (
    !chunk.compressed &&
    !chunk.encrypted &&
    chunk.compressedSize !== chunk.uncompressedSize &&
    chunk.compressedSize !== 0
  ) {
    throw bad(`it is stored raw in ${chunk.compressedSize} bytes but has ${chunk.uncompressedSize}`)
  }
  if (blob.compressedSize > 0 && chunk.compressedOffset + chunk.compressedSize > blob.compressedSize) {
    throw bad(
      `it is stored up to byte ${chunk.compressedOffset + chunk.compressedSize} of a blob of ${blob.compressedSize}`,
    )
  }
}
