/** What a power cut leaves: what was synced, and of all else any part, marks without data among them. */
import assert from 'node:assert/strict'
import {
  cpSync,
  existsSync,
  fdatasyncSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  statSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { type ChunkCache, type ChunkCacheOptions, openChunkCache } from './index.ts'
import { chunk, CHUNK, content, ID, temporary } from './testing.ts'

const COUNT = 64

async function open(t: TestContext, directory: string, more: Partial<ChunkCacheOptions> = {}): Promise<ChunkCache> {
  const options = { directory, blobId: ID, chunkCount: COUNT, uncompressedSize: COUNT * CHUNK, ...more }
  const cache = await openChunkCache(options)
  t.after(() => cache.close())
  return cache
}

const store = (cache: ChunkCache, index: number): Promise<void> => cache.store(chunk(index), content(index))
const data = (directory: string): string => join(directory, `${ID}.blob.data`)

function marks(directory: string): number[] {
  const map = readFileSync(`${data(directory)}.chunk_map`).subarray(4096)
  return Array.from({ length: COUNT }, (_, index) => index).filter((at) => (map[at >> 3] ?? 0) & (0x80 >> (at & 7)))
}

/** The file in shared memory that has the claims of this data file. */
function volatile(directory: string): string {
  const { dev, ino, birthtimeNs } = statSync(data(directory), { bigint: true })
  return `/dev/shm/nydus-${process.geteuid?.()}/${dev}-${ino}-${birthtimeNs}.marks`
}

test('what killed processes left in memory is looked through when the start is over, not by the first reader', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const folder = `/dev/shm/nydus-${process.geteuid?.()}`
  mkdirSync(folder, { mode: 0o700, recursive: true })
  const left = join(folder, `0-${process.pid}-0.marks`)
  writeFileSync(left, '')
  utimesSync(left, 0, 0)
  t.after(() => rmSync(left, { force: true }))
  const cache = await open(t, temporary(t))
  await store(cache, 0)
  assert.ok(existsSync(left))
  t.mock.timers.tick(30_000)
  assert.ok(!existsSync(left))
})

test('at no moment the map has a mark of a chunk that was not on the disk before', async (t) => {
  const directory = temporary(t)
  let onDisk = Buffer.alloc(COUNT * CHUNK)
  let syncs = 0
  const check = (): void => {
    for (const index of marks(directory))
      assert.ok(onDisk.subarray(index * CHUNK, (index + 1) * CHUNK).equals(content(index)), `chunk ${index}`)
  }
  const cache = await open(t, directory, {
    syncPauseMs: 1,
    sync: async (fd) => {
      check()
      const before = readFileSync(data(directory)) // what comes during the sync is not promised
      await sleep(3)
      fdatasyncSync(fd)
      onDisk = before
      syncs += 1
    },
  })
  const marked: Array<Promise<boolean>> = []
  for (let index = 0; index < COUNT; index += 1) {
    await store(cache, index)
    check()
    marked.push(cache.marked(index))
    if (index % 5 === 0) await sleep(2)
  }
  assert.ok((await Promise.all(marked)).every(Boolean))
  check()
  assert.equal(marks(directory).length, COUNT)
  assert.ok(syncs > 1 && syncs <= COUNT, `${syncs} syncs`) // how many share one is a matter of time
})

test('until the sync other processes see the claim, the map does not; a close syncs', async (t) => {
  const directory = temporary(t)
  const cache = await open(t, directory)
  const other = await open(t, directory)
  await store(cache, 7)
  assert.deepEqual([marks(directory), cache.claimed(7), other.claimed(7), other.isTrusted(7)], [[], true, true, false])
  await cache.close()
  assert.deepEqual([marks(directory), other.claimed(7)], [[7], true])
})

