import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { setImmediate } from 'node:timers/promises'
import { test } from 'node:test'
import * as fc from 'fast-check'
import { HashedSink } from './hashed-sink.ts'

const KIB = 1024
const sizes = fc.oneof(fc.nat(3000), fc.constantFrom(64 * KIB, 256 * KIB, 300 * KIB, 1024 * KIB))

test('whatever is written and lent arrives in order, though lent memory is used again', async () => {
  const piece = fc.record({ size: sizes, how: fc.constantFrom('write', 'lend', 'take') })
  await fc.assert(
    fc.asyncProperty(fc.array(piece, { maxLength: 24 }), async (pieces) => {
      const parts: Buffer[] = []
      const out = new HashedSink(async (bytes) => {
        await setImmediate()
        parts.push(Buffer.from(bytes))
      })
      const memory = Buffer.alloc(26 * 1024 * KIB)
      const expected: Buffer[] = []
      let at = 0
      for (const [index, { size, how }] of pieces.entries()) {
        if (how === 'take') {
          await out.takeLent()
          memory.fill(0xee, 0, at)
          at = 0
          continue
        }
        const bytes = memory.subarray(at, at + size).fill(index + 1)
        expected.push(Buffer.from(bytes))
        at += size
        await (how === 'lend' ? out.lend(bytes) : out.write(bytes))
      }
      const digest = await out.digest()
      const wanted = Buffer.concat(expected)
      assert.equal(out.size, wanted.length)
      assert.deepEqual(digest, createHash('sha256').update(wanted).digest())
      assert.equal(Buffer.compare(Buffer.concat(parts), wanted), 0)
    }),
    { numRuns: 60 },
  )
})

test('what was lent one behind the other reaches the sink uncopied, in one piece', async () => {
  const memory = new Uint8Array(2 * 1024 * KIB)
  const taken: Uint8Array[] = []
  const out = new HashedSink((bytes) => void taken.push(bytes))
  for (let at = 0; at < memory.length; at += 4 * KIB) await out.lend(memory.subarray(at, at + 4 * KIB))
  await out.takeLent()
  assert.deepEqual(
    taken.map(({ buffer, byteOffset, length }) => [buffer === memory.buffer, byteOffset, length]),
    [[true, 0, memory.length]],
  )
})

test('a sink that fails at what was lent says so when that is taken', async () => {
  const out = new HashedSink(() => Promise.reject(new Error('no room')))
  await out.lend(new Uint8Array(1024 * KIB))
  await assert.rejects(async () => out.takeLent(), /no room/)
})
