import assert from 'node:assert/strict'
import { closeSync, mkdirSync, openSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { setImmediate } from 'node:timers/promises'
import type { VerifiedChunk } from '../blob/index.ts'
import {
  BlockSet,
  countClaims,
  firstUnclaimed,
  openChunkCache,
  pinBlocks,
  pinsIdentity,
  trimCache,
  unpin,
} from './index.ts'
import { lockFile } from '../kernel/index.ts'
import { writeSome } from './file-io.ts'
import { chunk, CHUNK, ID, temporary } from './testing.ts'

const COUNT = 20
const SIZE = COUNT * CHUNK
const SOON_MS = 60_000

/** These tests are about files: nothing has to be hashed for the brand. */
function content(byte: number): VerifiedChunk {
  return new Uint8Array(CHUNK).fill(byte) as VerifiedChunk
}

const openOne = async (directory: string, write = writeSome) =>
  await openChunkCache({ directory, blobId: ID, chunkCount: COUNT, uncompressedSize: SIZE, write })

function pinned(...chunks: number[]): BlockSet {
  const blocks = new BlockSet(SIZE)
  for (const one of chunks) blocks.add(one * CHUNK, CHUNK)
  return blocks
}

/** Were they pinned? */
async function pin(directory: string, blocks: BlockSet, timeoutMs = SOON_MS): Promise<boolean> {
  const fd = openSync(join(directory, `${ID}.blob.data`), 'r')
  try {
    return (await pinBlocks({ directory, blobId: ID, fd, size: SIZE }, blocks, timeoutMs)) !== undefined
  } finally {
    closeSync(fd)
  }
}

test('what is pinned is not written, what lies beside it is, and all is again when the pins are gone', async (t) => {
  const directory = temporary(t)
  const cache = await openOne(directory)
  t.after(async () => await cache.close())
  await cache.store(chunk(3), content(3))
  assert.equal(await pin(directory, pinned(3, 5)), true)
  for (const index of [3, 5])
    await assert.rejects(cache.store(chunk(index), content(99)), { code: 'READ_ONLY', message: /pinned/ })
  await cache.store(chunk(4), content(4))
  // Another image's view of the same blob: its chunk reaches into what is pinned.
  const other = chunk(2, 2 * CHUNK, 2 * CHUNK)
  await assert.rejects(cache.store(other, new Uint8Array(2 * CHUNK) as VerifiedChunk), { code: 'READ_ONLY' })
  const data = readFileSync(join(directory, `${ID}.blob.data`))
  assert.deepEqual([data[3 * CHUNK], data[4 * CHUNK], data[5 * CHUNK]], [3, 4, 0])
  unpin(directory, ID)
  await cache.store(chunk(5), content(5))
  assert.equal(readFileSync(join(directory, `${ID}.blob.data`))[5 * CHUNK], 5)
})

test('pinning waits for a write that was begun before, and gives up at its deadline', async (t) => {
  const directory = temporary(t)
  const gate = Promise.withResolvers<void>()
  const cache = await openOne(directory, async (fd, from, at, position) => {
    await gate.promise
    return await writeSome(fd, from, at, position)
  })
  t.after(async () => await cache.close())
  const store = cache.store(chunk(1), content(1))
  assert.equal(await pin(directory, pinned(1), 0), false)
  let isPinned = false
  const pinning = pin(directory, pinned(1)).then((done) => {
    isPinned = done
  })
  for (let turn = 0; turn < 100; turn += 1) await setImmediate()
  assert.equal(isPinned, false)
  gate.resolve()
  await store
  await pinning
  assert.equal(isPinned, true)
})

test('a store that meets the lock of who pins waits for it, and not for ever', async (t) => {
  const directory = temporary(t)
  const cache = await openOne(directory)
  t.after(async () => await cache.close())
  const fd = openSync(join(directory, `${ID}.blob.data`), 'r')
  t.after(() => closeSync(fd))
  lockFile(fd, 'exclusive')
  await assert.rejects(cache.store(chunk(1), content(1)), { code: 'READ_ONLY', message: /pinned/ })
  const stores = Promise.all([2, 3].map(async (index) => await cache.store(chunk(index), content(index))))
  await setImmediate()
  lockFile(fd, 'unlock')
  await stores
  assert.equal(await pin(directory, pinned(2), 0), true, 'no store has kept the lock')
})

test('pins of several images add up; the same ones again leave the file as it is', async (t) => {
  const directory = temporary(t)
  const cache = await openOne(directory)
  t.after(async () => await cache.close())
  await cache.store(chunk(0), content(1))
  await pin(directory, pinned(1))
  const first = pinsIdentity(directory, ID)
  await pin(directory, pinned(1))
  assert.equal(pinsIdentity(directory, ID), first)
  await pin(directory, pinned(19))
  assert.notEqual(pinsIdentity(directory, ID), first)
  for (const index of [1, 19]) await assert.rejects(cache.store(chunk(index), content(0)), { code: 'READ_ONLY' })
})

test('a file of pins that is none pins everything', async (t) => {
  const directory = temporary(t)
  const cache = await openOne(directory)
  t.after(async () => await cache.close())
  writeFileSync(join(directory, `${ID}.blob.pins`), 'something else')
  await assert.rejects(cache.store(chunk(7), content(7)), { code: 'READ_ONLY' })
  assert.equal(await pin(directory, pinned(1)), true)
  await cache.store(chunk(7), content(7))
})

test('a pinned file is not cut to another image’s length', async (t) => {
  const directory = temporary(t)
  await (await openOne(directory)).close()
  await pin(directory, pinned(19))
  const shorter = { directory, blobId: ID, chunkCount: COUNT, uncompressedSize: SIZE - 100 }
  await assert.rejects(openChunkCache(shorter), { code: 'WRONG_SIZE' })
  assert.equal(statSync(join(directory, `${ID}.blob.data`)).size, SIZE)
})

test('eviction takes the pins of a file that nobody else has open, and is refused one that somebody has', async (t) => {
  const directory = temporary(t)
  const cache = await openOne(directory)
  t.after(async () => await cache.close())
  for (const index of [0, 1]) await cache.store(chunk(index), content(1))
  await pin(directory, pinned(0, 1))
  const fd = openSync(join(directory, `${ID}.blob.data`), 'r')
  assert.equal(
    cache.evict(SIZE, new Uint8Array(COUNT), () => false),
    0,
  )
  assert.ok(pinsIdentity(directory, ID) !== undefined)
  closeSync(fd)
  assert.equal(
    cache.evict(SIZE, new Uint8Array(COUNT), () => false),
    2 * CHUNK,
  )
  assert.equal(pinsIdentity(directory, ID), undefined)
  await cache.store(chunk(0), content(1))
})

test('pins that cannot be removed keep the data, and the cache goes on', async (t) => {
  const directory = temporary(t)
  const cache = await openOne(directory)
  t.after(async () => await cache.close())
  await cache.store(chunk(0), content(1))
  mkdirSync(join(directory, `${ID}.blob.pins`))
  assert.equal(
    cache.evict(SIZE, new Uint8Array(COUNT), () => false),
    0,
  )
  assert.equal(cache.isTrusted(0), true)
  assert.equal(readFileSync(join(directory, `${ID}.blob.data`))[0], 1)
})

test('trimming takes pins with their blob', async (t) => {
  const directory = temporary(t)
  const cache = await openOne(directory)
  await cache.store(chunk(0), content(1))
  await cache.close()
  await pin(directory, pinned(0))
  await trimCache(directory, 0)
  assert.equal(pinsIdentity(directory, ID), undefined)
})

test('claims of chunks are looked at from outside, as the file has them', async (t) => {
  const directory = temporary(t)
  const cache = await openOne(directory)
  const blob = { directory, blobId: ID, chunkCount: COUNT }
  assert.equal(firstUnclaimed(blob, [0, 9]), 0)
  for (const index of [0, 9]) await cache.store(chunk(index), content(1))
  await cache.close()
  assert.equal(firstUnclaimed(blob, [0, 9]), undefined)
  assert.equal(firstUnclaimed(blob, [0, 9, 10]), 10)
  assert.equal(countClaims(blob), 2)
  const other = { ...blob, chunkCount: COUNT + 8 }
  assert.equal(firstUnclaimed(other, [0]), 0, 'a map of another blob')
  assert.equal(countClaims(other), 0)
  assert.equal(firstUnclaimed({ ...blob, directory: join(directory, 'none') }, [3]), 3)
})

test('pins that turned out to be for nothing are taken back, and those of others stay', async (t) => {
  const directory = temporary(t)
  const cache = await openOne(directory)
  t.after(async () => await cache.close())
  const fd = openSync(join(directory, `${ID}.blob.data`), 'r')
  t.after(() => closeSync(fd))
  const of = { directory, blobId: ID, fd, size: SIZE }
  const first = await pinBlocks(of, pinned(1), SOON_MS)
  first?.undo()
  assert.equal(pinsIdentity(directory, ID), undefined)
  await pinBlocks(of, pinned(1), SOON_MS)
  const second = await pinBlocks(of, pinned(1, 2), SOON_MS)
  second?.undo()
  await cache.store(chunk(2), content(2))
  await assert.rejects(cache.store(chunk(1), content(1)), { code: 'READ_ONLY' })
})
