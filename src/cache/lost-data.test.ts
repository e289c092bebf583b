/** Data that goes away under an open cache: cut and regrown by somebody, or evicted by ourselves. What was verified is not shown any more. */
import assert from 'node:assert/strict'
import { closeSync, fstatSync, mkdtempSync, openSync, readFileSync, rmSync, statSync, truncateSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import type { ChunkInfo, VerifiedChunk } from '../blob/index.ts'
import { type ChunkCache, openChunkCache } from './index.ts'
import { chunk as chunkOf, content as contentOf, ID } from './testing.ts'

const CHUNK = 8192
const COUNT = 40

interface Opened {
  readonly directory: string
  readonly data: string
  readonly cache: ChunkCache
}

async function open(t: TestContext, directory = mkdtempSync(join(tmpdir(), 'nydus-lost-'))): Promise<Opened> {
  const options = { directory, blobId: ID, chunkCount: COUNT, uncompressedSize: COUNT * CHUNK }
  const cache = await openChunkCache(options)
  t.after(async () => {
    await cache.close()
    rmSync(directory, { recursive: true, force: true })
  })
  return { directory, data: join(directory, `${ID}.blob.data`), cache }
}

const chunk = (index: number): ChunkInfo => chunkOf(index, CHUNK)
const content = (index: number): VerifiedChunk => contentOf(index, CHUNK)

async function fill(cache: ChunkCache): Promise<void> {
  await Promise.all(Array.from({ length: COUNT }, (_, index) => cache.store(chunk(index), content(index))))
}

const trusted = (cache: ChunkCache): number[] =>
  Array.from({ length: COUNT }, (_, index) => index).filter((index) => cache.isTrusted(index))

async function until(isTrue: () => boolean): Promise<void> {
  for (let tries = 0; tries < 6000 && !isTrue(); tries += 1) await sleep(10)
  assert.ok(isTrue())
}

test('a file that is cut and has its length again is trusted no more, and who reads it meanwhile learns it', async (t) => {
  const { cache, data } = await open(t)
  await fill(cache)
  await sleep(150) // the events of our own writes
  assert.equal(trusted(cache).length, COUNT)
  const before = cache.chunks.withdrawals[0]
  truncateSync(data, 10 * CHUNK + 100)
  truncateSync(data, COUNT * CHUNK)
  await until(() => !cache.isTrusted(10) && !cache.isTrusted(COUNT - 1))
  assert.notEqual(cache.chunks.withdrawals[0], before)
})

test('holes that somebody makes while others write are found when the writing is over', async (t) => {
  const { cache, data } = await open(t)
  await fill(cache)
  truncateSync(data, 20 * CHUNK)
  truncateSync(data, COUNT * CHUNK)
  const first = cache.store(chunk(30), content(30))
  await first
  await until(() => [20, 25, 39].every((index) => !cache.isTrusted(index)))
})

test('our own writes and evictions take no trust from others', async (t) => {
  const { cache } = await open(t)
  await fill(cache)
  const touched = new Uint8Array(COUNT).fill(1, 10)
  assert.equal(
    cache.evict(5 * CHUNK, touched, () => false),
    5 * CHUNK,
  )
  await sleep(250)
  assert.equal(trusted(cache).length, COUNT - 5)
})

test('writing does not make a short file long again with trusted zeros in it', async (t) => {
  const { cache, data } = await open(t)
  await fill(cache)
  truncateSync(data, CHUNK)
  cache.distrust(39)
  const stored = cache.store(chunk(39), content(39))
  assert.equal(cache.isTrusted(5), false)
  await stored
  assert.equal(statSync(data).size, COUNT * CHUNK)
  assert.deepEqual(trusted(cache), [39])
})

test('who opens a cut file that somebody has open takes another one: the other reads short, never zeros', async (t) => {
  const { cache, data, directory } = await open(t)
  await fill(cache)
  truncateSync(data, 3 * CHUNK)
  const other = await open(t, directory)
  assert.notEqual(statSync(data).ino, fstatSync(cache.dataFd).ino)
  assert.equal(fstatSync(cache.dataFd).size, 3 * CHUNK)
  assert.equal(other.cache.claimed(0), false)
  assert.equal(await cache.readUnverified(5 * CHUNK, new Uint8Array(CHUNK)), false)
  await other.cache.store(chunk(5), content(5))
  const into = new Uint8Array(CHUNK)
  assert.ok(await other.cache.readUnverified(5 * CHUNK, into))
  assert.deepEqual(Buffer.from(into), Buffer.from(content(5)))
})

test('eviction frees what was touched longest ago: marks first, and the file stays as long as it is', async (t) => {
  const { cache, data, directory } = await open(t)
  await fill(cache)
  const map = (): Buffer => readFileSync(join(directory, `${ID}.blob.data.chunk_map`)).subarray(4096)
  const touched = new Uint8Array(COUNT).fill(1)
  for (const index of [3, 7, 8, 20]) touched[index] = 0
  const [blocks, before] = [statSync(data).blocks, cache.chunks.withdrawals[0]]
  assert.equal(
    cache.evict(3 * CHUNK, touched, (index) => index === 7),
    3 * CHUNK,
  )
  assert.deepEqual(
    Array.from({ length: COUNT }, (_, index) => index).filter((index) => !cache.isTrusted(index)),
    [3, 8, 20],
  )
  for (const index of [3, 8, 20]) {
    assert.equal(cache.claimed(index), false)
    assert.equal((map()[index >> 3] ?? 0) & (0x80 >> (index & 7)), 0)
  }
  assert.equal(statSync(data).size, COUNT * CHUNK)
  assert.equal(statSync(data).blocks, blocks - (3 * CHUNK) / 512)
  assert.notEqual(cache.chunks.withdrawals[0], before)
  assert.equal(touched[21], 1, 'the hand has not come so far')
  assert.equal(
    cache.evict(Number.MAX_SAFE_INTEGER, touched, (index) => index === 7),
    (COUNT - 4) * CHUNK,
  )
  assert.deepEqual(trusted(cache), [7])
  await cache.store(chunk(3), content(3))
  assert.deepEqual(trusted(cache), [3, 7])
})

test('nothing is evicted while anybody else has the file open, to read or to write', async (t) => {
  const { cache, data, directory } = await open(t)
  await fill(cache)
  const untouched = new Uint8Array(COUNT)
  for (const flags of ['r', 'r+']) {
    const fd = openSync(data, flags)
    assert.equal(
      cache.evict(CHUNK, untouched, () => false),
      0,
    )
    closeSync(fd)
  }
  const options = { directory, blobId: ID, chunkCount: COUNT, uncompressedSize: COUNT * CHUNK }
  const other = await openChunkCache(options)
  assert.equal(
    cache.evict(CHUNK, untouched, () => false),
    0,
  )
  await other.close()
  assert.equal(
    cache.evict(CHUNK, untouched, () => false),
    CHUNK,
  )
})
