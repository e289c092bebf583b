import { createHash } from 'node:crypto'
import { type CompressionName, compressor, compressPieces, decompressor, digestOfFrame } from '../codec/index.ts'
import { BlobError } from './errors.ts'
import { SpilledBytes } from './spilled-bytes.ts'

/** Up to here all is held in memory at once, and gives the bytes that the original's builder gives. */
const SMALL_BYTES = 16 << 20

/** What is written of a compression context, in pieces. */
export interface PackedInfos {
  readonly compression: CompressionName
  readonly compressedSize: number
  /** SHA-256 of the plain bytes. */
  readonly digest: Uint8Array
  /** To be asked once; each is valid until the next one. */
  readonly pieces: () => Iterable<Uint8Array>
  readonly close: () => void
}

/**
 * Compresses infos and contexts of a reference, of which a large layer has more than is to be held in memory; raw when that does not make them smaller. What comes out was read back. `plain` gives
 * them from the start each time it is asked; a piece is valid until the next one. To be closed.
 */
export async function packInfos(plain: () => Iterable<Uint8Array>, size: number): Promise<PackedInfos> {
  return size > SMALL_BYTES ? await packLarge(plain, size) : packSmall(plain, size)
}

async function packLarge(plain: () => Iterable<Uint8Array>, size: number): Promise<PackedInfos> {
  const hash = createHash('sha256')
  for (const piece of plain()) hash.update(piece)
  const digest = hash.digest()
  const packed = new SpilledBytes()
  try {
    await compressPieces(plain(), size, (piece) => packed.add(piece))
    if (packed.length < size) compare(await digestOfFrame(packed.pieces()), digest)
  } catch (error) {
    packed.close()
    throw error
  }
  if (packed.length < size)
    return {
      compression: 'zstd',
      compressedSize: packed.length,
      digest,
      pieces: () => packed.pieces(),
      close: () => packed.close(),
    }
  packed.close()
  return { compression: 'none', compressedSize: size, digest, pieces: plain, close: () => undefined }
}

function packSmall(plain: () => Iterable<Uint8Array>, size: number): PackedInfos {
  const whole = new Uint8Array(size)
  let at = 0
  for (const piece of plain()) {
    whole.set(piece, at)
    at += piece.length
  }
  const digest = createHash('sha256').update(whole).digest()
  const into = new Uint8Array(size)
  const length = compressor('zstd').compress(whole, into)
  const close = (): void => undefined
  if (length < 0) return { compression: 'none', compressedSize: size, digest, pieces: () => [whole], close }
  const packed = into.subarray(0, length)
  decompressor('zstd').decompress(packed, whole)
  compare(createHash('sha256').update(whole).digest(), digest)
  return { compression: 'zstd', compressedSize: length, digest, pieces: () => [packed], close }
}

function compare(back: Uint8Array, digest: Uint8Array): void {
  if (Buffer.compare(back, digest) === 0) return
  throw new BlobError(
    'BAD_META',
    'the compression context does not read back as it was meant; nothing was published, please report this',
  )
}
