import type { Compressor } from './compressor.ts'
import type { Decompressor } from './decompressor.ts'
import { CodecError } from './errors.ts'
import { compressLz4Block, decompressLz4Block } from './lz4-block.ts'
import { compressedInto, functionsOf, openLibrary } from './native.ts'

interface Lz4 {
  readonly compress: Compressor['compress']
  readonly decompress: Decompressor['decompress']
}

/** liblz4 of the system: on every Debian, Ubuntu and Fedora; not on Alpine or distroless. */
function native(): Lz4 | undefined {
  const lz4 = functionsOf(openLibrary('liblz4.so.1'), {
    compress: 'int LZ4_compress_default(const uint8_t *src, uint8_t *dst, int size, int capacity)',
    decompress: 'int LZ4_decompress_safe(const uint8_t *src, uint8_t *dst, int size, int capacity)',
  })
  if (lz4 === undefined) return undefined
  return {
    compress: (from, into) =>
      compressedInto(from, into, (place) => Number(lz4.compress(from, place, from.length, place.length))),
    decompress: (from, into) => {
      const written = Number(lz4.decompress(from, into, from.length, into.length))
      if (written < 0) throw new CodecError('CORRUPT', `lz4: not a valid block of ${into.length} bytes`)
      if (written < into.length)
        throw new CodecError('TRUNCATED', `lz4: ${written} bytes where ${into.length} were wanted`)
    },
  }
}

/** Our own block codec: for systems without liblz4. */
export const portableLz4: Lz4 = { compress: compressLz4Block, decompress: decompressLz4Block }

let chosen: Lz4 | undefined

/** The fastest LZ4 of this machine; opened at the first use. */
export function lz4(): Lz4 {
  chosen ??= native() ?? portableLz4
  return chosen
}
