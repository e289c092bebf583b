/** The blob room: where chunks lie, what decodes them, and the only mint of verified bytes. */
export { COMPRESSIONS, DIGESTS } from './algorithms.ts'
export type { BlobInfo } from './blob-info.ts'
export { BLOB_FEATURES } from './blob-info.ts'
export type { BlobLayout } from './blob-layout.ts'
export { ChunkInfo } from './chunk-info.ts'
export type { BlobErrorCode } from './errors.ts'
export { BlobError } from './errors.ts'
export type { VerifiedChunk } from './verified-chunk.ts'
