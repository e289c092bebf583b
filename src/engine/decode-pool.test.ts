import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import { test } from 'node:test'
import { digester } from '../codec/index.ts'
import { DecodePool } from './decode-pool.ts'
import type { DecodeTask } from './decode-task.ts'
import { SharedBuffers } from './shared-buffers.ts'
import { pattern } from './testing.ts'

const buffers = new SharedBuffers(0)

/** Chunks that are there already and only to be verified; `wrong` ones have another digest. */
function task(chunkCount: number, chunkBytes: number, wrong: readonly number[] = []): DecodeTask {
  const plain = buffers.take(chunkCount * chunkBytes)
  const chunks = Array.from({ length: chunkCount }, (_, index) => {
    const bytes = plain.bytes.subarray(index * chunkBytes, (index + 1) * chunkBytes)
    bytes.set(pattern(index, chunkBytes))
    const digest = new Uint8Array(32)
    digester('blake3').digest(bytes, digest)
    if (wrong.includes(index)) digest[0] ^= 1
    const sizes = { storedAt: 0, storedSize: 0, plainAt: index * chunkBytes, plainSize: chunkBytes }
    const kind = { compressed: false, encrypted: false, batchOffset: 0, batchSize: 0, crc32c: undefined }
    return { index, ...sizes, ...kind, digest }
  })
  const of = { blobId: 'b'.repeat(64), isExternal: false }
  return { ...of, compression: 'none', digest: 'blake3', stored: undefined, plain, chunks }
}

const threads = (): number => readdirSync('/proc/self/task').length

test('small tasks are done on this thread: no other is started', async () => {
  const pool = new DecodePool(2)
  await pool.run(task(1, 1000))
  const before = threads()
  await pool.run(task(4, 1000))
  assert.equal(threads(), before)
  await pool.close()
})

/** Without a turn of the event loop, in which a thread's answer would come. */
async function isDoneHere(work: Promise<unknown>): Promise<boolean> {
  let isDone = false
  void work.then(() => (isDone = true))
  for (let steps = 0; steps < 20; steps += 1) await Promise.resolve()
  return isDone
}

test('while the first thread starts, nobody waits for it; afterwards it works', async () => {
  const pool = new DecodePool(1)
  const before = threads()
  const first = pool.run(task(4, 64 * 1024, [2]))
  assert.ok(await isDoneHere(first))
  assert.deepEqual(
    (await first).map(({ verified }) => verified),
    [true, true, false, true],
  )
  assert.ok(threads() > before, 'the thread was started')
  await pool.run(task(4, 320 * 1024)) // by the thread: it is too much for here
  const second = pool.run(task(4, 64 * 1024))
  assert.equal(await isDoneHere(second), false)
  await second
  await pool.close()
})

test('many large tasks give one outcome a chunk, in order; wrong chunks are told, with what is wrong', async () => {
  const pool = new DecodePool(2)
  const all = await Promise.all(Array.from({ length: 20 }, () => pool.run(task(4, 320 * 1024, [2]))))
  for (const outcomes of all) {
    assert.deepEqual(
      outcomes.map(({ verified }) => verified),
      [true, true, false, true],
    )
    const [, , wrong] = outcomes
    assert.match('reason' in wrong ? wrong.reason : '', /chunk 2 of blob bbb/)
  }
  await pool.close()
})

test('close ends the threads, rejects what is under way and refuses what comes later', async () => {
  const before = threads()
  const pool = new DecodePool(2)
  const ends = Promise.allSettled(Array.from({ length: 10 }, () => pool.run(task(8, 160 * 1024))))
  await pool.close()
  for (const end of await ends) assert.ok(end.status === 'rejected' && end.reason.code === 'CLOSED')
  await assert.rejects(pool.run(task(1, 10)), { name: 'EngineError', code: 'CLOSED' })
  for (let turns = 0; threads() > before && turns < 6000; turns++) await new Promise((next) => setTimeout(next, 10))
  assert.ok(threads() <= before, 'no thread stays')
})
