/** Chunks that are stored together: neighbours go to the data file in one write. */
import assert from 'node:assert/strict'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import {
  BlockSet,
  type ChunkCache,
  type ChunkCacheOptions,
  type ChunkToStore,
  openChunkCache,
  pinBlocks,
} from './index.ts'
import { runsOf } from './chunk-runs.ts'
import { writeSome } from './file-io.ts'
import { chunk, content, ID, temporary } from './testing.ts'

const BLOCK = 4096
const SIZE = 64 * BLOCK
const NOTHING = new Uint8Array(0)

async function open(
  t: TestContext,
  directory: string,
  more: Partial<ChunkCacheOptions> = {},
): Promise<{ readonly cache: ChunkCache; readonly writes: Array<readonly [offset: number, length: number]> }> {
  const writes: Array<readonly [number, number]> = []
  const write: typeof writeSome = async (fd, bytes, from, position) => {
    writes.push([position, bytes.length - from])
    return await writeSome(fd, bytes, from, position)
  }
  const options = { directory, blobId: ID, chunkCount: 64, uncompressedSize: SIZE, syncPauseMs: 0, write, ...more }
  const cache = await openChunkCache(options)
  t.after(() => cache.close())
  return { cache, writes }
}

const one = (index: number, size: number, offset: number): ChunkToStore => ({
  chunk: chunk(index, size, offset),
  bytes: content(index, size),
  stored: { offset: 0, bytes: NOTHING },
})

const data = (directory: string): Buffer => readFileSync(join(directory, `${ID}.blob.data`))

test('chunks that follow each other, directly or at the next block, are one write; each is trusted and marked', async (t) => {
  const directory = temporary(t)
  const { cache, writes } = await open(t, directory)
  const chunks = [one(0, 1000, 0), one(1, 96, 1000), one(2, BLOCK, BLOCK), one(3, 10, 2 * BLOCK), one(4, 1, 3 * BLOCK)]
  await cache.storeAll(chunks)
  assert.deepEqual(writes, [[0, 3 * BLOCK + 1]])
  const expected = Buffer.alloc(SIZE)
  for (const {
    chunk: { uncompressedOffset },
    bytes,
  } of chunks)
    expected.set(bytes, uncompressedOffset)
  assert.ok(data(directory).equals(expected), 'and nothing between them')
  for (const {
    chunk: { index },
  } of chunks)
    assert.ok(cache.isTrusted(index) && cache.claimed(index))
  assert.deepEqual(
    await Promise.all(chunks.map(({ chunk: { index } }) => cache.marked(index))),
    chunks.map(() => true),
  )
  assert.equal(cache.isTrusted(5), false)
})

test('a chunk that is there already stays between two that end and begin at its ends', async (t) => {
  const directory = temporary(t)
  const { cache, writes } = await open(t, directory)
  const [before, there, after] = [one(0, 100, 0), one(1, BLOCK - 100, 100), one(2, 50, BLOCK)]
  await cache.store(there.chunk, there.bytes)
  writes.length = 0
  await cache.storeAll([before, after])
  assert.deepEqual(writes, [
    [0, 100],
    [BLOCK, 50],
  ])
  assert.ok(data(directory).subarray(100, BLOCK).equals(Buffer.from(there.bytes)))
})

test('chunks with room for others between them, out of order, or more than a write should have, are several writes', async (t) => {
  const { cache, writes } = await open(t, temporary(t), { uncompressedSize: 4 * SIZE })
  await cache.storeAll([one(0, 10, 0), one(1, 10, 2 * BLOCK)])
  await cache.storeAll([one(3, 10, 8 * BLOCK), one(2, 10, 7 * BLOCK)])
  await cache.storeAll([one(4, 10, 10 * BLOCK), one(5, 10, 10 * BLOCK + 11)])
  assert.equal(writes.splice(0).length, 6)
  await cache.storeAll([one(6, 40 * BLOCK, 64 * BLOCK), one(7, 30 * BLOCK, 104 * BLOCK), one(8, 10, 134 * BLOCK)])
  assert.deepEqual(writes, [
    [64 * BLOCK, 40 * BLOCK],
    [104 * BLOCK, 30 * BLOCK + 10],
  ])
})

