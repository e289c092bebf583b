import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ChunkBatch } from './chunk-batch.ts'
import { ChunkWorkers } from './chunk-workers.ts'

test('a thread ends when it has done what it is at: one that is stopped while it loads a native module would take the process with it', async () => {
  const workers = new ChunkWorkers(1)
  const batch = ChunkBatch.create(1 << 24)
  const slots = 256
  for (let slot = 0; slot < slots; slot += 1) batch.chunk(batch.add(1 << 16)).fill(slot)
  const id = workers.open(batch, { compression: 'zstd', digest: 'blake3' })
  await workers.run(id, slots, 'digest')
  const running = assert.rejects(workers.run(id, slots, 'compress'), { code: 'ABORTED' })
  await workers.close()
  await running
  for (let slot = 0; slot < slots; slot += 1) assert.ok(batch.storedSize(slot) > 0, `chunk ${slot}`)
  await assert.rejects(workers.run(id, 1, 'digest'), { code: 'ABORTED' })
})
