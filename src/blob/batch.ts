/**
 * Chunks of small files that are stored together: one compressed unit, from which each is cut. Source: docs/formats/blob.md, "Batch contexts".
 */
import type { BlobInfo } from './blob-info.ts'
import type { BlobLayout } from './blob-layout.ts'
import { checkMetaHeader, META_HEADER_SIZE, metaFileOf } from './blob-meta.ts'
import type { ChunkInfo } from './chunk-info.ts'
import { INFO_V2_SIZE } from './chunk-infos.ts'
import { encryptedSize } from './encryption.ts'
import { BlobError } from './errors.ts'

/** 4 × 2 + 32 of zeros = 40 bytes. */
const CONTEXT = { size: 40, compressedSize: 0, uncompressedSize: 4 } as const
/** Of the header: where contexts start in the plain infos, bytes of them, and how many. */
const HEADER = { contextsAt: 40, contextsSize: 48, contexts: 56 } as const
/** A chunk info of version 2; its third word: offset in the plain batch, then the batch's number. */
const INFO = { size: 4, flags: 7, compressedOffset: 8, offsetInBatch: 16, batch: 20, isBatch: 0x4 } as const
/** Infos and contexts of the most chunks that a blob may have. */
const MAX_META_BYTES = 2 ** 24 * (INFO_V2_SIZE + CONTEXT.size)

/** Reads bytes of the blob. */
type ReadStored = (offset: number, into: Uint8Array) => Promise<void>

/** Encodes the context of a batch: its bytes as stored, and plain. */
export function encodeBatchContext(compressedSize: number, uncompressedSize: number): Uint8Array {
  const bytes = new Uint8Array(CONTEXT.size)
  const view = new DataView(bytes.buffer)
  view.setUint32(CONTEXT.compressedSize, compressedSize, true)
  view.setUint32(CONTEXT.uncompressedSize, uncompressedSize, true)
  return bytes
}

/** Bytes of the compression context's cache form; bounded. Throws BlobError 'BAD_META'. */
export function batchMetaFileSize(blob: BlobInfo): number {
  const most = Math.min(MAX_META_BYTES, blob.chunkCount * (INFO_V2_SIZE + CONTEXT.size))
  if (blob.metaUncompressedSize > most || blob.metaCompressedSize > blob.metaUncompressedSize)
    throw new BlobError(
      'BAD_META',
      `blob ${blob.id} has a compression context of ${blob.metaUncompressedSize} bytes; ${blob.chunkCount} chunks need up to ${most}`,
    )
  return Math.ceil(blob.metaUncompressedSize / 4096) * 4096 + META_HEADER_SIZE
}

/** Fetches the compression context of a batch blob, in the form of the cache's file. Throws BlobError, CodecError, or what `read` throws. */
export async function readBatchMeta(blob: BlobInfo, read: ReadStored): Promise<Uint8Array> {
  batchMetaFileSize(blob)
  const stored = new Uint8Array(blob.metaCompressedSize + META_HEADER_SIZE)
  await read(blob.metaOffset, stored)
  return metaFileOf(stored, blob)
}

/**
 * The layout of a batch blob: `records` are the bootstrap's, which know digests, and of chunks in batches nothing else; where those are stored the compression context tells. Opening
 * checks the contexts, asking checks the chunk. Throws BlobError 'BAD_META'.
 */
export function openBatchLayout(records: BlobLayout, metaFile: Uint8Array, blob: BlobInfo): BlobLayout {
  return new BatchLayout(records, metaFile, blob)
}

class BatchLayout implements BlobLayout {
  readonly chunkCount: number
  readonly uncompressedSize: number
  readonly #records: BlobLayout
  readonly #view: DataView
  readonly #blob: BlobInfo
  readonly #contextsAt: number
  readonly #contexts: number

