import assert from 'node:assert/strict'
import { createHash, hash, randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { ChunkPipeline } from './chunk-pipeline.ts'
import { ChunkWorkers } from './chunk-workers.ts'
import type { Content } from './content.ts'
import { type ChunkList, ChunkStore } from '../rafs/index.ts'
import { type ChunkRecord, LayerDictionary } from './dictionary.ts'
import { BuilderError } from './errors.ts'

interface Built {
  readonly files: Array<Array<ReturnType<typeof plain>>>
  readonly blob: string
  readonly stored: number
}

/** Its values: a record is a view. */
function plain({
  id,
  digest,
  index,
  crc32c,
  compressed,
  compressedOffset,
  compressedSize,
  uncompressedSize,
}: ChunkRecord) {
  return { id, digest, index, crc32c, compressed, compressedOffset, compressedSize, uncompressedSize }
}

function content(bytes: Uint8Array, name = 'file'): Content {
  let at = 0
  return {
    name,
    size: bytes.length,
    read: (into) => {
      const part = bytes.subarray(at, at + Math.min(into.length, 70_000))
      into.set(part)
      at += part.length
      return part.length
    },
  }
}

async function build(
  contents: readonly Content[],
  workers: ChunkWorkers,
  chunkSize = 4096,
  compression: 'none' | 'zstd' | 'lz4_block' = 'zstd',
): Promise<Built> {
  const blob = createHash('sha256')
  let offset = 0
  let stored = 0
  const chunks = new ChunkStore()
  const pipeline = new ChunkPipeline({
    chunkSize,
    algorithms: { compression, digest: 'sha256', cipher: undefined },
    chunks,
    dictionary: new LayerDictionary(undefined, chunks),
    workers,
    packs: undefined,
    store: (record, bytes) => {
      record.index = stored++
      record.compressedOffset = offset
      record.compressedSize = bytes.length
      offset += bytes.length
      blob.update(bytes)
    },
  })
  try {
    const lists: ChunkList[] = []
    for (const one of contents) lists.push(await pipeline.add(one))
    await pipeline.finish()
    const files = lists.map(({ start, count }) =>
      Array.from({ length: count }, (_unused, at) => plain(chunks.at(chunks.use(start + at)))),
    )
    return { files, blob: blob.digest('hex'), stored }
  } finally {
    pipeline.close()
  }
}

function pattern(seed: number, length: number): Buffer {
  const bytes = Buffer.alloc(length)
  for (let i = 0; i < length; i += 1) bytes[i] = (i * seed + (i >>> 8)) & 0xff
  return bytes
}

test('the result does not depend on the number of threads, and every chunk has the digest of its bytes', async () => {
  const one = randomBytes(3_000_000)
  const files = [
    one,
    pattern(7, 5_000_001),
    Buffer.alloc(0),
    one.subarray(4096, 12_288),
    pattern(7, 5_000_001),
    randomBytes(100),
    Buffer.alloc(1_000_000),
  ]
  const results: Built[] = []
  for (const threads of [1, 2, 5]) {
    const workers = new ChunkWorkers(threads)
    results.push(
      await build(
        files.map((bytes) => content(bytes)),
        workers,
      ),
    )
    await workers.close()
  }
  const [first] = results
  assert.ok(first)
  for (const other of results.slice(1)) assert.deepEqual(other, first)
  for (const [i, chunks] of first.files.entries()) {
    const bytes = files[i] ?? Buffer.alloc(0)
    assert.equal(chunks.length, Math.ceil(bytes.length / 4096))
    for (const [n, chunk] of chunks.entries())
      assert.deepEqual(
        chunk.digest,
        Uint8Array.from(hash('sha256', bytes.subarray(n * 4096, (n + 1) * 4096), 'buffer')),
      )
  }
  assert.equal(first.files[3]?.[0]?.id, first.files[0]?.[1]?.id, 'a duplicate is the same record')
})

test('a huge hole is neither read nor stored more than once', async () => {
  const workers = new ChunkWorkers(2)
  const size = 64 * 1024 ** 3
  let reads = 0
  let position = 0
  const sparse: Content = {
    name: 'sparse',
    size,
    read: (into) => {
      into.fill(0)
      reads += 1
      position += into.length
      return into.length
    },
    holes: { nextData: () => size, skip: (bytes) => void (position += bytes) },
  }
  const built = await build([content(Buffer.alloc(1 << 20)), sparse], workers, 1 << 20)
  await workers.close()
  assert.equal(built.stored, 1)
  assert.equal(built.files[1]?.length, 65_536)
  assert.equal(position, size)
  assert.ok(reads < 100, `${reads} reads`)
})

test('zeros that must be read are stored once', async () => {
  const workers = new ChunkWorkers(2)
  const built = await build([content(Buffer.alloc(40 << 20))], workers, 1 << 16)
  await workers.close()
  assert.equal(built.stored, 1)
  assert.equal(built.files[0]?.length, 640)
})

test('a file that shrinks is an error that names it', async () => {
  const workers = new ChunkWorkers(1)
  const shrunk = { ...content(Buffer.alloc(10), 'log/today'), size: 20 }
  await assert.rejects(
    build([shrunk], workers),
    (error) => error instanceof BuilderError && error.code === 'SOURCE_CHANGED' && error.message.includes('log/today'),
  )
  await workers.close()
})

test('an error of the store ends the build', async () => {
  const workers = new ChunkWorkers(2)
  const chunks = new ChunkStore()
  const pipeline = new ChunkPipeline({
    chunkSize: 4096,
    algorithms: { compression: 'zstd', digest: 'blake3', cipher: undefined },
    chunks,
    dictionary: new LayerDictionary(undefined, chunks),
    workers,
    packs: undefined,
    store: () => {
      throw new Error('disk full')
    },
  })
  const adding = async (): Promise<void> => {
    for (let i = 0; i < 100; i += 1) await pipeline.add(content(randomBytes(1 << 20)))
    await pipeline.finish()
  }
  await assert.rejects(adding(), /disk full/)
  pipeline.close()
  await workers.close()
})

test('chunks of 16 MiB and many builds on the same threads', async () => {
  const workers = new ChunkWorkers(2)
  const big = randomBytes(40 << 20)
  const [a, b] = await Promise.all([
    build([content(big)], workers, 16 << 20),
    build([content(big)], workers, 1 << 20, 'lz4_block'),
  ])
  assert.equal(a.stored, 3)
  assert.equal(b.stored, 40)
  await workers.close()
})
