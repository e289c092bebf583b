import assert from 'node:assert/strict'
import { hash, randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { gzipSync } from 'node:zlib'
import * as fc from 'fast-check'
import { compressor, crc32c, CodecError, decompressor, digester, plainBytes } from './index.ts'
import { portableCrc32c } from './crc32c.ts'
import { portableLz4, lz4 } from './lz4.ts'
import { openLibrary } from './native.ts'
import { portableZstd, zstd } from './zstd.ts'

const text = Buffer.from('a chunk of text that repeats itself, and repeats itself again. '.repeat(5000))
/** Bytes that compress somewhat: runs, repeats and noise. */
const mixed = fc
  .array(
    fc.oneof(
      fc.uint8Array({ maxLength: 300 }),
      fc.tuple(fc.nat(255), fc.integer({ min: 1, max: 2000 })).map(([byte, n]) => new Uint8Array(n).fill(byte)),
    ),
    { minLength: 1, maxLength: 12 },
  )
  .map((parts) => new Uint8Array(Buffer.concat([...parts, ...parts.slice(0, 2)])))

const families = [
  ['zstd native', 'zstd portable', zstd(), portableZstd],
  ['lz4 native', 'lz4 portable', lz4(), portableLz4],
] as const
for (const [nameA, nameB, a, b] of families) {
  for (const [from, to, how] of [
    [a, b, `${nameA} → ${nameB}`],
    [b, a, `${nameB} → ${nameA}`],
    [a, a, nameA],
    [b, b, nameB],
  ] as const) {
    test(`what ${how} compresses reads back`, () => {
      fc.assert(
        fc.property(mixed, (plain) => {
          const stored = new Uint8Array(plain.length)
          const size = from.compress(plain, stored)
          if (size < 0) return
          assert.ok(size < plain.length)
          const back = new Uint8Array(plain.length)
          to.decompress(stored.subarray(0, size), back)
          assert.deepEqual(back, plain)
        }),
        { numRuns: 200 },
      )
    })
  }
  for (const [codec, name] of [
    [a, nameA],
    [b, nameB],
  ] as const) {
    test(`${name}: damaged bytes are refused with a code or fill exactly the buffer`, () => {
      const stored = new Uint8Array(text.length)
      const size = codec.compress(text, stored)
      for (let round = 0; round < 300; round++) {
        const damaged = stored.slice(0, size)
        damaged[Math.floor(Math.random() * size)] = Math.floor(Math.random() * 256)
        try {
          codec.decompress(damaged, new Uint8Array(text.length))
        } catch (error) {
          assert.ok(error instanceof CodecError, String(error))
        }
      }
    })
    test(`${name}: a chunk longer or shorter than said is refused`, () => {
      const stored = new Uint8Array(text.length)
      const size = codec.compress(text, stored)
      const frame = stored.subarray(0, size)
      assert.throws(() => codec.decompress(frame, new Uint8Array(text.length - 1)), CodecError)
      assert.throws(() => codec.decompress(frame, new Uint8Array(text.length + 1)), { code: 'TRUNCATED' })
      assert.throws(() => codec.decompress(frame.subarray(0, size - 7), new Uint8Array(text.length)), CodecError)
      assert.throws(() => codec.decompress(new Uint8Array(0), new Uint8Array(1)), CodecError)
    })
    test(`${name}: what does not get smaller is not compressed`, () => {
      for (const length of [0, 1, 2, 100, 70_000])
        assert.equal(codec.compress(randomBytes(length), new Uint8Array(length + 1000)), -1)
    })
  }
}

test('of a gzip member the first bytes are inflated, and not more', () => {
  const into = new Uint8Array(text.length)
  decompressor('gzip').decompress(gzipSync(text), into)
  assert.ok(text.equals(into))
  const bomb = gzipSync(Buffer.alloc(50_000_000))
  const first = new Uint8Array(1000).fill(1)
  decompressor('gzip').decompress(bomb, first)
  assert.ok(first.every((byte) => byte === 0))
  decompressor('gzip').decompress(Buffer.concat([gzipSync(text), Buffer.from('something else')]), into)
  assert.ok(text.equals(into))
  const shared = new Uint8Array(new SharedArrayBuffer(text.length))
  decompressor('gzip').decompress(gzipSync(text), shared)
  assert.ok(text.equals(shared))
  assert.throws(() => decompressor('gzip').decompress(gzipSync(text).subarray(0, 50), into), { code: 'TRUNCATED' })
  assert.throws(() => decompressor('gzip').decompress(gzipSync(text), new Uint8Array(text.length + 1)), CodecError)
  assert.throws(() => decompressor('gzip').decompress(text, into), { code: 'CORRUPT' })
  assert.throws(() => decompressor('gzip').decompress(gzipSync(text).fill(0xff, 20, 60), into), CodecError)
})

test('raw chunks must have the wanted length', () => {
  const into = new Uint8Array(3)
  decompressor('none').decompress(Uint8Array.of(1, 2, 3), into)
  assert.deepEqual([...into], [1, 2, 3])
  assert.throws(() => decompressor('none').decompress(Uint8Array.of(1), into), { code: 'TRUNCATED' })
  assert.equal(compressor('none').compress(text, new Uint8Array(text.length)), -1)
  assert.throws(() => compressor('gzip'), { code: 'UNSUPPORTED' })
})

test('digests are those of the standards, also of shared memory', () => {
  const into = new Uint8Array(32)
  digester('sha256').digest(text, into)
  assert.equal(Buffer.from(into).toString('hex'), hash('sha256', text))
  digester('blake3').digest(new Uint8Array(0), into)
  assert.equal(Buffer.from(into).toString('hex'), 'af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262')
  const shared = new Uint8Array(new SharedArrayBuffer(1000)).fill(7)
  const plain = new Uint8Array(32)
  for (const name of ['sha256', 'blake3'] as const) {
    digester(name).digest(shared, into)
    digester(name).digest(shared.slice(), plain)
    assert.deepEqual(into, plain)
  }
})

test('CRC-32C is that of iSCSI, native and portable', () => {
  assert.equal(crc32c(Buffer.from('123456789')), 0xe306_9283)
  fc.assert(
    fc.property(fc.uint8Array(), fc.uint8Array(), (a, b) => {
      assert.equal(crc32c(a), portableCrc32c(a))
      assert.equal(crc32c(b, crc32c(a)), portableCrc32c(Buffer.concat([a, b])))
    }),
  )
})

test('zstd runs as machine code where koffi does', (t) => {
  if (openLibrary(undefined) === undefined) return t.skip('koffi is not here')
  assert.notEqual(zstd(), portableZstd)
})

test('zstd native and portable agree, also on what gets only a byte or two smaller', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 40 }), fc.nat(120), (noise, zeros) => {
      const from = new Uint8Array([...noise, ...new Uint8Array(zeros), ...noise])
      const [a, b] = [new Uint8Array(from.length), new Uint8Array(from.length)]
      const [n, m] = [zstd().compress(from, a), portableZstd.compress(from, b)]
      assert.equal(n, m)
      assert.deepEqual(a.subarray(0, Math.max(0, n)), b.subarray(0, Math.max(0, m)))
    }),
  )
})

