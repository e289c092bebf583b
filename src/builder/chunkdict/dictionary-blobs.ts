import { BLOB_FEATURES, type BlobInfo, ChunkInfo, COMPRESSIONS } from '../../blob/index.ts'
import { type Bootstrap, chunkFrom, type RafsChunk } from '../../rafs/index.ts'
import { BuilderError } from '../errors.ts'
import { toKey } from '../image-path.ts'
import { importedBlob } from '../merge.ts'
import type { StoredChunk } from './chunk-facts.ts'
import type { BlobFact } from './database.ts'

const INFO_V1_SIZE = 16
const ALIGNMENT = 4096
/** What is known of a blob whose image is not at hand: nothing beyond what all plain blobs have. */
const PLAIN_FEATURES = BLOB_FEATURES.ALIGNED | BLOB_FEATURES.CAP_TAR_TOC

/** A blob of a dictionary, and its chunks by number. */
export interface DictionaryBlob {
  readonly blob: BlobInfo
  readonly chunks: readonly RafsChunk[]
}

/** A blob as the images at hand describe it; chunks by their place in the address space, which no two share. */
interface KnownBlob {
  readonly blob: BlobInfo
  readonly chunks: Map<number, RafsChunk>
}

/** Blobs and numbers of chunks, which the database does not have, as the images tell them. */
export class KnownBlobs {
  readonly #images: readonly Bootstrap[]
  readonly #blobs = new Map<string, KnownBlob>()

  constructor(images: readonly Bootstrap[], wanted: ReadonlySet<string>) {
    this.#images = images
    for (const image of images) for (const blob of image.blobs) if (wanted.has(blob.id)) this.#add(image, blob)
  }

  /**
   * The blob of that id with the chunks that the database says it has. Undefined for a blob of no image at hand when the database has gaps: then nothing tells their numbers. Throws
   * BuilderError 'BAD_DATABASE' when database and image disagree.
   */
  describe(id: string, stored: readonly StoredChunk[], fact: BlobFact | undefined): DictionaryBlob | undefined {
    const known = this.#blobs.get(id)
    return known === undefined ? this.#fromDatabase(id, stored, fact) : fromImage(known, stored)
  }

  #add(image: Bootstrap, blob: BlobInfo): void {
    const known = this.#blobs.get(blob.id) ?? { blob, chunks: new Map<number, RafsChunk>() }
    this.#blobs.set(blob.id, known)
    const layout = image.layout(blob.index)
    const info = new ChunkInfo()
    for (let index = layout.next(0); index < layout.chunkCount; index = layout.next(index + 1)) {
      layout.chunk(index, info)
      known.chunks.set(info.uncompressedOffset, chunkFrom(info, 0))
    }
  }

  #fromDatabase(id: string, stored: readonly StoredChunk[], fact: BlobFact | undefined): DictionaryBlob | undefined {
    const [image] = this.#images
    if (fact === undefined || image === undefined)
      throw new BuilderError('BAD_DATABASE', `the database has chunks of blob ${id}, and not the blob`)
    const compression = COMPRESSIONS.find((name) => name === fact.compression)
    if (compression === undefined)
      throw new BuilderError('BAD_DATABASE', `the database says that blob ${id} has compressor ${fact.compression}`)
    const ordered = stored.toSorted((a, b) => a.uncompressedOffset - b.uncompressedOffset)
    const isV6 = image.version === 6
    if (!isWhole(ordered) || (isV6 && fact.metaUncompressedSize % INFO_V1_SIZE !== 0)) return undefined
    const chunkCount = isV6 ? fact.metaUncompressedSize / INFO_V1_SIZE : ordered.length
    if (chunkCount < ordered.length) return undefined
    const blob: BlobInfo = {
      index: 0,
      id,
      features: isV6 ? PLAIN_FEATURES : BLOB_FEATURES.CAP_TAR_TOC,
      chunkSize: image.chunkSize,
      chunkCount,
      compression,
      digest: image.blobs[0]?.digest ?? 'blake3',
      compressedSize: fact.compressedSize,
      uncompressedSize: fact.uncompressedSize,
      prefetchSize: 0,
      metaOffset: fact.metaOffset,
      metaCompressedSize: fact.metaCompressedSize,
      metaUncompressedSize: fact.metaUncompressedSize,
      metaCompression: fact.metaCompressedSize === fact.metaUncompressedSize ? 'none' : compression,
      tocSize: 0,
      tocDigest: undefined,
    }
    const chunks = ordered.map((chunk, index) => ({
      blobIndex: 0,
      index,
      digest: Buffer.from(chunk.digest, 'hex'),
      compressedOffset: chunk.compressedOffset,
      compressedSize: chunk.compressedSize,
      uncompressedOffset: chunk.uncompressedOffset,
      uncompressedSize: chunk.uncompressedSize,
      compressed: compression !== 'none' && chunk.compressedSize !== chunk.uncompressedSize,
      encrypted: false,
      crc32c: undefined,
    }))
    return { blob, chunks: eachDigestOnce(chunks) }
  }
}

/** How the blob stands in the dictionary's table, at that place. */
export function dictionaryBlob(blob: BlobInfo, index: number): BlobInfo {
  const imported = importedBlob(blob, index)
  return { ...imported, features: (imported.features | BLOB_FEATURES.CHUNKDICT_GENERATED) >>> 0 }
}

function fromImage({ blob, chunks }: KnownBlob, stored: readonly StoredChunk[]): DictionaryBlob {
  const found: RafsChunk[] = []
  for (const chunk of stored) {
    const known = chunks.get(chunk.uncompressedOffset)
    // Another image, which is not at hand, uses it: its number is not known.
    if (known === undefined) continue
    const isSame =
      Buffer.from(known.digest).toString('hex') === chunk.digest &&
      known.uncompressedSize === chunk.uncompressedSize &&
      known.compressedOffset === chunk.compressedOffset &&
      known.compressedSize === chunk.compressedSize
    if (!isSame)
      throw new BuilderError(
        'BAD_DATABASE',
        `the database says of the chunk at byte ${chunk.uncompressedOffset} of blob ${blob.id} what its image does not say; give --database a new file`,
      )
    found.push(known)
  }
  return { blob, chunks: eachDigestOnce(found.sort((a, b) => a.index - b.index)) }
}

/** Chunks lie one behind the other from the start on, at multiples of 4096 or not: then they are all that there are up to the last one, and counting gives their numbers. */
function isWhole(ordered: readonly StoredChunk[]): boolean {
  let end = 0
  for (const { uncompressedOffset, uncompressedSize } of ordered) {
    if (uncompressedOffset !== end && uncompressedOffset !== Math.ceil(end / ALIGNMENT) * ALIGNMENT) return false
    end = uncompressedOffset + uncompressedSize
  }
  return true
}

/** RAFS v6 has one record for all chunks of a blob with one digest. */
function eachDigestOnce(chunks: readonly RafsChunk[]): RafsChunk[] {
  const digests = new Set<string>()
  return chunks.filter(({ digest }) => {
    const key = toKey(digest)
    return !digests.has(key) && digests.add(key)
  })
}
