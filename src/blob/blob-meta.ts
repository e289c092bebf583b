/**
 * The compression context: chunk infos and a header of 4096 bytes. In the blob the infos may be compressed; in the cache's `.blob.meta` file they are plain and padded to 4096.
 * Source: docs/formats/blob.md, "Compression context".
 */
import { type CompressionName, decompressor } from '../codec/index.ts'
import { COMPRESSIONS } from './algorithms.ts'
import { BLOB_FEATURES, type BlobInfo } from './blob-info.ts'
import type { BlobLayout } from './blob-layout.ts'
import type { ChunkInfo } from './chunk-info.ts'
import { decodeInfo, INFO_V1_SIZE, INFO_V2_SIZE } from './chunk-infos.ts'
import { decrypt } from './encryption.ts'
import { BlobError } from './errors.ts'

export const META_HEADER_SIZE = 4096
const MAGIC = 0xb10b_b10b
const HEADER = {
  magic: 0,
  features: 4,
  compression: 8,
  entries: 12,
  offset: 16,
  compressedSize: 24,
  uncompressedSize: 32,
  contextsAt: 40,
  contextsSize: 48,
  contexts: 56,
  magic2: 4092,
} as const

/** What the header says. */
export interface MetaHeader {
  readonly features: number
  readonly compression: CompressionName
  readonly entries: number
  readonly offset: number
  readonly compressedSize: number
  readonly uncompressedSize: number
  /** What follows the infos in the same plain bytes: where, how much, and how many contexts that is. */
  readonly contexts?: { readonly at: number; readonly size: number; readonly count: number } | undefined
}

export function encodeMetaHeader(of: MetaHeader): Uint8Array {
  const header = Buffer.alloc(META_HEADER_SIZE)
  header.writeUInt32LE(MAGIC, HEADER.magic)
  header.writeUInt32LE(of.features, HEADER.features)
  header.writeUInt32LE(COMPRESSIONS.indexOf(of.compression), HEADER.compression)
  header.writeUInt32LE(of.entries, HEADER.entries)
  header.writeBigUInt64LE(BigInt(of.offset), HEADER.offset)
  header.writeBigUInt64LE(BigInt(of.compressedSize), HEADER.compressedSize)
  header.writeBigUInt64LE(BigInt(of.uncompressedSize), HEADER.uncompressedSize)
  if (of.contexts !== undefined) {
    header.writeBigUInt64LE(BigInt(of.contexts.at), HEADER.contextsAt)
    header.writeBigUInt64LE(BigInt(of.contexts.size), HEADER.contextsSize)
    header.writeUInt32LE(of.contexts.count, HEADER.contexts)
  }
  header.writeUInt32LE(MAGIC, HEADER.magic2)
  return header
}

/** The form of the cache file and of bootstrap layers: plain infos, zeros to 4096, header. */
export function encodeMetaFile(infos: Uint8Array, header: Uint8Array): Uint8Array {
  const file = new Uint8Array(Math.ceil(infos.length / 4096) * 4096 + META_HEADER_SIZE)
  file.set(infos)
  file.set(header, file.length - META_HEADER_SIZE)
  return file
}

/** Checks a header against the bootstrap's entry for the blob. Throws 'BAD_META' naming the field. */
export function checkMetaHeader(header: Uint8Array, blob: BlobInfo): void {
  const bytes = Buffer.from(header.buffer, header.byteOffset, header.byteLength)
  const bad = (what: string): BlobError =>
    new BlobError('BAD_META', `the compression context of blob ${blob.id} does not fit the bootstrap: ${what}`)
  if (
    bytes.length !== META_HEADER_SIZE ||
    bytes.readUInt32LE(HEADER.magic) !== MAGIC ||
    bytes.readUInt32LE(HEADER.magic2) !== MAGIC
  )
    throw bad('no magic')
  const isGenerated = (blob.features & BLOB_FEATURES.CHUNKDICT_GENERATED) !== 0
  if (!isGenerated && bytes.readUInt32LE(HEADER.entries) !== blob.chunkCount)
    throw bad(`${bytes.readUInt32LE(HEADER.entries)} chunks, ${blob.chunkCount} wanted`)
  if (COMPRESSIONS[bytes.readUInt32LE(HEADER.compression)] !== blob.metaCompression) throw bad('another compression')
  for (const [name, at, wanted] of [
    ['offset', HEADER.offset, blob.metaOffset],
    ['compressed size', HEADER.compressedSize, blob.metaCompressedSize],
    ['uncompressed size', HEADER.uncompressedSize, blob.metaUncompressedSize],
  ] as const) {
    if (bytes.readBigUInt64LE(at) !== BigInt(wanted))
      throw bad(`${name} ${bytes.readBigUInt64LE(at)}, ${wanted} wanted`)
  }
}

