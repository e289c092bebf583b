import { type CompressionName, compressor } from '../codec/index.ts'
import { encodeMetaHeader, META_HEADER_SIZE } from './blob-meta.ts'
import { encodeInfoV1, INFO_V1_SIZE, type PlacedChunk } from './chunk-infos.ts'

/** A blob that holds nothing but the compression context of another. */
export interface MetaBlob {
  readonly bytes: Uint8Array
  readonly compression: CompressionName
  readonly compressedSize: number
  readonly uncompressedSize: number
}

/** Encodes the compression context of a blob that somebody else wrote: infos of its `count` chunks, then the header. Source: docs/formats/blob.md, "Compression context". Throws BlobError 'TOO_LARGE'. */
export function encodeMetaBlob(chunks: Iterable<PlacedChunk>, count: number, features: number): MetaBlob {
  const infos = new Uint8Array(count * INFO_V1_SIZE)
  const view = new DataView(infos.buffer)
  let index = 0
  for (const chunk of chunks) encodeInfoV1(chunk, view, INFO_V1_SIZE * index++)
  const packed = new Uint8Array(infos.length)
  const size = compressor('zstd').compress(infos, packed)
  const [stored, compression] = size < 0 ? ([infos, 'none'] as const) : ([packed.subarray(0, size), 'zstd'] as const)
  const place = { offset: 0, compressedSize: stored.length, uncompressedSize: infos.length }
  const bytes = new Uint8Array(stored.length + META_HEADER_SIZE)
  bytes.set(stored)
  bytes.set(encodeMetaHeader({ features, compression, entries: count, ...place }), stored.length)
  return { bytes, compression, ...place }
}
