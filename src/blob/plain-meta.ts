/** The compression context of blobs whose chunks the bootstrap describes fully: nobody here reads by it, but the cache keeps it for those who do. Source: docs/formats/blob.md, "Compression context". */
import type { BlobInfo } from './blob-info.ts'
import { checkMetaHeader, META_HEADER_SIZE, metaFileOf } from './blob-meta.ts'
import { BlobError } from './errors.ts'

/** True for blobs that have one: those of v5 and layers without data have none. */
export function hasPlainMeta(blob: BlobInfo): boolean {
  return blob.metaCompressedSize > 0 && blob.metaUncompressedSize > 0
}

/** Of 2.8 million chunks and more: it is held in memory while it is kept, and what a crafted image claims must not fill that. */
const MAX_KEPT_BYTES = 64 << 20

/** Bytes of the context's cache form; bounded. Throws BlobError 'BAD_META'. */
export function plainMetaFileSize(blob: BlobInfo): number {
  if (blob.metaUncompressedSize > MAX_KEPT_BYTES || blob.metaCompressedSize > blob.metaUncompressedSize)
    throw new BlobError(
      'BAD_META',
      `blob ${blob.id} has a compression context of ${blob.metaUncompressedSize} bytes, stored in ${blob.metaCompressedSize}; up to ${MAX_KEPT_BYTES} are kept`,
    )
  return Math.ceil(blob.metaUncompressedSize / 4096) * 4096 + META_HEADER_SIZE
}

/** Fetches the context in the form of the cache's file, its header compared with the bootstrap. Throws BlobError, CodecError, or what `read` throws. */
export async function readPlainMeta(
  blob: BlobInfo,
  read: (offset: number, into: Uint8Array) => Promise<void>,
): Promise<Uint8Array> {
  plainMetaFileSize(blob)
  const stored = new Uint8Array(blob.metaCompressedSize + META_HEADER_SIZE)
  await read(blob.metaOffset, stored)
  return metaFileOf(stored, blob)
}

/** Compares the header of a file of the cache with the bootstrap. Throws BlobError 'BAD_META'. */
export function checkPlainMeta(file: Uint8Array, blob: BlobInfo): void {
  checkMetaHeader(file.subarray(file.length - META_HEADER_SIZE), blob)
}
