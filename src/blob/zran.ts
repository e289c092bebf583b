/**
 * Chunks of a gzip layer that stays as it is: each lies in a slice of the gzip, which is inflated from a context (bit position and the 32 KiB before). Source: docs/formats/blob.md, "Zran contexts".
 */
import type { InflateStart } from '../codec/index.ts'
import type { BlobInfo } from './blob-info.ts'
import { checkMetaHeader, META_HEADER_SIZE, metaFileOf } from './blob-meta.ts'
import { INFO_V2_SIZE } from './chunk-infos.ts'
import { BlobError } from './errors.ts'

/** 8 × 3 + 4 × 3 + 1 + 1 + 2 = 40 bytes. */
export const CONTEXT = {
  size: 40,
  compressedOffset: 0,
  uncompressedOffset: 8,
  dictionaryOffset: 16,
  compressedSize: 24,
  uncompressedSize: 28,
  dictionarySize: 32,
  byte: 36,
  bits: 37,
} as const
/** Of the header: where contexts start in the plain infos, bytes of them with their dictionaries, and how many. */
const HEADER = { contextsAt: 40, contextsSize: 48, contexts: 56 } as const
/** Third word of a chunk info of version 2: offset in the context's output, then the context's number. */
const INFO = { flags: 7, size: 4, offsetInContext: 16, context: 20, zran: 0x2 } as const
/** Infos count uncompressed offsets in blocks. */
const BLOCK_BYTES = 4096
const MAX_DICTIONARY_BYTES = 1 << 15
/** A slice is fetched whole. Builders make them of 1 MiB; one of this size is a gzip of one giant block. */
export const MAX_SLICE_BYTES = 256 << 20
/** Infos, contexts and dictionaries of one blob. */
export const MAX_META_BYTES = 256 << 20

/** A slice of the gzip, and how to inflate it. Its dictionary is a view. */
export interface ZranContext extends InflateStart {
  readonly compressedOffset: number
  readonly compressedSize: number
  readonly uncompressedSize: number
}

/** Reads bytes of the blob that holds the compression context. */
export type ReadStored = (offset: number, into: Uint8Array) => Promise<void>

/** Bytes of the context's cache form; bounded. Throws BlobError 'BAD_META'. */
export function zranMetaFileSize(blob: BlobInfo): number {
  if (blob.metaUncompressedSize > MAX_META_BYTES)
    throw new BlobError(
      'BAD_META',
      `blob ${blob.id} has a compression context of ${blob.metaUncompressedSize} bytes; up to ${MAX_META_BYTES} are read`,
    )
  return Math.ceil(blob.metaUncompressedSize / 4096) * 4096 + META_HEADER_SIZE
}

/** Fetches the compression context of a zran blob, in the form of the cache's file. Throws BlobError, CodecError, or what `read` throws. */
export async function readZranMeta(blob: BlobInfo, read: ReadStored): Promise<Uint8Array> {
  zranMetaFileSize(blob)
  const stored = new Uint8Array(blob.metaCompressedSize + META_HEADER_SIZE)
  await read(blob.metaOffset, stored)
  return metaFileOf(stored, blob)
}

/** Which slice each chunk of a zran blob comes from. Opening checks the contexts, asking checks the chunk. Throws BlobError 'BAD_META'. */
export class ZranIndex {
  readonly contextCount: number
  readonly #bytes: Uint8Array
  readonly #view: DataView
  readonly #blob: BlobInfo
  readonly #contextsAt: number

