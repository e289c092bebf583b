import { BLOB_FEATURES, type BlobInfo, ChunkInfo } from '../blob/index.ts'
import { CIPHER_PAGE_BYTES } from '../codec/index.ts'
import { type CacheForm, type ChunkCache, openChunkCache } from '../cache/index.ts'
import type { ImageBlobParts } from './image-blob.ts'

/** Opens the cache of a blob in the form that the image is to have; undefined without a place for one. Throws CacheError. */
export async function openCache(
  parts: ImageBlobParts,
  chunkCount: number,
  uncompressedSize: number,
): Promise<ChunkCache | undefined> {
  const { info, cacheDirectory: directory, cacheForm } = parts
  if (directory === undefined) return undefined
  const form = formOf(parts)
  // Pages of chunks that share one would spoil each other, and plain data must not be on disk.
  if (form.kind === 'encrypted' && !isAligned(parts)) return undefined
  const isAlwaysVerified = cacheForm?.validate === true
  return await openChunkCache({ directory, blobId: info.id, chunkCount, uncompressedSize, form, isAlwaysVerified })
}

function formOf({ info, bootstrap, cacheForm, dedup }: ImageBlobParts): CacheForm {
  if (cacheForm?.compressed === true) {
    const size = storedDataSize(info)
    return { kind: 'stored', size: size > 0 ? size : endOfChunks(bootstrap.layout(info.index)) }
  }
  if (cacheForm?.encryption === undefined) return { kind: 'plain' }
  const { key, convergent } = cacheForm.encryption
  // What upstream knows of digests: those of v5; of v6, where its chunks are those of the compression context, the ones in the blob, when it has a use for them.
  const hasContext = info.metaCompressedSize > 0 && info.metaUncompressedSize > 0
  const areInBlob = (info.features & BLOB_FEATURES.INLINED_CHUNK_DIGEST) !== 0
  const isDigestKnown = !hasContext || (areInBlob && (cacheForm.validate || dedup !== undefined))
  return { kind: 'encrypted', key, convergent: convergent ? (isDigestKnown ? 'digest' : 'constant') : undefined }
}

const TAR_HEADER_BYTES = 512

/** Bytes of the blob that hold chunks: what a cache of stored bytes is as long as. Source: docs/formats/cache.md, "Compressed caches". 0 = nobody said. */
function storedDataSize(blob: BlobInfo): number {
  const { features, compressedSize, metaOffset, metaCompressedSize, metaUncompressedSize } = blob
  if ((features & BLOB_FEATURES.SEPARATE) !== 0 || (features & BLOB_FEATURES.CAP_TAR_TOC) === 0) return compressedSize
  const end = metaCompressedSize > 0 && metaUncompressedSize > 0 ? metaOffset : compressedSize
  return Math.max(0, end - ((features & BLOB_FEATURES.HAS_TAR_HEADER) === 0 ? 0 : TAR_HEADER_BYTES))
}

type Layout = ReturnType<ImageBlobParts['bootstrap']['layout']>

function* chunksOf(layout: Layout): Generator<ChunkInfo> {
  const info = new ChunkInfo()
  for (let index = layout.next(0); index < layout.chunkCount; index = layout.next(index + 1)) {
    layout.chunk(index, info)
    yield info
  }
}

/** Images of v5 do not say it. */
function isAligned({ info, bootstrap }: ImageBlobParts): boolean {
  if ((info.features & BLOB_FEATURES.ALIGNED) !== 0) return true
  for (const { uncompressedOffset } of chunksOf(bootstrap.layout(info.index)))
    if (uncompressedOffset % CIPHER_PAGE_BYTES !== 0) return false
  return true
}

function endOfChunks(layout: Layout): number {
  let end = 0
  for (const info of chunksOf(layout))
    end = Math.max(
      end,
      info.compressedOffset + Math.max(info.compressedSize, info.compressed ? 0 : info.uncompressedSize),
    )
  return end
}
