/**
 * RAFS v6 on disk: tables of offsets, nothing else. Source: docs/formats/rafs-v6.md (the section is named at each).
 */

export const BLOCK_SIZE = 4096
/** Of images whose blobs are plain tars. */
export const TARFS_BLOCK_SIZE = 512
/** Unit of inode numbers ("nid") and of the offset allocator. */
export const SLOT = 32

/** "EROFS superblock": 128 bytes at 1024. */
export const SUPERBLOCK_AT = 1024
export const SUPERBLOCK = {
  size: 128,
  magic: 0,
  checksum: 4,
  featureCompat: 8,
  blockBits: 12,
  extraSlots: 13,
  rootNid: 14,
  inodes: 16,
  blocks: 36,
  metaBlock: 40,
  xattrBlock: 44,
  featureIncompat: 80,
  union: 84,
  extraDevices: 86,
  deviceSlot: 88,
} as const
export const EROFS_MAGIC = 0xe0f5_e1e2
/** Bit 30 of the compatible features: "this is RAFS v6". */
export const FEATURE_RAFS_V6 = 0x4000_0000
/** Chunked files 0x4 + device table 0x8. */
export const FEATURES_INCOMPAT = 0xc

/** "RAFS superblock": 256 bytes at 1024 + 128. */
export const EXTENDED_AT = 1152
export const EXTENDED = {
  size: 256,
  flags: 0,
  blobTableAt: 8,
  blobTableSize: 16,
  chunkSize: 20,
  chunkTableAt: 24,
  chunkTableSize: 32,
  prefetchAt: 40,
  prefetchSize: 48,
} as const

/** "Device slots": 128 bytes each, from 1152 + 256 = 1408 = 11 × 128. */
export const DEVICES_AT = 1408
export const DEVICE_SLOT = { size: 128, tag: 0, tagLength: 64, blocks: 64, mappedBlock: 68 } as const

/** "Blob table": 256 bytes an entry. */
export const BLOB_ENTRY = {
  size: 256,
  id: 0,
  idLength: 64,
  index: 64,
  chunkSize: 68,
  chunkCount: 72,
  compression: 76,
  digest: 80,
  features: 84,
  compressedSize: 88,
  uncompressedSize: 96,
  tocSize: 104,
  metaCompression: 108,
  metaOffset: 112,
  metaCompressedSize: 120,
  metaUncompressedSize: 128,
  tocDigest: 136,
  metaDigest: 168,
  metaSize: 200,
  /** Encrypted blobs keep key and tweak where others name the blob of their compression context. */
  cipherKey: 168,
  cipherIv: 200,
  cipher: 216,
} as const

/** The only cipher there is. */
export const AES_128_XTS = 1

/** "Inodes": compact 32 bytes, extended 64; both start with format, xattr count and mode. */
export const COMPACT = {
  size: 32,
  format: 0,
  xattrCount: 2,
  mode: 4,
  nlink: 6,
  fileSize: 8,
  union: 16,
  ino: 20,
  uid: 24,
  gid: 26,
} as const
export const EXTENDED_INODE = {
  size: 64,
  format: 0,
  xattrCount: 2,
  mode: 4,
  fileSize: 8,
  union: 16,
  ino: 20,
  uid: 24,
  gid: 28,
  mtime: 32,
  mtimeNsec: 40,
  nlink: 44,
  /** The first of sixteen reserved bytes: ours. "Implied directories". */
  implied: 48,
} as const
/** Bits 1 to 3 of the format. */
export const DATA_LAYOUT = { PLAIN: 0, INLINE: 2, CHUNKS: 4 } as const

/** "Directories": 8 + 2 + 1 + 1 = 12 bytes a dirent. */
export const DIRENT = { size: 12, nid: 0, nameOffset: 8, type: 10 } as const

/** "Chunk addresses": 2 + 2 + 4 = 8 bytes. */
export const CHUNK_ADDRESS = { size: 8, indexLow: 0, device: 2, block: 4 } as const
/** Chunk format word: bits 0 to 4 = log2(chunk size / block size), this bit = addresses follow. */
export const CHUNK_FORMAT_INDEXES = 0x20

/** "Extended attributes": a 12-byte header, then entries of 4 bytes, suffix and value, padded to 4. */
export const XATTR_HEADER_SIZE = 12
export const XATTR_ENTRY = { size: 4, nameLength: 0, nameIndex: 1, valueSize: 2 } as const
/** Prefix by name index; order is that in which a name is matched when written. */
export const XATTR_PREFIXES: ReadonlyArray<readonly [number, string]> = [
  [1, 'user.'],
  [2, 'system.posix_acl_access'],
  [3, 'system.posix_acl_default'],
  [4, 'trusted.'],
  [6, 'security.'],
]

/** Blob addresses keep index + 1 in a byte, and 255 is not used. Source: docs/formats/rafs-v6.md, "Chunk addresses". */
export const MAX_BLOBS = 254
export const MAX_BLOB_UNCOMPRESSED = 2 ** 44
/** Chunk infos with what belongs to them (contexts, dictionaries) of one blob: far beyond any real one, and what memory can be asked for. */
export const MAX_META = 2 ** 30
