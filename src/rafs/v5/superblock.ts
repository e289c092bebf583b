import { BLOB_FEATURES, type BlobInfo } from '../../blob/index.ts'
import { checkBlobId, INLINED_BLOB_ID } from '../blob-id.ts'
import type { ByteReader } from '../byte-reader.ts'
import { MAX_CHUNKS } from '../chunk-record.ts'
import { RafsError } from '../errors.ts'
import { checkFlags, compressionOf, digestOf } from '../super-flags.ts'
import { BLOB_FRAME, EXTENDED_BLOB, MAGIC, MAX_SIZE, SUPERBLOCK, VERSION } from './layout.ts'

/** The superblock of a v5 bootstrap and its blob table, checked. */
export interface SuperblockV5 {
  readonly flags: number
  readonly chunkSize: number
  readonly inodeCount: number
  readonly inodeTableAt: number
  readonly inodeTableEntries: number
  readonly prefetchTableAt: number
  readonly prefetchTableEntries: number
  readonly blobs: readonly BlobInfo[]
}

export function isV5(from: ByteReader): boolean {
  return from.length >= 8 && from.u32(SUPERBLOCK.magic) === MAGIC && from.u32(SUPERBLOCK.version) === VERSION
}

/** Reads and checks superblock and tables. `inlinedId` is the real id of the blob that an inlined bootstrap calls `xxx…`. */
export function readSuperblock(from: ByteReader, inlinedId: string | undefined): SuperblockV5 {
  if (from.length <= SUPERBLOCK.size || from.length > MAX_SIZE) throw bad(`it has ${from.length} bytes`)
  if (from.u32(SUPERBLOCK.ownSize) !== SUPERBLOCK.size) throw bad('its superblock says another size than 8192')
  const chunkSize = from.u32(SUPERBLOCK.blockSize)
  if (chunkSize < 4096 || chunkSize > 0x100_0000 || (chunkSize & (chunkSize - 1)) !== 0)
    throw bad(`its chunk size ${chunkSize} is no power of two from 4 KiB to 16 MiB`)
  const flags = checkFlags(from.u32(SUPERBLOCK.flags), from.u32(SUPERBLOCK.flags + 4))
  const inodeTableEntries = from.u32(SUPERBLOCK.inodeTableEntries)
  const inodeTableAt = place(from, 'inode table', SUPERBLOCK.inodeTableAt, inodeTableEntries * 4)
  const prefetchTableEntries = from.u32(SUPERBLOCK.prefetchTableEntries)
  const prefetchTableAt =
    prefetchTableEntries === 0 ? 0 : place(from, 'prefetch table', SUPERBLOCK.prefetchTableAt, prefetchTableEntries * 4)
  const inodeCount = from.u64(SUPERBLOCK.inodes)
  if (inodeTableEntries === 0 || inodeCount > inodeTableEntries)
    throw bad(`it has ${inodeCount} inodes and an inode table of ${inodeTableEntries}`)
  const blobs = readBlobs(from, chunkSize, flags, inlinedId)
  return { flags, chunkSize, inodeCount, inodeTableAt, inodeTableEntries, prefetchTableAt, prefetchTableEntries, blobs }
}

function place(from: ByteReader, name: string, field: number, size: number): number {
  const at = from.u64(field)
  if (at % 8 !== 0 || at < SUPERBLOCK.size || at + size > from.length)
    throw new RafsError(
      'BAD_TABLE',
      `the ${name} lies at ${at} with ${size} bytes, outside the bootstrap's ${from.length}; the image is damaged`,
    )
  return at
}

function readBlobs(from: ByteReader, chunkSize: number, flags: number, inlinedId: string | undefined): BlobInfo[] {
  const frames = readFrames(from)
  const entries = from.u32(SUPERBLOCK.extendedBlobEntries)
  if (entries > 0 && entries < frames.length)
    throw new RafsError(
      'BAD_TABLE',
      `the image has ${frames.length} blobs and ${entries} extended entries; it is damaged`,
    )
  const extendedAt =
    entries === 0 ? 0 : place(from, 'extended blob table', SUPERBLOCK.extendedBlobAt, entries * EXTENDED_BLOB.size)
  return frames.map((frame, index) => {
    const id = frame.id === INLINED_BLOB_ID && inlinedId !== undefined ? checkBlobId(inlinedId) : frame.id
    const sizes =
      entries === 0
        ? { chunkCount: 0, features: 0, uncompressedSize: 0, compressedSize: 0 }
        : readExtended(from, extendedAt + index * EXTENDED_BLOB.size, id)
    return {
      index,
      id,
      chunkSize,
      compression: compressionOf(flags),
      digest: digestOf(flags),
      prefetchSize: frame.prefetchSize,
      metaOffset: 0,
      metaCompressedSize: 0,
      metaUncompressedSize: 0,
      metaCompression: 'none',
      tocSize: 0,
      tocDigest: undefined,
      ...sizes,
    }
  })
}

function readFrames(from: ByteReader): Array<{ id: string; prefetchSize: number }> {
  const size = from.u32(SUPERBLOCK.blobTableSize)
  const start = size === 0 ? 0 : place(from, 'blob table', SUPERBLOCK.blobTableAt, size)
  const frames: Array<{ id: string; prefetchSize: number }> = []
  // Up to seven bytes of padding at the end are no frame.
  for (let at = start; start + size - at > BLOB_FRAME.id; ) {
    const id = from.text(at + BLOB_FRAME.id, start + size - at - BLOB_FRAME.id)
    frames.push({ id: checkBlobId(id), prefetchSize: from.u32(at + BLOB_FRAME.prefetchSize) })
    at += BLOB_FRAME.id + id.length + 1
  }
  return frames
}

function readExtended(
  from: ByteReader,
  at: number,
  id: string,
): Pick<BlobInfo, 'chunkCount' | 'features' | 'uncompressedSize' | 'compressedSize'> {
  const chunkCount = from.u32(at + EXTENDED_BLOB.chunkCount)
  if (chunkCount > MAX_CHUNKS)
    throw new RafsError(
      'BAD_TABLE',
      `blob ${id} has ${chunkCount} chunks, more than the format's ${MAX_CHUNKS}; the image is damaged or crafted`,
    )
  const known = Object.values(BLOB_FEATURES).reduce((bits, bit) => bits | bit, 0)
  return {
    chunkCount,
    features: (from.u32(at + EXTENDED_BLOB.features) & known) >>> 0,
    uncompressedSize: from.u64(at + EXTENDED_BLOB.uncompressedSize),
    compressedSize: from.u64(at + EXTENDED_BLOB.compressedSize),
  }
}

function bad(why: string): RafsError {
  return new RafsError('BAD_SUPERBLOCK', `the bootstrap is not a valid RAFS v5 image: ${why}`)
}
