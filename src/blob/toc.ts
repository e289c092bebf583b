/**
 * The table of contents at the end of a blob. Source: docs/formats/blob.md, "Table of contents".
 */
import { createHash } from 'node:crypto'
import type { CompressionName } from '../codec/index.ts'
import { BlobError } from './errors.ts'
import { decodeTarHeader, encodeTarHeader, TAR_HEADER_SIZE } from './tar-header.ts'

/** Names of a blob's parts. */
export const PARTS = {
  data: 'image.blob',
  meta: 'blob.meta',
  metaHeader: 'blob.meta.header',
  digests: 'blob.digest',
  bootstrap: 'image.boot',
  toc: 'rafs.blob.toc',
} as const

/** 4 + 4 + 16 + 32 + 8 × 3 + 48 = 128 bytes. */
const ENTRY = {
  size: 128,
  flags: 0,
  name: 8,
  nameLength: 16,
  digest: 24,
  compressedOffset: 56,
  compressedSize: 64,
  uncompressedSize: 72,
} as const
const FLAGS: Readonly<Partial<Record<CompressionName, number>>> = { none: 0x1, zstd: 0x2, lz4_block: 0x4 }
/** The table and its header, at most. */
const MAX_SIZE = 0x1_0000

/** One part of a blob. */
export interface TocEntry {
  readonly name: string
  readonly compression: CompressionName
  /** SHA-256 of the plain part; undefined = unknown. */
  readonly digest: Uint8Array | undefined
  /** Bytes in the blob, and plain. */
  readonly compressedOffset: number
  readonly compressedSize: number
  readonly uncompressedSize: number
}

/** Encodes entries and the tar header behind them. Throws 'UNSUPPORTED' for gzip, which a table cannot name. */
export function encodeToc(entries: readonly TocEntry[]): Uint8Array {
  const bytes = Buffer.alloc(entries.length * ENTRY.size)
  for (const [index, entry] of entries.entries()) {
    const at = index * ENTRY.size
    const flag = FLAGS[entry.compression]
    if (flag === undefined)
      throw new BlobError('UNSUPPORTED', `a table of contents cannot name compression ${entry.compression}`)
    bytes.writeUInt32LE(flag, at + ENTRY.flags)
    bytes.write(entry.name, at + ENTRY.name, ENTRY.nameLength, 'latin1')
    if (entry.digest !== undefined) bytes.set(entry.digest, at + ENTRY.digest)
    bytes.writeBigUInt64LE(BigInt(entry.compressedOffset), at + ENTRY.compressedOffset)
    bytes.writeBigUInt64LE(BigInt(entry.compressedSize), at + ENTRY.compressedSize)
    bytes.writeBigUInt64LE(BigInt(entry.uncompressedSize), at + ENTRY.uncompressedSize)
  }
  return Buffer.concat([bytes, encodeTarHeader(PARTS.toc, bytes.length)])
}

/** Finds and decodes the table in the last bytes of a blob (4096 are enough for every known writer). `blobSize` bounds what entries may say. */
export function decodeToc(tail: Uint8Array, blobSize: number): TocEntry[] {
  const header = decodeTarHeader(tail.subarray(Math.max(0, tail.length - TAR_HEADER_SIZE)))
  if (header.name !== PARTS.toc)
    throw new BlobError('BAD_TOC', `the blob ends with ${JSON.stringify(header.name)}, not with a table of contents`)
  if (header.size % ENTRY.size !== 0 || header.size + TAR_HEADER_SIZE > Math.min(tail.length, MAX_SIZE))
    throw new BlobError('BAD_TOC', `the table of contents has ${header.size} bytes, which cannot be`)
  const start = tail.length - TAR_HEADER_SIZE - header.size
  const bytes = Buffer.from(tail.buffer, tail.byteOffset + start, header.size)
  return Array.from({ length: header.size / ENTRY.size }, (_unused, index) =>
    decodeEntry(bytes, index * ENTRY.size, blobSize),
  )
}

function decodeEntry(bytes: Buffer, at: number, blobSize: number): TocEntry {
  const flag = bytes.readUInt32LE(at + ENTRY.flags) & 0xf
  const compression = (Object.entries(FLAGS) as Array<[CompressionName, number]>).find(
    ([, known]) => known === flag,
  )?.[0]
  const name = bytes.toString('latin1', at + ENTRY.name, at + ENTRY.name + ENTRY.nameLength).replace(/\0.*$/s, '')
  const number = (field: number): number => {
    const value = Number(bytes.readBigUInt64LE(at + field))
    if (!Number.isSafeInteger(value))
      throw new BlobError('BAD_TOC', `part ${JSON.stringify(name)} has a size or place beyond 2^53`)
    return value
  }
  const entry = {
    compressedOffset: number(ENTRY.compressedOffset),
    compressedSize: number(ENTRY.compressedSize),
    uncompressedSize: number(ENTRY.uncompressedSize),
  }
  if (compression === undefined)
    throw new BlobError('BAD_TOC', `part ${JSON.stringify(name)} has unknown flags 0x${flag.toString(16)}`)
  if (entry.compressedOffset + entry.compressedSize > blobSize)
    throw new BlobError('BAD_TOC', `part ${JSON.stringify(name)} ends behind the blob's ${blobSize} bytes`)
  const digest = Uint8Array.from(bytes.subarray(at + ENTRY.digest, at + ENTRY.digest + 32))
  return { name, compression, digest: digest.every((byte) => byte === 0) ? undefined : digest, ...entry }
}

/** Digest of a table as bootstraps store it: entries and header. */
export function tocDigest(toc: Uint8Array): Uint8Array {
  return Uint8Array.from(createHash('sha256').update(toc).digest())
}
