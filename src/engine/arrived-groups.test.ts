import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { type Backend, BackendError } from '../backend/index.ts'
import { ChunkInfo } from '../blob/index.ts'
import { buildLayer } from '../builder/index.ts'
import { ArrivedGroups, type Arriving } from './arrived-groups.ts'
import type { DecodeOutcome, DecodeTask } from './decode-task.ts'
import { DecodePool, openImage } from './index.ts'
import { buildTestImage, LIMITS, pattern, readFile } from './testing.ts'

const KIB = 1024
const folder = mkdtempSync(join(tmpdir(), 'nydus-groups-'))
after(() => rmSync(folder, { recursive: true, force: true }))
const SMALL = 8 * KIB
const files = Object.fromEntries(Array.from({ length: 100 }, (_, index) => [`f${index}`, pattern(index, SMALL)]))
const image = await buildTestImage(buildLayer, files, { compression: 'none' })

/** Chunks of so many stored bytes each, twice as large when they are plain. */
function arriving(count: number, bytes: number, batch: (index: number) => number = () => 0): Arriving[] {
  return Array.from({ length: count }, (_, index) => {
    const info = Object.assign(new ChunkInfo(), { index })
    const first = batch(index) === 0 ? index : batch(index)
    const task = {
      index,
      storedAt: first * bytes,
      storedSize: bytes,
      plainAt: index * 2 * bytes,
      plainSize: 2 * bytes,
      compressed: true,
      encrypted: false,
      batchOffset: 0,
      batchSize: batch(index) === 0 ? 0 : 4 * bytes,
      digest: info.digest,
      crc32c: undefined,
    }
    return { info, task, end: (first + 1) * bytes }
  })
}

const indices = (groups: ReadonlyArray<readonly Arriving[]>): number[][] =>
  groups.map((group) => group.map(({ info: { index } }) => index))

test('chunks that nobody waits for are decoded when there are enough for a task, and the last ones at the end', () => {
  const groups = new ArrivedGroups(arriving(10, 32 * KIB), () => false, false)
  assert.deepEqual(indices(groups.after(3 * 32 * KIB)), [])
  assert.deepEqual(indices(groups.after(5 * 32 * KIB)), [[0, 1, 2, 3]])
  assert.deepEqual(indices(groups.after(9 * 32 * KIB + 5)), [[4, 5, 6, 7]])
  assert.deepEqual(indices(groups.after(10 * 32 * KIB)), [[8, 9]])
  assert.deepEqual(indices(groups.after(10 * 32 * KIB)), [], 'once')
  assert.deepEqual(indices(groups.rest()), [])
})

test('what somebody waits for goes first and alone, also when he comes later; each chunk goes once', () => {
  const awaited = new Set([2])
  const groups = new ArrivedGroups(arriving(10, 32 * KIB), (chunk) => awaited.has(chunk), false)
  assert.deepEqual(indices(groups.after(2 * 32 * KIB)), [])
  assert.deepEqual(indices(groups.after(3 * 32 * KIB)), [[2], [0, 1]])
  assert.deepEqual(indices(groups.after(6 * 32 * KIB)), [])
  awaited.add(4)
  assert.deepEqual(indices(groups.after(6 * 32 * KIB)), [[4], [3]])
  assert.deepEqual(indices(groups.after(7 * 32 * KIB)), [])
  assert.deepEqual(indices(groups.rest()), [[5, 6]], 'when nothing more comes')
})

test('a large chunk is a task at once; one that somebody waits for is not decoded twice with its batch', () => {
  assert.deepEqual(indices(new ArrivedGroups(arriving(3, 300 * KIB), () => false, false).after(300 * KIB)), [[0]])
  const batch = arriving(6, KIB, (index) => (index === 2 || index === 3 ? 2 : 0))
  const groups = new ArrivedGroups(batch, (chunk) => chunk === 3, false)
  assert.deepEqual(indices(groups.after(3 * KIB)), [[0, 1, 2, 3]])
})

