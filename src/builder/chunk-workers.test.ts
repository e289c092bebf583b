import assert from 'node:assert/strict'
import { hash } from 'node:crypto'
import { readdirSync } from 'node:fs'
import { test } from 'node:test'
import { ChunkBatch } from './chunk-batch.ts'
import { ChunkWorkers, INLINE_BYTES } from './chunk-workers.ts'

test('a thread ends when it has done what it is at: one that is stopped while it loads a native module would take the process with it', async () => {
  const workers = new ChunkWorkers(1)
  const batch = ChunkBatch.create(1 << 24)
  const slots = 256
  for (let slot = 0; slot < slots; slot += 1) batch.chunk(batch.add(1 << 16)).fill(slot)
  const id = workers.open(batch, { compression: 'zstd', digest: 'blake3', cipher: undefined })
  await workers.run(id, slots, 'digest')
  const running = assert.rejects(workers.run(id, slots, 'compress'), { code: 'ABORTED' })
  await workers.close()
  await running
  for (let slot = 0; slot < slots; slot += 1) assert.ok(batch.storedSize(slot) > 0, `chunk ${slot}`)
  await assert.rejects(workers.run(id, 1, 'digest'), { code: 'ABORTED' })
})

for (const threads of [0, 1])
  test(`what ${threads} threads cannot take, the calling thread does`, async () => {
    const workers = new ChunkWorkers(threads)
    const batches = Array.from({ length: 12 }, (_unused, at) => {
      const batch = ChunkBatch.create(1 << 20)
      for (let slot = 0; slot < 16; slot += 1) batch.chunk(batch.add(1 << 16)).fill(16 * at + slot)
      return { batch, id: workers.open(batch, { compression: 'zstd', digest: 'blake3', cipher: undefined }) }
    })
    await Promise.all(
      batches.map(async ({ id }) => workers.run(id, 16, 'digest').then(() => workers.run(id, 16, 'compress'))),
    )
    const digests = new Set(
      batches.flatMap(({ batch }) =>
        Array.from({ length: 16 }, (_unused, slot) => Buffer.from(batch.digest(slot)).toString('hex')),
      ),
    )
    assert.equal(digests.size, 12 * 16)
    for (const { batch } of batches)
      for (let slot = 0; slot < 16; slot += 1) assert.ok(batch.storedSize(slot) > 0 && batch.storedSize(slot) < 1000)
    await workers.close()
  })

test('a batch that nobody opened is told, whoever was to work on it', async () => {
  const workers = new ChunkWorkers(0)
  await assert.rejects(workers.run(77, 1, 'digest'), /chunk batch 77 is not open/)
  await workers.close()
})

test('threads that contents will need start before the first task; for few bytes none', async () => {
  const workers = new ChunkWorkers(2)
  const threads = (): number => readdirSync('/proc/self/task').length
  const before = threads()
  workers.expect(INLINE_BYTES)
  assert.equal(threads(), before)
  workers.expect(INLINE_BYTES + 1)
  const started = threads()
  assert.ok(started >= before + 2, `${started} threads, ${before} before`)
  const batch = ChunkBatch.create(1 << 20)
  batch.chunk(batch.add(1 << 16)).fill(1)
  await workers.run(workers.open(batch, { compression: 'none', digest: 'sha256', cipher: undefined }), 1, 'digest')
  assert.deepEqual(Buffer.from(batch.digest(0)), hash('sha256', Buffer.alloc(1 << 16, 1), 'buffer'))
  await workers.close()
  workers.expect(INLINE_BYTES + 1)
  assert.ok(threads() <= started - 2, 'closed threads start again')
})
