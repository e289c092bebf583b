import { type CompressionName, decompressor } from '../codec/index.ts'
import type { ChunkInfo } from './chunk-info.ts'
import { BlobError } from './errors.ts'

/**
 * Turns a chunk's stored bytes into its plain bytes: fills `into`, which has `chunk.uncompressedSize` bytes. The digest is not compared here. Throws CodecError, or BlobError
 * 'UNSUPPORTED' for an encrypted chunk.
 */
export function decodeChunk(
  stored: Uint8Array,
  chunk: ChunkInfo,
  compression: CompressionName,
  into: Uint8Array,
): void {
  if (chunk.encrypted)
    throw new BlobError(
      'UNSUPPORTED',
      `chunk ${chunk.index} is encrypted; this version reads images without encryption`,
    )
  decompressor(chunk.compressed ? compression : 'none').decompress(stored, into)
}
