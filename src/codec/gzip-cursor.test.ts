import assert from 'node:assert/strict'
import { test } from 'node:test'
import { constants, gzipSync } from 'node:zlib'
import { GzipCursor, type GzipPoint } from './gzip-cursor.ts'
import { inflateSlice } from './inflate-slice.ts'

const plain = Buffer.from(Array.from({ length: 300_000 }, (_unused, at) => ((at * at) >> 7) ^ (at % 251)))

function opened(): GzipCursor {
  return GzipCursor.open() ?? assert.fail('zlib is here')
}

/** Reads all of it, `step` plain bytes at a time, fed in pieces; gives every point that was met. */
function walk(file: Uint8Array, step: number, piece: number): { bytes: Buffer; points: GzipPoint[]; isWhole: boolean } {
  const cursor = opened()
  const parts: Buffer[] = []
  const points: GzipPoint[] = []
  let at = 0
  for (;;) {
    const into = Buffer.alloc(step)
    const filled = cursor.read(into)
    parts.push(into.subarray(0, filled))
    const { dictionary, ...place } = cursor.point()
    const point = { ...place, dictionary: dictionary.slice() }
    if (!cursor.isBehindBlocks && point.compressedOffset !== points.at(-1)?.compressedOffset) points.push(point)
    if (!cursor.wantsInput) continue
    if (at >= file.length) break
    cursor.feed(file.subarray(at, at + piece))
    at += piece
  }
  const { isWhole } = cursor
  cursor.close()
  return { bytes: Buffer.concat(parts), points, isWhole }
}

test('the file can be inflated from every place between blocks that it tells of, whatever the steps', () => {
  const file = new Uint8Array(
    Buffer.concat([
      gzipSync(plain, { level: 9 }),
      gzipSync(Buffer.alloc(0)),
      gzipSync(plain.subarray(0, 70_000), { level: 0 }),
    ]),
  )
  const whole = Buffer.concat([plain, plain.subarray(0, 70_000)])
  for (const [step, piece] of [
    [1000, 1 << 16],
    [1 << 16, 777],
    [5000, 5],
  ] as const) {
    const { bytes, points, isWhole } = walk(file, step, piece)
    assert.ok(bytes.equals(whole))
    assert.ok(isWhole)
    assert.ok(points.length > 4)
    for (const point of points) {
      const rest = Buffer.alloc(whole.length - point.uncompressedOffset)
      inflateSlice(file.subarray(point.compressedOffset), point, rest.length, (part, at) => rest.set(part, at))
      assert.ok(rest.equals(whole.subarray(point.uncompressedOffset)))
    }
  }
})

test('it takes what it is asked for and the next symbol, no more', () => {
  const cursor = opened()
  cursor.feed(new Uint8Array(gzipSync(Buffer.alloc(1 << 20), { level: 0 })))
  assert.equal(cursor.read(new Uint8Array(100)), 100)
  // Stored: a header of 10 bytes, that of the block of 5, the bytes themselves.
  assert.deepEqual([cursor.compressedOffset, cursor.uncompressedOffset], [115, 100])
  cursor.close()
})

test('behind the last block of a member it finds the first of the next', () => {
  const member = new Uint8Array(gzipSync(plain.subarray(0, 1000)))
  const cursor = opened()
  cursor.feed(member)
  cursor.read(new Uint8Array(1000))
  assert.ok(cursor.isBehindBlocks)
  cursor.watchMembers()
  assert.equal(cursor.enterMember(), false)
  assert.ok(cursor.isWhole)
  cursor.feed(member)
  assert.equal(cursor.enterMember(), true)
  assert.deepEqual(
    [cursor.memberAhead, cursor.point().compressedOffset, cursor.point().dictionary.length, cursor.uncompressedOffset],
    [member.length + 10, member.length + 10, 0, 1000],
  )
  assert.equal(cursor.isWhole, false)
  cursor.close()
})

test('many empty blocks cost time in proportion to the file, and garbage is refused', () => {
  const empty = Buffer.from([0x00, 0x00, 0x00, 0xff, 0xff])
  const head = gzipSync('x').subarray(0, 10)
  const cursor = opened()
  cursor.feed(new Uint8Array(Buffer.concat([head, ...Array<Buffer>(20_000).fill(empty)])))
  assert.equal(cursor.read(new Uint8Array(1)), 0)
  assert.equal(cursor.point().compressedOffset, 10 + 100_000)
  cursor.close()
  const synced = gzipSync(plain, { finishFlush: constants.Z_SYNC_FLUSH })
  assert.equal(walk(new Uint8Array(synced), 1 << 16, 1 << 16).isWhole, false)
  assert.throws(() => walk(new Uint8Array(Buffer.concat([gzipSync(plain), Buffer.alloc(100)])), 1 << 16, 1 << 16), {
    code: 'CORRUPT',
  })
  for (const [last, piece] of [
    [6, 1 << 16],
    [2, 1 << 16],
    [7, 3],
  ] as const) {
    const flipped = new Uint8Array(gzipSync(plain))
    flipped[flipped.length - last] = (flipped.at(-last) ?? 0) ^ 1
    assert.throws(() => walk(flipped, 1 << 16, piece), { code: 'CORRUPT', message: /checksum/ })
  }
})
