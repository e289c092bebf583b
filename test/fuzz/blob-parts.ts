/** Parts of blobs: compression contexts of all kinds, tables of contents. */
import { openBatchLayout, readBatchMeta } from '../../src/blob/batch.ts'
import {
  encodeMetaFile,
  encodeMetaHeader,
  META_HEADER_SIZE,
  metaFileOf,
  openBlobLayout,
} from '../../src/blob/blob-meta.ts'
import { encodeInfoV1, INFO_V1_SIZE, INFO_V2_SIZE } from '../../src/blob/chunk-infos.ts'
import {
  BLOB_FEATURES,
  BlobError,
  type BlobInfo,
  type BlobLayout,
  ChunkInfo,
  locateBootstrap,
} from '../../src/blob/index.ts'
import { decodeToc, encodeToc, PARTS } from '../../src/blob/toc.ts'
import { ZranIndex } from '../../src/blob/zran.ts'
import { CodecError, compressor } from '../../src/codec/index.ts'
import type { Seed, Target } from './target.ts'

const CHUNKS = 5
const SIZE = 4000
const CONTEXT_BYTES = 40
const WINDOW_BYTES = 600

function blobOf(features: number, metaBytes: number): BlobInfo {
  return {
    index: 0,
    id: 'b'.repeat(64),
    features: BLOB_FEATURES.ALIGNED | features,
    chunkSize: 4096,
    chunkCount: CHUNKS,
    compression: 'none',
    digest: 'blake3',
    compressedSize: CHUNKS * SIZE,
    uncompressedSize: CHUNKS * 4096,
    prefetchSize: 0,
    metaOffset: CHUNKS * SIZE,
    metaCompressedSize: metaBytes,
    metaUncompressedSize: metaBytes,
    metaCompression: 'none',
    tocSize: 0,
    tocDigest: undefined,
  }
}

/** The header that fits; `more` writes what a kind has beyond that. */
function headerOf(blob: BlobInfo, more?: (header: Buffer) => void): Buffer {
  const { features, metaOffset: offset, chunkCount: entries, metaCompressedSize, metaUncompressedSize } = blob
  const sizes = { compressedSize: metaCompressedSize, uncompressedSize: metaUncompressedSize }
  const header = Buffer.from(
    encodeMetaHeader({ features, compression: blob.metaCompression, entries, offset, ...sizes }),
  )
  more?.(header)
  return header
}

/** Every word of the infos, and the used part of the header. */
function wordsOf(infos: Uint8Array): number[] {
  const header = Math.ceil(infos.length / 4096) * 4096
  const words = (from: number, to: number): number[] =>
    Array.from({ length: Math.ceil((to - from) / 4) }, (_unused, index) => from + index * 4)
  return [...words(0, infos.length), ...words(header, header + 64), header + 4092]
}

function seedOf(infos: Uint8Array, header: Uint8Array): Seed {
  return { bytes: encodeMetaFile(infos, header), fields: wordsOf(infos) }
}

function infosV1(): Buffer {
  const infos = Buffer.alloc(CHUNKS * INFO_V1_SIZE)
  const view = new DataView(infos.buffer, infos.byteOffset, infos.length)
  for (let index = 0; index < CHUNKS; index++) {
    const place = { compressedOffset: index * SIZE, uncompressedOffset: index * 4096 }
    encodeInfoV1({ index, ...place, compressedSize: SIZE, uncompressedSize: SIZE }, view, index * INFO_V1_SIZE)
  }
  return infos
}

/** Infos of version 2; `flags` of each, and its last word. */
function infosV2(flags: number, last: (index: number) => readonly [number, number], rest: number): Buffer {
  const infos = Buffer.alloc(CHUNKS * INFO_V2_SIZE + rest)
  for (let index = 0; index < CHUNKS; index++) {
    const at = index * INFO_V2_SIZE
    infos.writeUInt32LE(index, at)
    infos.writeUInt32LE(SIZE - 1 + flags * 2 ** 24, at + 4)
    infos.writeUInt32LE(index * SIZE, at + 8)
    infos.writeUInt32LE(SIZE << 8, at + 12)
    const [low, high] = last(index)
    infos.writeUInt32LE(low, at + 16)
    infos.writeUInt32LE(high, at + 20)
  }
  return infos
}