test('a disk that is full for some: nothing of their write is shown or claimed, and the end of the others is waited for', async (t) => {
  const gate = Promise.withResolvers<void>()
  const write: typeof writeSome = async (fd, bytes, from, position) => {
    if (position === 0) throw Object.assign(new Error('full'), { code: 'ENOSPC' })
    await gate.promise
    return await writeSome(fd, bytes, from, position)
  }
  const { cache } = await open(t, temporary(t), { write })
  const bad = [one(0, 10, 0), one(1, 10, BLOCK)]
  let isOver = false
  const storing = cache.storeAll([...bad, one(2, 10, 9 * BLOCK)]).finally(() => (isOver = true))
  storing.catch(() => undefined)
  for (let turns = 0; turns < 20; turns += 1) await turn()
  assert.equal(isOver, false, 'its memory is still written from')
  gate.resolve()
  await assert.rejects(storing, { name: 'CacheError', code: 'NO_SPACE' })
  for (const {
    chunk: { index },
  } of bad)
    assert.ok(!cache.isTrusted(index) && !cache.claimed(index))
  await assert.rejects(cache.store(chunk(1, 10, 0), content(1, 10)), { code: 'NO_SPACE' })
})

test('bytes that another mount shows between two chunks stay as they are', async (t) => {
  const directory = temporary(t)
  const { cache: crafted } = await open(t, directory)
  const { cache } = await open(t, directory)
  await crafted.store(chunk(9, 50, 2000), content(9, 50))
  await assert.rejects(cache.storeAll([one(0, 1000, 0), one(1, 10, BLOCK)]), { code: 'IN_USE' })
  await cache.store(chunk(0, 1000, 0), content(0, 1000))
  assert.ok(data(directory).subarray(2000, 2050).equals(content(9, 50)))
  assert.ok(cache.isTrusted(0) && crafted.isTrusted(9))
})

test('pinned blocks are not written, also not along with others', async (t) => {
  const directory = temporary(t)
  const { cache, writes } = await open(t, directory)
  const fd = openSync(join(directory, `${ID}.blob.data`), 'r')
  t.after(() => closeSync(fd))
  const blocks = new BlockSet(SIZE)
  blocks.add(BLOCK, 1)
  assert.ok(await pinBlocks({ directory, blobId: ID, fd, size: SIZE }, blocks, 1000))
  await assert.rejects(cache.storeAll([one(0, 10, 0), one(1, 10, BLOCK)]), { code: 'READ_ONLY' })
  assert.deepEqual(writes, [])
  await cache.store(chunk(0, 10, 0), content(0, 10))
  assert.ok(cache.isTrusted(0) && !cache.isTrusted(1))
})

test('a chunk that is being stored is not written twice; records of chunks are the caller’s again at once', async (t) => {
  const { cache, writes } = await open(t, temporary(t))
  const chunks = [one(0, 10, 0), one(1, 10, BLOCK)]
  const first = cache.storeAll(chunks)
  const again = [cache.storeAll([one(0, 10, 0), one(1, 10, BLOCK)]), cache.store(chunk(1, 10, BLOCK), content(1, 10))]
  for (const { chunk: record } of chunks) record.index = 60
  await Promise.all([first, ...again])
  assert.deepEqual(writes, [[0, BLOCK + 10]])
  assert.ok(cache.isTrusted(0) && cache.isTrusted(1) && !cache.isTrusted(60))
})

test('chunks that are not of the blob are refused, and no other is written', async (t) => {
  const { cache, writes } = await open(t, temporary(t))
  await assert.rejects(cache.storeAll([one(0, 10, 0), one(1, 10, SIZE - 9)]), { code: 'OUT_OF_RANGE' })
  await assert.rejects(cache.storeAll([one(0, 10, 0), one(64, 10, BLOCK)]), { code: 'OUT_OF_RANGE' })
  assert.deepEqual(writes, [])
  await cache.close()
  await assert.rejects(cache.storeAll([one(0, 10, 0), one(1, 10, BLOCK)]), { code: 'CLOSED' })
})

test('memory of a run serves the next one from its end on, with zeros between the chunks', () => {
  const placed = (first: number, byte: number, size: number): Parameters<typeof runsOf>[0] =>
    [first, first + 1].map((index) => ({
      place: { index, uncompressedOffset: index * BLOCK, uncompressedSize: size },
      bytes: new Uint8Array(size).fill(byte),
    }))
  const [dirty] = runsOf(placed(0, 1, BLOCK))
  const [meanwhile] = runsOf(placed(2, 2, BLOCK))
  assert.ok(dirty !== undefined && meanwhile !== undefined)
  assert.notEqual(meanwhile.unit.bytes.buffer, dirty.unit.bytes.buffer)
  dirty.end()
  const [next] = runsOf(placed(4, 3, 100))
  assert.equal(next?.unit.bytes.buffer, dirty.unit.bytes.buffer)
  const expected = new Uint8Array(BLOCK + 100).fill(3).fill(0, 100, BLOCK)
  assert.deepEqual(next?.unit.bytes, expected)
})
