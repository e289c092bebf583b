/** Chunks that share a batch, and encrypted ones, of images of the original. */
import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { type Backend, localfsBackend } from '../backend/index.ts'
import { BLOB_FEATURES } from '../blob/index.ts'
import { Attributes, type Bootstrap, ChunkSpan, isType, MODE, openBootstrap, walkBootstrap } from '../rafs/index.ts'
import { DecodePool } from './decode-pool.ts'
import { openImage } from './open-image.ts'
import { LIMITS } from './testing.ts'

const FIXTURES = join(import.meta.dirname, '../../../shared/fixtures')
const skip = !existsSync(join(FIXTURES, 'manifest.json')) && 'no ../shared/fixtures beside the repository'
const directory = mkdtempSync(join(tmpdir(), 'nydus-batch-'))
const decoders = new DecodePool(1)
after(async () => {
  rmSync(directory, { recursive: true, force: true })
  await decoders.close()
})

const newCache = (): string => mkdtempSync(join(directory, 'cache-'))

/** Counts what is read of blobs, and where. */
function counting(): { backend: Backend; reads: Array<{ offset: number; length: number }> } {
  const files = localfsBackend({ dir: join(FIXTURES, 'blobs') })
  const reads: Array<{ offset: number; length: number }> = []
  const open: Backend['open'] = async (id) => {
    const reader = await files.open(id)
    return {
      size: (signal) => reader.size(signal),
      close: () => reader.close(),
      read: (offset, into, options) => {
        reads.push({ offset, length: into.length })
        return reader.read(offset, into, options)
      },
    }
  }
  return { backend: { name: 'counting', open, close: () => files.close() }, reads }
}

/** All files of one chunk and half a batch or less: those that the builder put into batches. */
function smallFiles(image: Bootstrap, most: number): Array<{ spans: ChunkSpan[]; size: number }> {
  const attributes = new Attributes()
  return [...walkBootstrap(image)].flatMap(({ ino }) => {
    image.attributes(ino, attributes)
    const { mode, size } = attributes
    if (!isType(mode, MODE.FILE) || size === 0 || size >= most) return []
    const spans: ChunkSpan[] = []
    image.chunks(ino, 0, size, spans)
    return [{ spans, size }]
  })
}

for (const id of ['v6-tar-zstd-batch', 'v6-tar-lz4-encrypt-batch']) {
  test(`${id}: a batch is fetched once, for all its chunks and all their readers`, { skip }, async () => {
    const image = openBootstrap(readFileSync(join(FIXTURES, 'images', id, 'bootstrap')))
    assert.notEqual((image.blobs[0]?.features ?? 0) & BLOB_FEATURES.BATCH, 0)
    const { backend, reads } = counting()
    const cacheDirectory = newCache()
    const parts = { bootstrap: image, backend, cacheDirectory, decoders, limits: LIMITS }
    const reader = await openImage(parts)
    assert.equal(reads.length, 1, 'the compression context')
    reads.length = 0
    const files = smallFiles(image, 4096)
    assert.ok(files.length > 10)
    const signal = new AbortController().signal
    const readAll = async (): Promise<Buffer[]> =>
      await Promise.all(
        files.map(async ({ spans, size }) => {
          const into = Buffer.alloc(size)
          await reader.read(spans, spans.length, into, signal)
          return into
        }),
      )
    const [first, again] = await Promise.all([readAll(), readAll()])
    assert.deepEqual(first, again)
    const places = reads.map(({ offset }) => offset)
    assert.equal(new Set(places).size, places.length, 'no place is read twice')
    assert.ok(reads.length <= 8, `${reads.length} requests for ${files.length} files`)
    await reader.close()
    reads.length = 0
    const second = await openImage(parts)
    assert.equal(reads.length, 0, 'the context is kept in the cache')
    await second.close()
  })
}

test('one chunk brings all that its batch has', { skip }, async () => {
  const image = openBootstrap(readFileSync(join(FIXTURES, 'images/v6-tar-zstd-batch/bootstrap')))
  const { backend, reads } = counting()
  const parts = { bootstrap: image, backend, cacheDirectory: newCache(), decoders, limits: LIMITS }
  const reader = await openImage(parts)
  reads.length = 0
  for (const { spans, size } of smallFiles(image, 4096))
    await reader.read(spans, spans.length, Buffer.alloc(size), new AbortController().signal)
  assert.ok(reads.length <= 8, `${reads.length} requests, one after another`)
  await reader.close()
})

test('a damaged batch fails its readers, and is asked for once more', { skip }, async () => {
  const image = openBootstrap(readFileSync(join(FIXTURES, 'images/v6-tar-zstd-batch/bootstrap')))
  const { backend, reads } = counting()
  const broken: Backend = {
    name: 'broken',
    close: () => backend.close(),
    open: async (id) => {
      const reader = await backend.open(id)
      return {
        size: (signal) => reader.size(signal),
        close: () => reader.close(),
        read: async (offset, into, options) => {
          await reader.read(offset, into, { signal: options.signal })
          if (reads.length > 1) into.fill(0xff)
        },
      }
    },
  }
  const parts = { bootstrap: image, backend: broken, cacheDirectory: undefined, decoders, limits: LIMITS }
  const reader = await openImage(parts)
  const [{ spans, size }] = smallFiles(image, 4096)
  const read = reader.read(spans, spans.length, Buffer.alloc(size), new AbortController().signal)
  await assert.rejects(read, { code: 'BAD_DIGEST' })
  await reader.close()
})
