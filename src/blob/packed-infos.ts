import { createHash } from 'node:crypto'
import { type CompressionName, compressor, compressPieces, decompressor, digestOfFrame } from '../codec/index.ts'
import { BlobError } from './errors.ts'

/** Up to here all is held in memory at once, and gives the bytes that the original's builder gives. */
const SMALL_BYTES = 8 << 20

/** What is written of a compression context, in pieces. */
export interface PackedInfos {
  readonly compression: CompressionName
  readonly compressedSize: number
  /** SHA-256 of the plain bytes. */
  readonly digest: Uint8Array
  /** To be asked once. */
  readonly pieces: () => Iterable<Uint8Array>
}

/**
 * Compresses infos and contexts of a reference, of which a large layer has more than is to be held in memory; raw when that does not make them smaller. What comes out was read back. `plain` gives
 * them from the start each time it is asked; a piece is valid until the next one.
 */
export async function packInfos(plain: () => Iterable<Uint8Array>, size: number): Promise<PackedInfos> {
  const hash = createHash('sha256')
  for (const piece of plain()) hash.update(piece)
  const digest = hash.digest()
  const packed = size > SMALL_BYTES ? await compressPieces(plain(), size) : packSmall(plain(), size)
  const compressedSize = packed.reduce((sum, { length }) => sum + length, 0)
  if (compressedSize >= size) return { compression: 'none', compressedSize: size, digest, pieces: plain }
  const back = size > SMALL_BYTES ? await digestOfFrame(packed) : digestOfSmall(packed, size)
  if (Buffer.compare(back, digest) !== 0)
    throw new BlobError(
      'BAD_META',
      'the compression context does not read back as it was meant; nothing was published, please report this',
    )
  return { compression: 'zstd', compressedSize, digest, pieces: () => packed }
}

function packSmall(plain: Iterable<Uint8Array>, size: number): Uint8Array[] {
  const whole = new Uint8Array(size)
  let at = 0
  for (const piece of plain) {
    whole.set(piece, at)
    at += piece.length
  }
  const into = new Uint8Array(size)
  const length = compressor('zstd').compress(whole, into)
  return [length < 0 ? whole : into.subarray(0, length)]
}

function digestOfSmall(packed: readonly Uint8Array[], size: number): Uint8Array {
  const back = new Uint8Array(size)
  decompressor('zstd').decompress(Buffer.concat(packed), back)
  return createHash('sha256').update(back).digest()
}
