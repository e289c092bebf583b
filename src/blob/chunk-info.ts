/**
 * One chunk of a blob: where it lies in both address spaces and what it must hash to.
 * A reused, mutable record: readers fill one that the caller owns, so that loops over chunks allocate nothing.
 */
export class ChunkInfo {
  /** Sequential number in its blob. */
  index = 0
  /** In the blob as stored; bytes. */
  compressedOffset = 0
  compressedSize = 0
  /** In the blob's uncompressed address space, which is the cache's data file; bytes. */
  uncompressedOffset = 0
  uncompressedSize = 0
  /** False: the stored bytes are the chunk itself. */
  compressed = false
  /** Stored bytes are encrypted, with the blob's cipher. */
  encrypted = false
  /** Of a chunk in a batch: where it starts in the plain batch, and how large that is; the stored bytes are the batch's. 0 and 0 for all others. */
  batchOffset = 0
  batchSize = 0
  /** CRC-32C of the uncompressed bytes; undefined when the image does not hold it. */
  crc32c: number | undefined = undefined
  /** Digest of the uncompressed bytes; always filled. */
  readonly digest = new Uint8Array(32)
}
