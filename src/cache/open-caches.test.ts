import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import type { ChunkInfo, VerifiedChunk } from '../blob/index.ts'
import { type CacheForm, type ChunkCache, CacheError, openChunkCache } from './index.ts'
import { chunk as chunkOf, content as contentOf, ID } from './testing.ts'

const CHUNK = 8192

async function caches(t: TestContext, count: number, form?: CacheForm): Promise<ChunkCache[]> {
  const directory = mkdtempSync(join(tmpdir(), 'nydus-open-'))
  const opened: ChunkCache[] = []
  for (let index = 0; index < count; index += 1) {
    const last = index === count - 1 && form !== undefined ? { form } : {}
    opened.push(await openChunkCache({ directory, blobId: ID, chunkCount: 20, uncompressedSize: 20 * CHUNK, ...last }))
  }
  t.after(async () => {
    for (const cache of opened) await cache.close()
    rmSync(directory, { recursive: true, force: true })
  })
  return opened
}

const chunk = (index: number, offset?: number): ChunkInfo => chunkOf(index, CHUNK, offset)
const content = (seed: number): VerifiedChunk => contentOf(seed, CHUNK)

async function bytesAt(cache: ChunkCache, offset: number): Promise<Buffer> {
  const into = Buffer.alloc(CHUNK)
  assert.ok(await cache.readUnverified(offset, into))
  return into
}

const inUse = (error: unknown): boolean => error instanceof CacheError && error.code === 'IN_USE'

test('two mounts of one image store and show the same, also at the same moment', async (t) => {
  const [one, other] = (await caches(t, 2)) as [ChunkCache, ChunkCache]
  await Promise.all(
    [one, other].flatMap((cache) =>
      Array.from({ length: 20 }, (_, index) => cache.store(chunk(index), content(index))),
    ),
  )
  for (const cache of [one, other])
    assert.ok(Array.from({ length: 20 }, (_, index) => cache.isTrusted(index)).every(Boolean))
})

test('an image that tells other things of a blob does not overwrite what another mount shows', async (t) => {
  const [victim, crafted] = (await caches(t, 2)) as [ChunkCache, ChunkCache]
  await victim.store(chunk(3), content(3))
  for (const at of [chunk(3), chunk(7, 3 * CHUNK), chunk(8, 3 * CHUNK - 100), chunk(9, 3 * CHUNK + CHUNK - 1)])
    await assert.rejects(crafted.store(at, content(66)), inUse)
  assert.deepEqual(await bytesAt(victim, 3 * CHUNK), Buffer.from(content(3)))
  await crafted.store(chunk(4), content(66))
  assert.equal(crafted.isTrusted(4), true)
  await assert.rejects(victim.store(chunk(4), content(4)), inUse)
})

test('at the same moment one of them wins, and the other does not show its bytes', async (t) => {
  for (let round = 0; round < 20; round += 1) {
    const [one, other] = (await caches(t, 2)) as [ChunkCache, ChunkCache]
    const ends = await Promise.allSettled([one.store(chunk(0), content(1)), other.store(chunk(5, 10), content(2))])
    assert.deepEqual(ends.map(({ status }) => status).sort(), ['fulfilled', 'rejected'])
    const winner = ends[0].status === 'fulfilled' ? one : other
    assert.deepEqual(await bytesAt(one, winner === one ? 0 : 10), Buffer.from(content(winner === one ? 1 : 2)))
  }
})

test('bytes that were read before another wrote there are not trusted after', async (t) => {
  const [one, other] = (await caches(t, 2)) as [ChunkCache, ChunkCache]
  const into = new Uint8Array(CHUNK)
  await one.readPlain(chunk(2), into, 0)
  await other.store(chunk(2), content(9))
  one.trust(chunk(2), content(2))
  assert.equal(one.isTrusted(2), false)
  await one.readPlain(chunk(2), into, 0)
  one.trust(chunk(2), content(9))
  assert.equal(one.isTrusted(2), true)
})

test('an encrypted cache in the same directory spoils no plain one', async (t) => {
  const key = Buffer.alloc(32, 1).fill(2, 16)
  const [plain, encrypted] = (await caches(t, 2, { kind: 'encrypted', key, convergent: undefined })) as [
    ChunkCache,
    ChunkCache,
  ]
  await plain.store(chunk(1), content(1))
  await assert.rejects(encrypted.store(chunk(1), content(1)), inUse)
  assert.deepEqual(await bytesAt(plain, CHUNK), Buffer.from(content(1)))
  await plain.close()
  await encrypted.store(chunk(1), content(1))
})
