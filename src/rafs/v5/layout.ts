/**
 * RAFS v5 on disk: tables of offsets, nothing else. Source: docs/formats/rafs-v5.md.
 */

export const MAGIC = 0x5241_4653
export const VERSION = 0x500

/** "Superblock": 8192 bytes at 0. */
export const SUPERBLOCK = {
  size: 8192,
  magic: 0,
  version: 4,
  ownSize: 8,
  blockSize: 12,
  flags: 16,
  inodes: 24,
  inodeTableAt: 32,
  prefetchTableAt: 40,
  blobTableAt: 48,
  inodeTableEntries: 56,
  prefetchTableEntries: 60,
  blobTableSize: 64,
  extendedBlobEntries: 68,
  extendedBlobAt: 72,
} as const

/** "Blob table": u32 prefetch offset, u32 prefetch size, id, NUL (but not after the last). */
export const BLOB_FRAME = { prefetchSize: 4, id: 8 } as const
/** "Extended blob table": 4 + 4 + 8 + 8 + 40 = 64 bytes an entry. */
export const EXTENDED_BLOB = { size: 64, chunkCount: 0, features: 4, uncompressedSize: 8, compressedSize: 16 } as const

/** "Inode": 128 bytes, then name, symlink target, xattrs, chunk records. */
export const INODE = {
  size: 128,
  parent: 32,
  ino: 40,
  uid: 48,
  gid: 52,
  mode: 60,
  fileSize: 64,
  blocks: 72,
  flags: 80,
  nlink: 88,
  childIndex: 92,
  childCount: 96,
  nameSize: 100,
  symlinkSize: 102,
  rdev: 104,
  mtimeNsec: 108,
  mtime: 112,
  /** The first of eight reserved bytes: ours. "Implied directories". */
  implied: 120,
} as const
export const INODE_FLAGS = { SYMLINK: 0x1, HARDLINK: 0x2, XATTR: 0x4, HAS_HOLE: 0x8 } as const

/** Largest bootstrap that the format's readers take. */
export const MAX_SIZE = 0x8000_0000