  /** `metaFile`: the compression context in the form of the cache's file. */
  constructor(metaFile: Uint8Array, blob: BlobInfo) {
    this.#bytes = metaFile
    this.#view = new DataView(metaFile.buffer, metaFile.byteOffset, metaFile.byteLength)
    this.#blob = blob
    if (metaFile.length !== zranMetaFileSize(blob)) throw this.#bad(`it has ${metaFile.length} bytes`)
    const header = metaFile.length - META_HEADER_SIZE
    checkMetaHeader(metaFile.subarray(header), blob)
    this.contextCount = this.#view.getUint32(header + HEADER.contexts, true)
    this.#contextsAt = this.#u64(header + HEADER.contextsAt)
    const size = this.#u64(header + HEADER.contextsSize)
    const { chunkCount, metaUncompressedSize } = blob
    if (this.#contextsAt !== chunkCount * INFO_V2_SIZE) throw this.#bad(`its contexts start at ${this.#contextsAt}`)
    if (this.#contextsAt + size > metaUncompressedSize || this.contextCount * CONTEXT.size > size)
      throw this.#bad(`${this.contextCount} contexts do not fit ${size} bytes`)
    if (this.contextCount > chunkCount) throw this.#bad(`${this.contextCount} contexts for ${chunkCount} chunks`)
    for (let index = 0; index < this.contextCount; index += 1) this.#check(index, this.#contextsAt + size)
  }

  /** Number of the context of a chunk. */
  contextOf(chunk: number): number {
    const at = this.#info(chunk)
    if (((this.#bytes[at + INFO.flags] ?? 0) & INFO.zran) === 0) throw this.#bad(`chunk ${chunk} lies in no context`)
    const context = this.#view.getUint32(at + INFO.context, true)
    if (context >= this.contextCount) throw this.#bad(`chunk ${chunk} names context ${context} of ${this.contextCount}`)
    return context
  }

  /** Where a chunk of that size starts in the plain bytes of its context. */
  offsetOf(chunk: number, uncompressedSize: number): number {
    const at = this.#info(chunk)
    const offset = this.#view.getUint32(at + INFO.offsetInContext, true)
    const { uncompressedSize: whole } = this.context(this.contextOf(chunk))
    const size = (this.#view.getUint32(at + INFO.size, true) & 0xff_ffff) + 1
    if (size !== uncompressedSize)
      throw this.#bad(`chunk ${chunk} has ${size} bytes, the bootstrap wants ${uncompressedSize}`)
    if (offset + size > whole) throw this.#bad(`chunk ${chunk} ends at ${offset + size} of a context of ${whole} bytes`)
    return offset
  }

  /** Plain bytes of a chunk, and where they lie in the blob's uncompressed address space. */
  placeOf(chunk: number): { readonly uncompressedOffset: number; readonly uncompressedSize: number } {
    const at = this.#info(chunk)
    return {
      uncompressedOffset: this.#view.getUint32(at, true) * BLOCK_BYTES,
      uncompressedSize: (this.#view.getUint32(at + INFO.size, true) & 0xff_ffff) + 1,
    }
  }

  context(index: number): ZranContext {
    const at = this.#contextsAt + index * CONTEXT.size
    const dictionaries = this.#contextsAt + this.contextCount * CONTEXT.size
    const from = dictionaries + this.#u64(at + CONTEXT.dictionaryOffset)
    return {
      compressedOffset: this.#u64(at + CONTEXT.compressedOffset),
      compressedSize: this.#view.getUint32(at + CONTEXT.compressedSize, true),
      uncompressedSize: this.#view.getUint32(at + CONTEXT.uncompressedSize, true),
      bits: (this.#bytes[at + CONTEXT.bits] ?? 0) & 0x7,
      byte: this.#bytes[at + CONTEXT.byte] ?? 0,
      dictionary: this.#bytes.subarray(from, from + this.#view.getUint32(at + CONTEXT.dictionarySize, true)),
    }
  }

  #check(index: number, end: number): void {
    const at = this.#contextsAt + index * CONTEXT.size
    const size = this.#view.getUint32(at + CONTEXT.dictionarySize, true)
    const from = this.#contextsAt + this.contextCount * CONTEXT.size + this.#u64(at + CONTEXT.dictionaryOffset)
    if (size > MAX_DICTIONARY_BYTES || from + size > end)
      throw this.#bad(`context ${index} has a window of ${size} bytes at ${from}, which cannot be`)
    const { compressedOffset, compressedSize } = this.context(index)
    if (compressedOffset + compressedSize > this.#blob.compressedSize)
      throw this.#bad(
        `context ${index} ends at byte ${compressedOffset + compressedSize} of a blob of ${this.#blob.compressedSize}`,
      )
    if (compressedSize > MAX_SLICE_BYTES)
      throw this.#bad(`context ${index} has ${compressedSize} bytes; up to ${MAX_SLICE_BYTES} are read`)
  }

  #info(chunk: number): number {
    if (chunk < 0 || chunk >= this.#blob.chunkCount)
      throw new BlobError(
        'OUT_OF_RANGE',
        `blob ${this.#blob.id} has ${this.#blob.chunkCount} chunks, no number ${chunk}`,
      )
    return chunk * INFO_V2_SIZE
  }

  #u64(at: number): number {
    const value = Number(this.#view.getBigUint64(at, true))
    if (!Number.isSafeInteger(value)) throw this.#bad('a number beyond 2^53')
    return value
  }

  #bad(what: string): BlobError {
    return new BlobError(
      'BAD_META',
      `the compression context of blob ${this.#blob.id}: ${what}; it is damaged or crafted`,
    )
  }
}
