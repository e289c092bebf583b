/**
 * Chunk dictionaries that `chunkdict generate` makes: a root with one file, which lists the chunks of many blobs and is not made of them. Source: docs/formats/rafs-v6.md, "Chunk dictionaries".
 */
import { BLOB_FEATURES, type BlobInfo, ChunkInfo } from '../blob/index.ts'
import { type Bootstrap, ChunkSpan, type Ino } from './bootstrap.ts'
import type { ByteReader } from './byte-reader.ts'
import { CHUNK_RECORD } from './chunk-record.ts'
import { SLASH } from './names.ts'

/** The name of the file. */
export const DICTIONARY_NAME = 'chunkdict'
/** As the original writes it: with a slash, and in v5 cut at the length without. */
const ORIGINAL_NAMES: readonly string[] = [`/${DICTIONARY_NAME}`, `/${DICTIONARY_NAME.slice(0, -1)}`]
const BLOCK_SIZE = 4096
/** No blob's address space is longer. */
const MAX_UNCOMPRESSED = 2 ** 44

type Table = Pick<Bootstrap, 'inodeCount' | 'blobs'>

/** True when all blobs are a dictionary's, and nothing is in the image but the root and one file. */
export function isDictionary({ inodeCount, blobs }: Table): boolean {
  if (inodeCount !== 2 || blobs.length === 0) return false
  return blobs.every(({ features }) => (features & BLOB_FEATURES.CHUNKDICT_GENERATED) !== 0)
}

/** The original's name of a dictionary's file without its slash; any other name as it is. */
export function plainName(name: Uint8Array): Uint8Array {
  if (name[0] !== SLASH) return name
  return ORIGINAL_NAMES.includes(Buffer.from(name).toString('latin1')) ? name.subarray(1) : name
}

/** The original counts a blob's address space without the gaps between chunks: these are the blobs with what the records at `places` need. */
export function withWholeBlobs(from: ByteReader, blobs: readonly BlobInfo[], places: Iterable<number>): BlobInfo[] {
  const ends = blobs.map(({ uncompressedSize }) => uncompressedSize)
  for (const at of places) {
    const index = from.u32(at + CHUNK_RECORD.blobIndex)
    const end = from.u64(at + CHUNK_RECORD.uncompressedOffset) + from.u32(at + CHUNK_RECORD.uncompressedSize)
    const known = ends[index]
    if (known !== undefined && end > known && end <= MAX_UNCOMPRESSED) ends[index] = end
  }
  return blobs.map((blob, index) => {
    const end = ends[index] ?? 0
    if (end === blob.uncompressedSize) return blob
    const isAligned = (blob.features & BLOB_FEATURES.ALIGNED) !== 0
    return { ...blob, uncompressedSize: isAligned ? Math.ceil(end / BLOCK_SIZE) * BLOCK_SIZE : end }
  })
}

/** The chunks of a file, as `Bootstrap.chunks` gives them; of a dictionary's file all that the image has, by blob and number. */
export function listChunks(image: Bootstrap, ino: Ino, size: number, into: ChunkSpan[]): number {
  if (!isDictionary(image)) return image.chunks(ino, 0, size, into)
  const info = new ChunkInfo()
  let count = 0
  for (const { index: blobIndex } of image.blobs) {
    const layout = image.layout(blobIndex)
    for (let chunkIndex = layout.next(0); chunkIndex < layout.chunkCount; chunkIndex = layout.next(chunkIndex + 1)) {
      layout.chunk(chunkIndex, info)
      const span = (into[count++] ??= new ChunkSpan())
      span.blobIndex = blobIndex
      span.chunkIndex = chunkIndex
      span.chunkOffset = info.uncompressedOffset
      span.offsetInChunk = 0
      span.length = info.uncompressedSize
    }
  }
  return count
}
