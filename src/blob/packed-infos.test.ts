import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { test } from 'node:test'
import { zstdDecompressSync } from 'node:zlib'
import { packInfos } from './packed-infos.ts'

const MIB = 1 << 20

/** A MiB of noise with so many zeros behind it, again and again, in one buffer. */
function* pieces(count: number, zeros: number): Generator<Uint8Array> {
  const piece = Buffer.alloc(MIB + zeros)
  for (let at = 0, state = 1; at < count; at += 1) {
    for (let byte = 0; byte < MIB; byte += 4) {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
      piece.writeUInt32LE((state ^ (state << 13)) >>> 0, byte)
    }
    yield piece
  }
}

for (const [what, count, zeros, compression] of [
  ['small', 2, 1000, 'zstd'],
  ['larger than is held in memory', 40, 100_000, 'zstd'],
  ['small noise', 2, 0, 'none'],
  ['much noise', 20, 0, 'none'],
] as const)
  test(`infos are packed and read back: ${what}`, async () => {
    const plain = Buffer.concat(Array.from(pieces(count, zeros), (piece) => Buffer.from(piece)))
    const packed = await packInfos(() => pieces(count, zeros), plain.length)
    const stored = Buffer.concat(Array.from(packed.pieces(), (piece) => Buffer.from(piece)))
    packed.close()
    assert.deepEqual([packed.compression, packed.compressedSize], [compression, stored.length])
    assert.ok((compression === 'zstd' ? zstdDecompressSync(stored) : stored).equals(plain))
    assert.ok(createHash('sha256').update(plain).digest().equals(packed.digest))
  })
