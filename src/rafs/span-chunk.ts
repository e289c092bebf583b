import { BLOB_FEATURES, type BlobInfo, type ChunkInfo } from '../blob/index.ts'
import type { Bootstrap, ChunkSpan } from './bootstrap.ts'

/**
 * Fills `into` with the chunk that a span names; the span must be of the whole chunk, as `chunks` gives it for a whole file. Images of plain tars have no records of chunks: there the span
 * tells all there is, and the digest is zeros. False when the image does not describe it: two chunks of one blob with one digest share a record.
 */
export function readSpanChunk(image: Bootstrap, span: ChunkSpan, into: ChunkInfo): boolean {
  if (!image.isTarfs) {
    const layout = image.layout(span.blobIndex)
    if (!layout.has(span.chunkIndex)) return false
    layout.chunk(span.chunkIndex, into)
    return true
  }
  into.index = span.chunkIndex
  into.compressedOffset = span.chunkOffset
  into.uncompressedOffset = span.chunkOffset
  into.compressedSize = span.length
  into.uncompressedSize = span.length
  into.compressed = false
  into.encrypted = false
  into.batchOffset = 0
  into.batchSize = 0
  into.crc32c = undefined
  into.digest.fill(0)
  return true
}

const WITHOUT_DIGESTS = BLOB_FEATURES.EXTERNAL | BLOB_FEATURES.TARFS

/** False for blobs whose chunks have zeros where others have their digest: these tell nothing. Chunks of external blobs have a CRC-32C. */
export function hasDigests({ features }: Pick<BlobInfo, 'features'>): boolean {
  return (features & WITHOUT_DIGESTS) === 0
}
