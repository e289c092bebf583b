import { gunzipInto } from './gzip.ts'
import { lz4 } from './lz4.ts'
import { zstd } from './zstd.ts'
import type { CompressionName } from './compressor.ts'
import { CodecError } from './errors.ts'

/** Bytes in, bytes out. Never writes outside `into`, whatever `from` holds. */
export interface Decompressor {
  readonly name: CompressionName
  /** Fills `into` exactly, or throws CodecError 'CORRUPT' | 'TRUNCATED' | 'TOO_LONG' (and `into` holds anything then). */
  decompress(from: Uint8Array, into: Uint8Array): void
}

/** The decompressor of that name. */
export function decompressor(name: CompressionName): Decompressor {
  switch (name) {
    case 'none':
      return { name, decompress: copy }
    case 'zstd':
      return { name, decompress: zstd().decompress }
    case 'lz4_block':
      return { name, decompress: lz4().decompress }
    case 'gzip':
      return { name, decompress: gunzipInto }
    default:
      return name satisfies never
  }
}

function copy(from: Uint8Array, into: Uint8Array): void {
  if (from.length !== into.length) {
    throw new CodecError(
      from.length < into.length ? 'TRUNCATED' : 'TOO_LONG',
      `stored raw: ${from.length} bytes where ${into.length} were wanted`,
    )
  }
  into.set(from)
}