test('a plain view shows shared memory, both ways, and native libraries take it', () => {
  const memory = new SharedArrayBuffer(70_000)
  const view = plainBytes(memory)
  assert.equal(view.length, memory.byteLength)
  assert.ok(!(view.buffer instanceof SharedArrayBuffer))
  const shared = new Uint8Array(memory)
  view[5] = 7
  shared[69_999] = 9
  assert.deepEqual([shared[5], view[69_999]], [7, 9])
  const [fromView, fromCopy, fromShared] = [new Uint8Array(32), new Uint8Array(32), new Uint8Array(32)]
  digester('blake3').digest(view, fromView)
  digester('blake3').digest(shared.slice(), fromCopy)
  digester('blake3').digest(shared, fromShared)
  assert.deepEqual([fromView, fromShared], [fromCopy, fromCopy])
})

test('a plain view keeps the memory that it shows', () => {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  const views = Array.from({ length: 50 }, (_none, index) => {
    const view = plainBytes(new SharedArrayBuffer(1 << 20))
    view.fill(index)
    return view
  })
  for (let round = 0; round < 3; round++) {
    collect()
    plainBytes(new SharedArrayBuffer(8 << 20)).fill(255)
  }
  for (const [index, view] of views.entries()) assert.ok(view.every((byte) => byte === index))
})