test('who finds the claim of a killed process right marks the chunk; one that is wrong is gone for all', async (t) => {
  const directory = temporary(t)
  const killed = await open(t, directory, { syncPauseMs: 1_000_000 })
  for (const index of [1, 2]) await store(killed, index)
  const next = await open(t, directory, { syncPauseMs: 0 })
  next.trust(chunk(1), content(1))
  assert.equal(await next.marked(1), true)
  next.distrust(2)
  assert.deepEqual([marks(directory), next.claimed(2)], [[1], false])
  assert.equal((await open(t, directory)).claimed(2), false)
})

test('what a killed process left of a data file says nothing of the next file with its number', async (t) => {
  const directory = temporary(t)
  const killed = await open(t, directory, { syncPauseMs: 1_000_000 })
  await store(killed, 1)
  await killed.close() // the kernel gives the number of a closed file again
  const { ino, birthtimeNs } = statSync(data(directory), { bigint: true })
  const left = volatile(directory)
  cpSync(`${data(directory)}.chunk_map`, left)
  t.after(() => rmSync(left, { force: true }))
  rmSync(data(directory))
  rmSync(`${data(directory)}.chunk_map`)
  writeFileSync(data(directory), Buffer.alloc(COUNT * CHUNK))
  const next = statSync(data(directory), { bigint: true })
  if (next.ino !== ino || next.birthtimeNs === birthtimeNs) return t.skip('this file system gives no number twice')
  assert.equal((await open(t, directory)).claimed(1), false)
})

test('a power cut takes claims that were not synced; without shared memory they are known to one process', async (t) => {
  const directory = temporary(t)
  const cache = await open(t, directory)
  await store(cache, 3)
  unlinkSync(volatile(directory))
  const other = await open(t, directory)
  assert.deepEqual([cache.claimed(3), other.claimed(3)], [true, false])
})

test('a disk that fails at the sync is not believed: no trust, no mark, and the next store works', async (t) => {
  const directory = temporary(t)
  let isBroken = true
  const cache = await open(t, directory, {
    syncPauseMs: 0,
    sync: async () => {
      if (isBroken) throw Object.assign(new Error('EIO: i/o error, fdatasync'), { code: 'EIO' })
    },
  })
  await store(cache, 5)
  assert.equal(await cache.marked(5), false)
  assert.deepEqual([cache.isTrusted(5), cache.claimed(5), marks(directory)], [false, false, []])
  isBroken = false
  await store(cache, 5)
  assert.equal(await cache.marked(5), true)
  assert.deepEqual(marks(directory), [5])
})

test('what is withdrawn or evicted while it is synced is not marked', async (t) => {
  const directory = temporary(t)
  const { promise: synced, resolve: end } = Promise.withResolvers<void>()
  const cache = await open(t, directory, { syncPauseMs: 0, sync: () => synced })
  for (const index of [1, 2, 3]) await store(cache, index)
  const marked = [1, 2, 3].map((index) => cache.marked(index))
  await sleep(20)
  cache.distrust(1)
  const touched = new Uint8Array(COUNT).fill(1)
  touched[2] = 0
  assert.equal(
    cache.evict(CHUNK, touched, () => false),
    CHUNK,
  )
  end()
  assert.deepEqual(await Promise.all(marked), [false, false, true])
  assert.deepEqual([marks(directory), cache.claimed(2)], [[3], false])
})

test('nothing stays in shared memory when the last cache of a file is closed', async (t) => {
  const directory = temporary(t)
  const [one, other] = [await open(t, directory), await open(t, directory)]
  await store(one, 1)
  await store(other, 2)
  const path = volatile(directory)
  assert.ok(statSync(path).isFile())
  await one.close()
  assert.ok(statSync(path).isFile())
  await other.close()
  assert.throws(() => statSync(path), { code: 'ENOENT' })
  assert.deepEqual(marks(directory), [1, 2])
  assert.deepEqual(readdirSync(directory).length, 2)
})

test('a cache is closed whole also when its file in shared memory cannot be removed', async (t) => {
  const directory = temporary(t)
  const cache = await open(t, directory)
  await store(cache, 1)
  const path = volatile(directory)
  unlinkSync(path)
  mkdirSync(path)
  t.after(() => rmdirSync(path))
  await cache.close()
  assert.deepEqual(marks(directory), [1])
})
