import type { CompressionName, DigestName } from '../codec/index.ts'
import type { BlobCipher } from './encryption.ts'

/** Blob feature bits (u32). Source: docs/formats/blob.md, "Features". */
export const BLOB_FEATURES = {
  ALIGNED: 0x1,
  INLINED_FS_META: 0x2,
  CHUNK_INFO_V2: 0x4,
  ZRAN: 0x8,
  SEPARATE: 0x10,
  INLINED_CHUNK_DIGEST: 0x20,
  TARFS: 0x40,
  BATCH: 0x80,
  ENCRYPTED: 0x100,
  CHUNKDICT_GENERATED: 0x200,
  EXTERNAL: 0x800,
  HAS_TAR_HEADER: 0x1000_0000,
  HAS_TOC: 0x2000_0000,
  CAP_TAR_TOC: 0x4000_0000,
} as const

/**
 * What a bootstrap says about one data blob: the same nouns for RAFS v5 and v6.
 * Sizes and offsets are bytes. Fields that v5 cannot hold are 0 or empty (see each).
 */
export interface BlobInfo {
  /** Position in the image's blob table. */
  readonly index: number
  /** As stored: 64 hex digits, or 64 times `x` in an inlined bootstrap (the file's name is the id then). */
  readonly id: string
  /** {@link BLOB_FEATURES} bits. */
  readonly features: number
  readonly chunkSize: number
  readonly chunkCount: number
  readonly compression: CompressionName
  readonly digest: DigestName
  readonly compressedSize: number
  /** Length of the uncompressed address space: the size of the cache's data file. */
  readonly uncompressedSize: number
  /** Bytes at the head of the blob worth fetching first; RAFS v5 only. */
  readonly prefetchSize: number
  /** Compression information (the chunk info array), in the blob; all 0 for v5. */
  readonly metaOffset: number
  readonly metaCompressedSize: number
  readonly metaUncompressedSize: number
  readonly metaCompression: CompressionName
  /** Table of contents: bytes at the blob's end (entries and tar header), 0 = unknown; and its SHA-256, undefined = unknown. */
  readonly tocSize: number
  readonly tocDigest: Uint8Array | undefined
  /** SEPARATE blobs of v6: SHA-256 (the id) and size of the blob that holds their compression context; undefined or absent for all others. A merge must carry them on. */
  readonly metaBlobDigest?: Uint8Array | undefined
  readonly metaBlobSize?: number | undefined
  /** SEPARATE blobs: the id of that blob, which for an inlined bootstrap is the file that it came from; undefined when nobody said its name. */
  readonly metaBlobId?: string | undefined
  /** ENCRYPTED blobs of v6: the key of their chunks and of their compression context; undefined or absent for all others. */
  readonly cipher?: BlobCipher | undefined
}
