import assert from 'node:assert/strict'
import { test } from 'node:test'
import { gzipSync } from 'node:zlib'
import { BuilderError } from '../errors.ts'
import { decompressedLayer } from './decompressed-layer.ts'

async function readAll(pieces: readonly Uint8Array[]): Promise<Buffer> {
  const all: Buffer[] = []
  const stream = (async function* () {
    yield* pieces
  })()
  for await (const piece of decompressedLayer(stream)) all.push(Buffer.from(piece))
  return Buffer.concat(all)
}

test('a layer comes out plain; a damaged one is BAD_SOURCE', async () => {
  const text = Buffer.from('a line of text\n'.repeat(5000))
  const stored = gzipSync(text)
  assert.ok((await readAll([stored])).equals(text))
  await assert.rejects(
    readAll([stored.subarray(0, stored.length - 9)]),
    (error) =>
      error instanceof BuilderError &&
      error.code === 'BAD_SOURCE' &&
      /cannot decompress the layer: gzip says/.test(error.message),
  )
})
