/**
 * Algorithm identifiers as images store them.
 * Source: docs/formats/blob.md, "Algorithms".
 */
import type { CompressionName, DigestName } from '../codec/index.ts'

/** Compression of chunks and of metadata regions, by stored id: 0 none, 1 LZ4 block, 2 gzip, 3 zstd. */
export const COMPRESSIONS: readonly CompressionName[] = ['none', 'lz4_block', 'gzip', 'zstd']

/** Digest of chunks, by stored id: 0 BLAKE3, 1 SHA-256; both 32 bytes. */
export const DIGESTS: readonly DigestName[] = ['blake3', 'sha256']