const V2 = BLOB_FEATURES.CHUNK_INFO_V2
const META_V1 = blobOf(0, CHUNKS * INFO_V1_SIZE)
const META_V2 = blobOf(V2, CHUNKS * INFO_V2_SIZE)
const BATCH = blobOf(V2 | BLOB_FEATURES.BATCH, CHUNKS * INFO_V2_SIZE + 2 * CONTEXT_BYTES)
const ZRAN: BlobInfo = {
  ...blobOf(V2 | BLOB_FEATURES.ZRAN | BLOB_FEATURES.SEPARATE, CHUNKS * INFO_V2_SIZE + 2 * CONTEXT_BYTES + WINDOW_BYTES),
  compression: 'gzip',
}

/** Where contexts lie, for the headers of both kinds. */
function contextsIn(blob: BlobInfo): (header: Buffer) => void {
  return (header) => {
    header.writeBigUInt64LE(BigInt(CHUNKS * INFO_V2_SIZE), 40)
    header.writeBigUInt64LE(BigInt(blob.metaUncompressedSize - CHUNKS * INFO_V2_SIZE), 48)
    header.writeUInt32LE(2, 56)
  }
}

/** Two batches of 4096 plain bytes, in which chunks of 100 lie. */
function batchSeed(): Seed {
  const infos = infosV2(0x5, (index) => [index * 100, index % 2], 2 * CONTEXT_BYTES)
  for (let index = 0; index < CHUNKS; index++) infos.writeUInt32LE(99 + 0x0500_0000, index * INFO_V2_SIZE + 4)
  for (const at of [CHUNKS * INFO_V2_SIZE, CHUNKS * INFO_V2_SIZE + CONTEXT_BYTES]) {
    infos.writeUInt32LE(2000, at)
    infos.writeUInt32LE(4096, at + 4)
  }
  return seedOf(infos, headerOf(BATCH, contextsIn(BATCH)))
}

/** Two slices; the second starts in mid-stream, with a window. */
function zranSeed(): Seed {
  const infos = infosV2(0x2, (index) => [(index % 2) * SIZE, index >> 2], 2 * CONTEXT_BYTES + WINDOW_BYTES)
  const [first, second] = [CHUNKS * INFO_V2_SIZE, CHUNKS * INFO_V2_SIZE + CONTEXT_BYTES]
  for (const at of [first, second]) {
    infos.writeUInt32LE(5000, at + 24)
    infos.writeUInt32LE(4 * SIZE, at + 28)
  }
  infos.writeBigUInt64LE(6000n, second)
  infos.writeUInt32LE(WINDOW_BYTES, second + 32)
  infos.writeUInt8(0xa5, second + 36)
  infos.writeUInt8(3, second + 37)
  return seedOf(infos, headerOf(ZRAN, contextsIn(ZRAN)))
}

/** Every chunk, and that it lies within the blob. */
function readChunks(layout: BlobLayout, blob: BlobInfo): string {
  const info = new ChunkInfo()
  let sum = 0
  for (let index = 0; index < layout.chunkCount; index++) {
    if (!layout.has(index)) continue
    layout.chunk(index, info)
    const isWithin =
      info.compressedOffset + info.compressedSize <= blob.compressedSize &&
      info.uncompressedOffset + info.uncompressedSize <= blob.uncompressedSize &&
      info.uncompressedSize <= blob.chunkSize &&
      info.batchOffset + info.uncompressedSize <= Math.max(blob.chunkSize, info.batchSize)
    if (!isWithin) throw new RangeError(`chunk ${index} leaves the blob`)
    sum += info.compressedOffset + info.uncompressedOffset + info.uncompressedSize
  }
  return String(sum)
}

function readMeta(bytes: Uint8Array, blob: BlobInfo): string {
  return readChunks(openBlobLayout(bytes, blob, new Uint8Array(blob.chunkCount * 32)), blob)
}

