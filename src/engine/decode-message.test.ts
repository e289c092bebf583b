import assert from 'node:assert/strict'
import { test } from 'node:test'
import { packOutcomes, packTask, unpackOutcomes, unpackTask } from './decode-message.ts'
import type { DecodeChunk, DecodeOutcome, DecodeTask } from './decode-task.ts'
import { LentBuffers, SeenBuffers } from './lent-buffers.ts'
import { type SharedBuffer, SharedBuffers } from './shared-buffers.ts'

const MIB = 2 ** 20
const buffers = new SharedBuffers(0)

function chunk(index: number, more: Partial<DecodeChunk> = {}): DecodeChunk {
  const sizes = { storedAt: index * 10, storedSize: 10, plainAt: index * 100, plainSize: 100 }
  const kind = { compressed: false, encrypted: false, batchOffset: 0, batchSize: 0, crc32c: undefined }
  return { index, ...sizes, ...kind, digest: new Uint8Array(32).fill(index), ...more }
}

function task(plain: SharedBuffer, stored?: SharedBuffer, chunks = [chunk(0)]): DecodeTask {
  const of = { blobId: 'b'.repeat(64), isExternal: false, compression: 'zstd', digest: 'blake3' } as const
  return { ...of, cipher: undefined, slice: undefined, plain, stored, chunks }
}

/** As a message port does it: what is not sent is not there. */
function sent<T>(message: T): T {
  return structuredClone(message)
}

test('a task comes out as it went in: every field of every chunk', () => {
  const [lent, seen] = [new LentBuffers(), new SeenBuffers()]
  const chunks = [
    chunk(0, { compressed: true }),
    chunk(2 ** 24, { encrypted: true, storedAt: 2 ** 33, crc32c: 0xffff_ffff }),
    chunk(7, { compressed: true, encrypted: true, batchOffset: 5, batchSize: 1 << 20, crc32c: 0 }),
  ]
  const whole = task(buffers.take(MIB), buffers.take(MIB), chunks)
  const found = unpackTask(sent(packTask(whole, lent)), seen)
  assert.deepEqual(found.chunks, chunks)
  assert.deepEqual([found.blobId, found.compression, found.digest], [whole.blobId, 'zstd', 'blake3'])
})

test('outcomes come out as they went in', () => {
  const outcomes: DecodeOutcome[] = [
    { verified: true, digest: new Uint8Array(32).fill(1) },
    { verified: false, reason: 'chunk 1 is damaged' },
    { verified: true, digest: new Uint8Array(32).fill(3) },
  ]
  assert.deepEqual(unpackOutcomes(sent(packOutcomes(outcomes))), outcomes)
})

test('memory is sent once, and both sides see the same bytes', () => {
  const [lent, seen] = [new LentBuffers(), new SeenBuffers()]
  const [plain, stored] = [buffers.take(MIB), buffers.take(MIB)]
  stored.bytes[5] = 7
  for (let round = 0; round < 3; round += 1) {
    const message = packTask(task(plain, stored), lent)
    assert.equal(message.loan.buffers.filter(({ memory }) => memory !== undefined).length, round === 0 ? 2 : 0)
    const found = unpackTask(sent(message), seen)
    assert.equal(found.stored?.bytes[5], 7)
    found.plain.bytes[round] = 9
    assert.equal(plain.bytes[round], 9)
  }
})

test('a thread does not know more memory than it may: then all is lent anew', () => {
  const [lent, seen] = [new LentBuffers(4 * MIB), new SeenBuffers()]
  const plains = Array.from({ length: 6 }, () => buffers.take(MIB))
  const loans = [...plains, ...plains.toReversed()].map((plain, round) => {
    plain.bytes[0] = round
    const message = packTask(task(plain), lent)
    assert.equal(unpackTask(sent(message), seen).plain.bytes[0], round)
    return message.loan
  })
  assert.deepEqual(
    loans.map(({ isAnew }) => isAnew),
    [false, false, false, false, true, false, false, false, false, false, true, false],
  )
  const large = [buffers.take(8 * MIB), buffers.take(8 * MIB)] as const
  for (let round = 0; round < 2; round += 1) unpackTask(sent(packTask(task(large[0], large[1]), lent)), seen)
})

test('a number that was never lent is refused', () => {
  const seen = new SeenBuffers()
  assert.throws(() => seen.take({ isAnew: false, buffers: [{ number: 3 }] }), /never lent/)
})