/** Turns the context as it lies in the blob (infos, then header) into the form of the cache file, checked. */
export function metaFileOf(stored: Uint8Array, blob: BlobInfo): Uint8Array {
  if (stored.length !== blob.metaCompressedSize + META_HEADER_SIZE)
    throw new BlobError(
      'BAD_META',
      `the compression context of blob ${blob.id} has ${stored.length} bytes, ${blob.metaCompressedSize + META_HEADER_SIZE} wanted`,
    )
  const header = plainPart(stored.subarray(blob.metaCompressedSize), blob, META_HEADER_SIZE)
  checkMetaHeader(header, blob)
  const infos = new Uint8Array(blob.metaUncompressedSize)
  const isRaw = blob.metaCompressedSize === blob.metaUncompressedSize
  const packed = plainPart(stored.subarray(0, blob.metaCompressedSize), blob, isRaw ? infos.length : undefined)
  decompressor(isRaw ? 'none' : blob.metaCompression).decompress(packed, infos)
  return encodeMetaFile(infos, header)
}

/** Infos and header of an encrypted blob are encrypted each. */
function plainPart(stored: Uint8Array, blob: BlobInfo, size: number | undefined): Uint8Array {
  return blob.cipher === undefined ? stored : decrypt(stored, blob.cipher, size)
}

/**
 * A blob's layout from its own compression context, in the form of the cache file. `digests` are the blob's 32-byte chunk digests in order (its `blob.digest` part): a layout without
 * digests could not be verified, so there is none. Of chunks in batches it has no stored place: see `openBatchLayout`. Throws BlobError 'BAD_META' | 'UNSUPPORTED'.
 */
export function openBlobLayout(metaFile: Uint8Array, blob: BlobInfo, digests: Uint8Array): BlobLayout {
  const unsupported = blob.features & (BLOB_FEATURES.ZRAN | BLOB_FEATURES.SEPARATE | BLOB_FEATURES.TARFS)
  if (unsupported !== 0)
    throw new BlobError(
      'UNSUPPORTED',
      `blob ${blob.id} has features 0x${unsupported.toString(16)} (a reference to a layer), which this version does not read`,
    )
  const wanted = Math.ceil(blob.metaUncompressedSize / 4096) * 4096 + META_HEADER_SIZE
  if (metaFile.length !== wanted)
    throw new BlobError(
      'BAD_META',
      `the compression context of blob ${blob.id} has ${metaFile.length} bytes, ${wanted} wanted`,
    )
  checkMetaHeader(metaFile.subarray(metaFile.length - META_HEADER_SIZE), blob)
  const infoSize = (blob.features & BLOB_FEATURES.CHUNK_INFO_V2) !== 0 ? INFO_V2_SIZE : INFO_V1_SIZE
  if (blob.chunkCount * infoSize > blob.metaUncompressedSize)
    throw new BlobError(
      'BAD_META',
      `blob ${blob.id}: ${blob.chunkCount} chunks do not fit ${blob.metaUncompressedSize} bytes of chunk infos`,
    )
  if (digests.length !== blob.chunkCount * 32)
    throw new BlobError(
      'BAD_META',
      `blob ${blob.id} has ${digests.length} bytes of digests for ${blob.chunkCount} chunks`,
    )
  return new MetaLayout(metaFile, blob, digests)
}

class MetaLayout implements BlobLayout {
  readonly chunkCount: number
  readonly uncompressedSize: number
  readonly #infos: DataView
  readonly #blob: BlobInfo
  readonly #digests: Uint8Array

  constructor(metaFile: Uint8Array, blob: BlobInfo, digests: Uint8Array) {
    this.chunkCount = blob.chunkCount
    this.uncompressedSize = blob.uncompressedSize
    this.#infos = new DataView(metaFile.buffer, metaFile.byteOffset, metaFile.byteLength)
    this.#blob = blob
    this.#digests = digests
  }

  has(index: number): boolean {
    return Number.isInteger(index) && index >= 0 && index < this.chunkCount
  }

  next(index: number): number {
    return Math.min(index, this.chunkCount)
  }

  chunk(index: number, into: ChunkInfo): void {
    if (!this.has(index))
      throw new BlobError('OUT_OF_RANGE', `blob ${this.#blob.id} has ${this.chunkCount} chunks, no number ${index}`)
    decodeInfo(this.#infos, index, this.#blob, into)
    into.digest.set(this.#digests.subarray(index * 32, index * 32 + 32))
  }
}