test('chunks of a byte each are tasks too', () => {
  const groups = new ArrivedGroups(arriving(600, 1), () => false, false)
  assert.deepEqual(
    groups.after(300).map(({ length }) => length),
    [256],
  )
  assert.deepEqual(
    groups.after(600).map(({ length }) => length),
    [256, 88],
  )
})

test('what is decoded as a whole waits for all of it', () => {
  const groups = new ArrivedGroups(arriving(4, 300 * KIB), (chunk) => chunk === 0, true)
  assert.deepEqual(indices(groups.after(900 * KIB)), [])
  assert.deepEqual(indices(groups.rest()), [], 'a part of it is nothing')
  assert.deepEqual(indices(groups.after(1200 * KIB)), [[0, 1, 2, 3]])
})

class CountingPool extends DecodePool {
  tasks = 0

  override async run(task: DecodeTask): Promise<DecodeOutcome[]> {
    this.tasks += 1
    return await super.run(task)
  }
}

/** Answers in pieces of 16 KiB; stops after so many bytes, until the gate is opened or broken. */
function inPieces(stopAt: number, gate: Promise<void>): Backend & { asked: number } {
  const backend = {
    name: 'pieces',
    asked: 0,
    open: async () => ({
      size: async () => image.blob.length,
      read: async (from: number, into: Uint8Array, options: { onFilled?: (filled: number) => void }) => {
        backend.asked += 1
        for (let at = 0; at < into.length; at += 16 * KIB) {
          if (at === stopAt) await gate
          const to = Math.min(into.length, at + 16 * KIB)
          into.set(image.blob.subarray(from + at, from + to), at)
          options.onFilled?.(to)
          await turn()
        }
      },
      close: async () => {},
    }),
    close: async () => {},
  }
  return backend
}

test('an answer of many small chunks is few tasks; all its bytes are right', async () => {
  const decoders = new CountingPool(1)
  const backend = inPieces(-1, Promise.resolve())
  const cacheDirectory = mkdtempSync(join(folder, 'cache-'))
  const reader = await openImage({ bootstrap: image.bootstrap, backend, cacheDirectory, decoders, limits: LIMITS })
  reader.prefetch({ table: false, paths: [], everything: true })
  while (reader.counters.chunksVerified < 100) await turn()
  assert.ok(decoders.tasks <= 4 + 2 * backend.asked, `${decoders.tasks} tasks for ${backend.asked} answers`)
  const before = backend.asked
  for (const [name, bytes] of Object.entries(files))
    assert.ok((await readFile(image.bootstrap, reader, name)).equals(bytes), name)
  assert.equal(backend.asked, before)
  await reader.close()
  await decoders.close()
})

test('a reader gets what has come while the rest does not; when that fails, what came is kept', async () => {
  const decoders = new CountingPool(1)
  const gate = Promise.withResolvers<void>()
  gate.promise.catch(() => undefined) // the backend may come to it later
  const backend = inPieces(64 * KIB, gate.promise)
  const cacheDirectory = mkdtempSync(join(folder, 'cache-'))
  const limits = { ...LIMITS, amplifyBytes: 1 << 20 }
  const reader = await openImage({ bootstrap: image.bootstrap, backend, cacheDirectory, decoders, limits })
  const read = async (index: number): Promise<void> => {
    assert.ok((await readFile(image.bootstrap, reader, `f${index}`)).equals(files[`f${index}`] ?? Buffer.alloc(0)))
  }
  await read(0)
  await read(5)
  assert.equal(backend.asked, 1)
  gate.reject(new BackendError('TRUNCATED', 'the server went away'))
  while (reader.counters.chunksVerified < 8) await turn()
  for (let index = 0; index < 8; index += 1) await read(index)
  assert.equal(backend.asked, 1)
  await reader.close()
  await decoders.close()
})