  constructor(records: BlobLayout, metaFile: Uint8Array, blob: BlobInfo) {
    this.chunkCount = records.chunkCount
    this.uncompressedSize = records.uncompressedSize
    this.#records = records
    this.#view = new DataView(metaFile.buffer, metaFile.byteOffset, metaFile.byteLength)
    this.#blob = blob
    if (metaFile.length !== batchMetaFileSize(blob)) throw this.#bad(`it has ${metaFile.length} bytes`)
    const header = metaFile.length - META_HEADER_SIZE
    checkMetaHeader(metaFile.subarray(header), blob)
    const [at, size] = [HEADER.contextsAt, HEADER.contextsSize].map((field) =>
      Number(this.#view.getBigUint64(header + field, true)),
    ) as [number, number] // two fields, two numbers
    this.#contextsAt = at
    this.#contexts = this.#view.getUint32(header + HEADER.contexts, true)
    if (at < blob.chunkCount * INFO_V2_SIZE || at + size > blob.metaUncompressedSize)
      throw this.#bad(`its contexts lie at ${at} with ${size} bytes`)
    if (this.#contexts * CONTEXT.size > size) throw this.#bad(`${this.#contexts} contexts do not fit ${size} bytes`)
  }

  has(index: number): boolean {
    return this.#records.has(index) && index < this.#blob.chunkCount
  }

  next(index: number): number {
    return this.#records.next(index)
  }

  chunk(index: number, into: ChunkInfo): void {
    this.#records.chunk(index, into)
    if (index >= this.#blob.chunkCount) throw this.#bad(`it does not describe chunk ${index}`)
    const at = index * INFO_V2_SIZE
    if ((this.#view.getUint8(at + INFO.flags) & INFO.isBatch) === 0) return
    const size = (this.#view.getUint32(at + INFO.size, true) & 0xff_ffff) + 1
    if (size !== into.uncompressedSize)
      throw this.#bad(`chunk ${index} has ${size} bytes, the bootstrap wants ${into.uncompressedSize}`)
    this.#place(index, at, into)
  }

  #place(index: number, at: number, into: ChunkInfo): void {
    const view = this.#view
    const batch = view.getUint32(at + INFO.batch, true)
    if (batch >= this.#contexts) throw this.#bad(`chunk ${index} names batch ${batch} of ${this.#contexts}`)
    const context = this.#contextsAt + batch * CONTEXT.size
    into.compressedOffset =
      view.getUint8(at + INFO.compressedOffset + 4) * 2 ** 32 + view.getUint32(at + INFO.compressedOffset, true)
    into.compressedSize = view.getUint32(context + CONTEXT.compressedSize, true)
    into.batchOffset = view.getUint32(at + INFO.offsetInBatch, true)
    into.batchSize = view.getUint32(context + CONTEXT.uncompressedSize, true)
    const { compressedOffset, compressedSize, batchOffset, batchSize, uncompressedSize } = into
    // Batches are smaller than chunks may be: the limit of what is inflated.
    if (batchSize > this.#blob.chunkSize)
      throw this.#bad(`batch ${batch} has ${batchSize} bytes, more than a chunk of ${this.#blob.chunkSize}`)
    const most = into.encrypted ? encryptedSize(batchSize) : batchSize
    if (compressedSize === 0 || compressedSize > most)
      throw this.#bad(`batch ${batch} of ${batchSize} bytes is stored in ${compressedSize}`)
    if (batchOffset + uncompressedSize > batchSize)
      throw this.#bad(`chunk ${index} ends at ${batchOffset + uncompressedSize} of a batch of ${batchSize} bytes`)
    if (compressedOffset + compressedSize > this.#blob.compressedSize)
      throw this.#bad(
        `batch ${batch} ends at byte ${compressedOffset + compressedSize} of a blob of ${this.#blob.compressedSize}`,
      )
  }

  #bad(what: string): BlobError {
    return new BlobError(
      'BAD_META',
      `the compression context of blob ${this.#blob.id}: ${what}; it is damaged or crafted`,
    )
  }
}
