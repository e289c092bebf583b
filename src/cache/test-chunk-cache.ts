/** For tests: a chunk cache of the original's fixture, and what it has on the disk. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { type ChunkCache, type ChunkCacheOptions, CacheError, openChunkCache } from './index.ts'
import { chunk, CHUNK, content, ID } from './testing.ts'

export const DATA = `${ID}.blob.data`
export const MAP = `${ID}.blob.data.chunk_map`
export const testdata = join(import.meta.dirname, 'testdata/v6-none')
export const writer = join(import.meta.dirname, 'testdata/writer.ts')

/** A cache of `count` chunks of 4096 bytes that is closed with the test. */
export async function open(
  t: TestContext,
  directory: string,
  count = 42,
  more: Partial<ChunkCacheOptions> = {},
): Promise<ChunkCache> {
  const options = { directory, blobId: ID, chunkCount: count, uncompressedSize: count * CHUNK, syncPauseMs: 0, ...more }
  const cache = await openChunkCache(options)
  t.after(() => cache.close())
  return cache
}

/** Stores a chunk, and waits for its mark. */
export async function mark(cache: ChunkCache, index: number): Promise<void> {
  await cache.store(chunk(index), content(index))
  assert.equal(await cache.marked(index), true)
}

export function bitmap(directory: string): string {
  return readFileSync(join(directory, MAP)).subarray(4096).toString('hex')
}

export const code = (wanted: string) => (error: unknown) => error instanceof CacheError && error.code === wanted
