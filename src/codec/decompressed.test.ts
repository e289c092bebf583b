import assert from 'node:assert/strict'
import { test } from 'node:test'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import * as fc from 'fast-check'
import { decompressed } from './decompressed.ts'
import { CodecError } from './errors.ts'

async function* pieces(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}

async function collect(stream: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const all: Uint8Array[] = []
  for await (const part of stream) all.push(Buffer.from(part))
  return Buffer.concat(all)
}

const text = Buffer.from('a line of text\n'.repeat(5000))
const zeros = Buffer.alloc(9_000_000)
const skippable = Buffer.from([0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3])

test('plain, gzip members and zstd frames of any number and size come out whole, however the stream is cut', async () => {
  const wanted = Buffer.concat([text, zeros, text])
  const forms = {
    plain: wanted,
    gzip: Buffer.concat([gzipSync(text), gzipSync(Buffer.concat([zeros, text]))]),
    zstd: Buffer.concat([
      skippable,
      zstdCompressSync(text),
      skippable,
      zstdCompressSync(zeros),
      zstdCompressSync(text),
      skippable,
    ]),
  }
  for (const [name, bytes] of Object.entries(forms)) {
    for (const size of [1, 3, 1000, 1 << 20].filter((piece) => piece > 10 || bytes.length < 100_000)) {
      assert.ok((await collect(decompressed(pieces(bytes, size)))).equals(wanted), `${name} in pieces of ${size}`)
    }
  }
})

test('random frames cut anywhere', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.uint8Array({ maxLength: 3000 }), { minLength: 1, maxLength: 6 }),
      fc.integer({ min: 1, max: 700 }),
      async (contents, size) => {
        const stream = Buffer.concat(
          contents.map((content, i) =>
            Buffer.concat([i % 2 === 1 ? skippable : Buffer.alloc(0), zstdCompressSync(content)]),
          ),
        )
        assert.ok((await collect(decompressed(pieces(stream, size)))).equals(Buffer.concat(contents)))
      },
    ),
    { numRuns: 60 },
  )
})

test('a stream that ends early is an error, in gzip and in any zstd frame', async () => {
  const gzip = gzipSync(text)
  const zstd = Buffer.concat([zstdCompressSync(text), zstdCompressSync(text)])
  const cases = [
    [gzip.subarray(0, gzip.length - 9), 'CORRUPT'],
    [zstd.subarray(0, zstd.length - 5), 'TRUNCATED'],
    [zstd.subarray(0, 20), 'TRUNCATED'],
  ] as const
  for (const [bytes, code] of cases) {
    await assert.rejects(
      collect(decompressed(pieces(bytes, 100))),
      (error) => error instanceof CodecError && error.code === code,
    )
  }
})

test('bytes after a zstd frame that are no frame are an error', async () => {
  const bytes = Buffer.concat([zstdCompressSync(text), Buffer.from('garbage!')])
  await assert.rejects(collect(decompressed(pieces(bytes, 100))), /no zstd frame starts/)
})

test('an error of the source is given as it is', async () => {
  async function* failing(): AsyncGenerator<Uint8Array> {
    yield gzipSync(text).subarray(0, 30)
    throw new Error('the network is gone')
  }
  await assert.rejects(collect(decompressed(failing())), /the network is gone/)
})

test('an empty stream is empty', async () => {
  assert.equal((await collect(decompressed(pieces(new Uint8Array(0), 1)))).length, 0)
})
