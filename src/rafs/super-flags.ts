import type { CompressionName, DigestName } from '../codec/index.ts'
import { RafsError } from './errors.ts'

/** Flags of both superblocks (u64, all in its low half). Source: docs/formats/rafs-v6.md, "Flags". */
export const SUPER_FLAGS = {
  COMPRESSION_NONE: 0x1,
  COMPRESSION_LZ4: 0x2,
  HASH_BLAKE3: 0x4,
  HASH_SHA256: 0x8,
  EXPLICIT_UID_GID: 0x10,
  HAS_XATTR: 0x20,
  COMPRESSION_GZIP: 0x40,
  COMPRESSION_ZSTD: 0x80,
  INLINED_CHUNK_DIGEST: 0x100,
  TARFS_MODE: 0x200,
  ENCRYPTION_NONE: 0x100_0000,
  ENCRYPTION_AES_128_XTS: 0x200_0000,
} as const

/** Known bits, and those that older and newer versions reserve as harmless. */
const ACCEPTED = 0xff00_0000 + 0x3ff

const COMPRESSION_FLAGS: ReadonlyArray<readonly [number, CompressionName]> = [
  [SUPER_FLAGS.COMPRESSION_NONE, 'none'],
  [SUPER_FLAGS.COMPRESSION_LZ4, 'lz4_block'],
  [SUPER_FLAGS.COMPRESSION_GZIP, 'gzip'],
  [SUPER_FLAGS.COMPRESSION_ZSTD, 'zstd'],
]

/** Reads a flags field (its low and high word). Throws 'BAD_SUPERBLOCK' for bits that nobody knows. */
export function checkFlags(low: number, high: number): number {
  if (high !== 0 || (low & ~ACCEPTED) !== 0)
    throw new RafsError(
      'BAD_SUPERBLOCK',
      `superblock flags 0x${high.toString(16)}${low.toString(16).padStart(8, '0')} have unknown bits; the image is newer than this reader, or damaged`,
    )
  return low
}

/** The image's default compression; of several bits the strongest, of none `none`, as old images have it. */
export function compressionOf(flags: number): CompressionName {
  return COMPRESSION_FLAGS.findLast(([bit]) => (flags & bit) !== 0)?.[1] ?? 'none'
}

export function digestOf(flags: number): DigestName {
  return (flags & SUPER_FLAGS.HASH_SHA256) !== 0 && (flags & SUPER_FLAGS.HASH_BLAKE3) === 0 ? 'sha256' : 'blake3'
}

export function compressionFlag(name: CompressionName): number {
  return COMPRESSION_FLAGS.find(([, known]) => known === name)?.[0] ?? SUPER_FLAGS.COMPRESSION_NONE
}

export function digestFlag(name: DigestName): number {
  return name === 'sha256' ? SUPER_FLAGS.HASH_SHA256 : SUPER_FLAGS.HASH_BLAKE3
}
