import { createHash } from 'node:crypto'
import { constants, createZstdCompress, createZstdDecompress } from 'node:zlib'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { LEVEL } from './zstd.ts'

/** Compresses `size` bytes that come in pieces into one frame, given to `take` in pieces: for what is too large to have in memory. Pieces may be reused once the next one is asked for. */
export async function compressPieces(
  pieces: Iterable<Uint8Array>,
  size: number,
  take: (piece: Uint8Array) => void,
): Promise<void> {
  await pipeline(
    Readable.from(copies(pieces), { objectMode: true }),
    createZstdCompress({
      params: { [constants.ZSTD_c_compressionLevel]: LEVEL, [constants.ZSTD_c_contentSizeFlag]: 1 },
      pledgedSrcSize: size,
    }),
    async (stream: AsyncIterable<Uint8Array>) => {
      for await (const piece of stream) take(piece)
    },
  )
}

/** SHA-256 of what a frame, given in pieces, decompresses to. */
export async function digestOfFrame(packed: Iterable<Uint8Array>): Promise<Uint8Array> {
  const hash = createHash('sha256')
  await pipeline(
    Readable.from(copies(packed), { objectMode: true }),
    createZstdDecompress(),
    async (stream: AsyncIterable<Uint8Array>) => {
      for await (const piece of stream) hash.update(piece)
    },
  )
  return hash.digest()
}

/** Streams hold pieces while they ask for more. Not by `slice`, which of a Buffer is a view. */
function* copies(pieces: Iterable<Uint8Array>): Generator<Uint8Array> {
  for (const piece of pieces) yield new Uint8Array(piece)
}
