import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { test } from 'node:test'
import * as fc from 'fast-check'
import { PortableStream, sha256Stream } from './sha256-stream.ts'

test('a stream has the digest of all its pieces at any time, in either form', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.nat(200_000), { maxLength: 8 }), async (sizes) => {
      const pieces = sizes.map((size, at) => Buffer.alloc(size, `piece ${at}`))
      for (const stream of [sha256Stream(), new PortableStream()]) {
        const wanted = createHash('sha256')
        for (const piece of pieces) {
          await stream.update(piece)
          wanted.update(piece)
          assert.equal(stream.digest().toString('hex'), wanted.copy().digest('hex'))
        }
      }
    }),
    { numRuns: 30 },
  )
})

test('large pieces are hashed beside the calling thread, small ones at once', async () => {
  const stream = sha256Stream()
  assert.equal(stream.update(Buffer.alloc(1000)), undefined)
  const hashing = stream.update(Buffer.alloc(1 << 20))
  if (!(stream instanceof PortableStream)) assert.ok(hashing instanceof Promise)
  await hashing
  assert.equal(
    stream.digest().toString('hex'),
    createHash('sha256')
      .update(Buffer.alloc(1000 + (1 << 20)))
      .digest('hex'),
  )
})
