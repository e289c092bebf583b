import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import type { Compressor } from './compressor.ts'
import type { Decompressor } from './decompressor.ts'
import { CodecError } from './errors.ts'
import { compressedInto, functionsOf, openLibrary } from './native.ts'

/** The level of the original builder. */
export const LEVEL = 3

/** The node binary exports its own zstd: C speed, into the caller's buffer, with contexts kept for the life of the thread. */
function native(): { compress: Compressor['compress']; decompress: Decompressor['decompress'] } | undefined {
  const zstd = functionsOf(openLibrary(undefined), {
    createCCtx: 'void *ZSTD_createCCtx()',
    createDCtx: 'void *ZSTD_createDCtx()',
    // Declared signed: errors are the negated code, which as an unsigned 64-bit number would not survive in a JavaScript one.
    compressCCtx:
      'int64_t ZSTD_compressCCtx(void *ctx, uint8_t *dst, size_t capacity, const uint8_t *src, size_t size, int level)',
    decompressDCtx:
      'int64_t ZSTD_decompressDCtx(void *ctx, uint8_t *dst, size_t capacity, const uint8_t *src, size_t size)',
  })
  if (zstd === undefined) return undefined
  const compressing = zstd.createCCtx()
  const decompressing = zstd.createDCtx()
  return {
    compress: (from, into) =>
      compressedInto(from, into, (place) =>
        Number(zstd.compressCCtx(compressing, place, place.length, from, from.length, LEVEL)),
      ),
    decompress: (from, into) => {
      const written = Number(zstd.decompressDCtx(decompressing, into, into.length, from, from.length))
      if (written >= 0) return checkLength(written, into.length)
      const code = -written
      if (code === DESTINATION_TOO_SMALL)
        throw new CodecError('TOO_LONG', `zstd: more than the ${into.length} bytes wanted`)
      if (code === SOURCE_TOO_SMALL)
        throw new CodecError('TRUNCATED', `zstd: the ${from.length} stored bytes end in mid-frame`)
      throw new CodecError('CORRUPT', `zstd: not a valid frame (error ${code})`)
    },
  }
}

/** ZSTD_error_dstSize_tooSmall and ZSTD_error_srcSize_wrong of zstd_errors.h. */
const DESTINATION_TOO_SMALL = 70
const SOURCE_TOO_SMALL = 72

function checkLength(written: number, wanted: number): void {
  if (written < wanted) throw new CodecError('TRUNCATED', `zstd: ${written} bytes where ${wanted} were wanted`)
}

/** What node:zlib offers: the same frames, one more copy. */
export const portableZstd: { compress: Compressor['compress']; decompress: Decompressor['decompress'] } = {
  compress: (from, into) => {
    const frame = zstdCompressSync(from, {
      params: { [constants.ZSTD_c_compressionLevel]: LEVEL, [constants.ZSTD_c_contentSizeFlag]: 1 },
      pledgedSrcSize: from.length,
    })
    if (frame.length >= from.length || frame.length > into.length) return -1
    into.set(frame)
    return frame.length
  },
  decompress: (from, into) => {
    let plain: Uint8Array
    try {
      plain = zstdDecompressSync(from, { maxOutputLength: Math.max(1, into.length) })
    } catch (cause) {
      const isLong = (cause as NodeJS.ErrnoException).code === 'ERR_BUFFER_TOO_LARGE'
      throw new CodecError(
        isLong ? 'TOO_LONG' : 'CORRUPT',
        isLong ? `zstd: more than the ${into.length} bytes wanted` : 'zstd: not a valid frame',
        { cause },
      )
    }
    if (plain.length > into.length) throw new CodecError('TOO_LONG', `zstd: more than the ${into.length} bytes wanted`)
    checkLength(plain.length, into.length)
    into.set(plain)
  },
}

let chosen: typeof portableZstd | undefined

/** The fastest zstd of this machine; opened at the first use, one set of contexts a thread. */
export function zstd(): typeof portableZstd {
  chosen ??= native() ?? portableZstd
  return chosen
}
