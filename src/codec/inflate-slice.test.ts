import assert from 'node:assert/strict'
import { test } from 'node:test'
import { gzipSync } from 'node:zlib'
import { inflateSlice } from './inflate-slice.ts'
import { InflateStream, WINDOW_BYTES } from './inflate-stream.ts'

const plain = Buffer.from(Array.from({ length: 400_000 }, (_unused, at) => ((at * at) >> 7) ^ (at % 251)))
const members = new Uint8Array(Buffer.concat([gzipSync(plain), gzipSync(plain.subarray(0, 5000))]))
const nothing = new Uint8Array(0)

/** Every block end of the first member. */
function points() {
  const stream = InflateStream.open('gzip')
  assert.ok(stream)
  const found: Array<{ at: number; out: number; bits: number; byte: number; dictionary: Uint8Array }> = []
  const out = new Uint8Array(plain.length)
  stream.feed(members)
  stream.aim(out)
  for (;;) {
    const step = stream.run(true)
    const [at, made] = [members.length - stream.inputLeft, out.length - stream.outputLeft]
    if (step.isLastBlock) break
    const window = new Uint8Array(WINDOW_BYTES)
    const dictionary = window.slice(0, stream.window(window))
    if (step.isBoundary) found.push({ at, out: made, bits: step.pendingBits, byte: members[at - 1] ?? 0, dictionary })
  }
  stream.close()
  return found
}

test('inflates from every block end, into the next member', () => {
  const whole = Buffer.concat([plain, plain.subarray(0, 5000)])
  for (const point of points()) {
    const out = new Uint8Array(whole.length - point.out)
    inflateSlice(members.subarray(point.at), point, out.length, (bytes, at) => out.set(bytes, at))
    assert.equal(Buffer.compare(out, whole.subarray(point.out)), 0)
  }
})

test('gives no more than was asked for, and refuses what is short or no deflate', () => {
  const bomb = new Uint8Array(gzipSync(Buffer.alloc(8 << 20))).subarray(10)
  let made = 0
  inflateSlice(bomb, { bits: 0, byte: 0, dictionary: nothing }, 1000, (bytes) => (made += bytes.length))
  assert.equal(made, 1000)
  const start = { bits: 0, byte: 0, dictionary: nothing }
  const ignore = (): void => undefined
  assert.throws(() => inflateSlice(bomb.subarray(0, 50), start, 8 << 20, ignore), { code: 'TRUNCATED' })
  assert.throws(() => inflateSlice(new Uint8Array(64).fill(0xff), start, 10, ignore), { code: 'CORRUPT' })
})

test('a slice that starts behind the last block of a member goes on in the next one', () => {
  const first = new Uint8Array(gzipSync(plain)).length
  const out = new Uint8Array(5000)
  inflateSlice(members.subarray(first - 8), { bits: 3, byte: 0xff, dictionary: nothing }, 5000, (bytes, at) =>
    out.set(bytes, at),
  )
  assert.equal(Buffer.compare(out, plain.subarray(0, 5000)), 0)
})