/** What the bootstrap knows of a batch blob: digests and plain sizes. */
const RECORDS: BlobLayout = {
  chunkCount: CHUNKS,
  uncompressedSize: BATCH.uncompressedSize,
  has: (index) => index >= 0 && index < CHUNKS,
  next: (index) => index,
  chunk: (index, into) => {
    Object.assign(into, { index, uncompressedOffset: index * 4096, uncompressedSize: 100, compressed: true })
    Object.assign(into, { compressedOffset: index * SIZE, compressedSize: 50, batchOffset: 0, batchSize: 0 })
  },
}

function readZran(bytes: Uint8Array): string {
  const index = new ZranIndex(bytes, ZRAN)
  let sum = 0
  for (let chunk = 0; chunk < CHUNKS; chunk++) {
    const { compressedOffset, compressedSize, uncompressedSize, dictionary, bits } = index.context(
      index.contextOf(chunk),
    )
    const offset = index.offsetOf(chunk, SIZE)
    if (compressedOffset + compressedSize > ZRAN.compressedSize || offset + SIZE > uncompressedSize || bits > 7)
      throw new RangeError(`the context of chunk ${chunk} leaves the blob`)
    sum += offset + compressedOffset + dictionary.length
  }
  return String(sum)
}

/** Contexts as they lie in a blob: compressed infos, then the header. */
const PACKED: BlobInfo = { ...blobOf(0, CHUNKS * INFO_V1_SIZE), metaCompression: 'zstd' }

function packedSeed(): Seed {
  const plain = infosV1()
  const packed = new Uint8Array(plain.length + 200)
  const length = compressor('zstd').compress(plain, packed)
  const header = headerOf({ ...PACKED, metaCompressedSize: length })
  const bytes = Buffer.concat([packed.subarray(0, length), header])
  return { bytes, fields: Array.from({ length: length + 48 }, (_unused, at) => at) }
}

function readPacked(bytes: Uint8Array): string {
  const blob = { ...PACKED, metaCompressedSize: Math.max(0, bytes.length - META_HEADER_SIZE) }
  return readMeta(metaFileOf(bytes, blob), blob)
}

async function readBatch(bytes: Uint8Array): Promise<string> {
  const stored = Buffer.concat([bytes.subarray(0, BATCH.metaCompressedSize), bytes.subarray(-META_HEADER_SIZE)])
  const file = await readBatchMeta(BATCH, (offset, into) => {
    into.set(stored.subarray(offset - BATCH.metaOffset).subarray(0, into.length))
    return Promise.resolve()
  })
  return readChunks(openBatchLayout(RECORDS, file, BATCH), BATCH)
}

function tableOfContents(): Seed {
  const part = {
    compression: 'none' as const,
    digest: new Uint8Array(32).fill(1),
    compressedSize: 100,
    uncompressedSize: 100,
  }
  const names = [PARTS.data, PARTS.meta, PARTS.metaHeader, PARTS.digests, PARTS.bootstrap]
  const bytes = encodeToc(names.map((name, at) => ({ ...part, name, compressedOffset: at * 100 })))
  return { bytes, fields: Array.from({ length: bytes.length / 4 }, (_unused, index) => index * 4) }
}

function readToc(bytes: Uint8Array): string {
  const part = locateBootstrap(bytes, 2000)
  const parts = decodeToc(bytes, 2000)
  for (const { compressedOffset, compressedSize } of part === undefined ? parts : [...parts, part])
    if (compressedOffset + compressedSize > 2000) throw new RangeError('a part leaves the blob')
  return String(parts.length)
}

const refusals = [BlobError, CodecError]

export const BLOB_PARTS: Readonly<Record<string, Target>> = {
  'meta-v1': {
    seeds: () => [seedOf(infosV1(), headerOf(META_V1))],
    read: (bytes) => readMeta(bytes, META_V1),
    refusals,
  },
  'meta-v2': {
    seeds: () => [
      seedOf(
        infosV2(0x11, (index) => [index, 0], 0),
        headerOf(META_V2),
      ),
    ],
    read: (bytes) => readMeta(bytes, META_V2),
    refusals,
  },
  'meta-packed': { seeds: () => [packedSeed()], read: readPacked, refusals },
  batch: { seeds: () => [batchSeed()], read: readBatch, refusals },
  zran: { seeds: () => [zranSeed()], read: readZran, refusals },
  toc: { seeds: () => [tableOfContents()], read: readToc, refusals },
}
