import { CodecError } from './errors.ts'
import { lz4 } from './lz4.ts'
import { zstd } from './zstd.ts'

/** Compression of chunks and metadata regions, by the names of command lines and configurations. */
export type CompressionName = 'none' | 'lz4_block' | 'gzip' | 'zstd'

/** Bytes in, bytes out. Keeps no reference to either after the call. */
export interface Compressor {
  readonly name: CompressionName
  /**
   * Compresses `from` into the start of `into`. Gives the bytes written, or -1 when the result is not strictly smaller than `from` (or does not fit):
   * the caller stores it raw then. `into` may be as short as `from`.
   */
  compress(from: Uint8Array, into: Uint8Array): number
}

/** The compressor of that name. Throws CodecError 'UNSUPPORTED' for gzip, which images are read with but not written. */
export function compressor(name: CompressionName): Compressor {
  switch (name) {
    case 'none':
      return { name, compress: () => -1 }
    case 'zstd':
      return { name, compress: zstd().compress }
    case 'lz4_block':
      return { name, compress: lz4().compress }
    case 'gzip':
      throw new CodecError('UNSUPPORTED', 'gzip chunks are read, not written; use zstd, lz4_block or none')
    default:
      return name satisfies never
  }
}
