import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { after, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { buildLayer } from '../builder/index.ts'
import { CacheError, ChunkDedup } from '../cache/index.ts'
import { DecodePool, type ImageReader, openImage } from './index.ts'
import { buildTestImage, LIMITS, pattern, readFile, type TestImage, ToldBackend } from './testing.ts'

const folder = mkdtempSync(join(tmpdir(), 'nydus-dedup-'))
const decoders = new DecodePool(1)
after(async () => {
  await decoders.close()
  rmSync(folder, { recursive: true, force: true })
})
const newFolder = (): string => mkdtempSync(join(folder, 'd-'))
const common = { 'a.bin': pattern(1, 300_000), 'b.bin': pattern(2, 10) }
const one = await buildTestImage(buildLayer, { ...common, 'one.bin': pattern(3, 70_000) })
/** Another blob, with the same chunks at other places, and one more. */
const other = await buildTestImage(buildLayer, { 'other.bin': pattern(4, 70_000), ...common }, { compression: 'none' })

interface Opened {
  readonly reader: ImageReader
  readonly backend: ToldBackend
  readonly cache: string
}

async function open(of: TestImage, dedup: ChunkDedup, cacheDirectory = newFolder()): Promise<Opened> {
  const backend = new ToldBackend(of.blob)
  const reader = await openImage({ bootstrap: of.bootstrap, backend, cacheDirectory, decoders, limits: LIMITS, dedup })
  return { reader, backend, cache: cacheDirectory }
}

async function readAll(of: TestImage, reader: ImageReader): Promise<void> {
  for (const [name, content] of Object.entries(of.files))
    assert.ok((await readFile(of.bootstrap, reader, name)).equals(content), name)
}

function counts(path: string): { blobs: unknown; chunks: unknown } {
  const database = new DatabaseSync(path)
  try {
    const count = (table: string): unknown => database.prepare(`SELECT COUNT(*) AS n FROM ${table}`).get()?.['n']
    return { blobs: count('Blobs'), chunks: count('Chunks') }
  } finally {
    database.close()
  }
}

const dataOf = (cache: string): string =>
  join(cache, readdirSync(cache).find((name) => name.endsWith('.blob.data')) ?? assert.fail('no data file'))

test('what another cache has is taken over, verified, and not fetched', async () => {
  const path = join(newFolder(), 'cas.db')
  const dedup = ChunkDedup.open(path)
  const first = await open(one, dedup)
  await readAll(one, first.reader)
  await first.reader.close()
  const [blob] = one.bootstrap.blobs
  assert.deepEqual(counts(path), { blobs: 1, chunks: blob?.chunkCount })
  const second = await open(other, dedup)
  await readAll(other, second.reader)
  const own = other.files['other.bin']?.length ?? 0
  assert.ok(second.backend.bytesSent < own + 4096, `${second.backend.bytesSent} bytes fetched for ${own} of its own`)
  assert.equal(second.reader.counters.chunksShared, 6)
  await second.reader.close()
  const again = await open(other, dedup, second.cache)
  await readAll(other, again.reader)
  assert.equal(again.backend.asked.length, 0, 'it is in the own cache, and marked')
  await again.reader.close()
  dedup.close()
})

test('prefetch takes over too', async () => {
  const path = join(newFolder(), 'cas.db')
  const dedup = ChunkDedup.open(path)
  const first = await open(one, dedup)
  await readAll(one, first.reader)
  // Records are written when their data is on the disk.
  const all = one.bootstrap.blobs[0]?.chunkCount
  for (let tries = 0; tries < 6000 && counts(path).chunks !== all; tries += 1) await sleep(10)
  const second = await open(other, dedup)
  second.reader.prefetch({ table: false, paths: [], everything: true })
  const wanted = other.bootstrap.blobs[0]?.chunkCount
  for (let tries = 0; tries < 6000 && second.reader.counters.chunksVerified !== wanted; tries += 1) await sleep(10)
  assert.equal(second.reader.counters.chunksShared, 6)
  await first.reader.close()
  await second.reader.close()
  dedup.close()
})

test('what lies there is not believed: other bytes, short files, folders and links are passed over', async () => {
  for (const spoil of [
    (data: string) => writeFileSync(data, Buffer.alloc(readFileSync(data).length, 0xa5)),
    (data: string) => writeFileSync(data, 'short'),
    (data: string) => rmSync(data),
  ]) {
    const dedup = ChunkDedup.open(join(newFolder(), 'cas.db'))
    const first = await open(one, dedup)
    await readAll(one, first.reader)
    await first.reader.close()
    spoil(dataOf(first.cache))
    const second = await open(other, dedup)
    await readAll(other, second.reader)
    assert.equal(second.reader.counters.chunksShared, 0)
    assert.equal(second.reader.counters.failedReads, 0)
    await second.reader.close()
    dedup.close()
  }
})

test('files that are gone are forgotten when an image is closed', async () => {
  const path = join(newFolder(), 'cas.db')
  const dedup = ChunkDedup.open(path)
  const first = await open(one, dedup)
  await readAll(one, first.reader)
  rmSync(first.cache, { recursive: true })
  await first.reader.close()
  assert.deepEqual(counts(path), { blobs: 0, chunks: 0 })
  dedup.close()
})

test('what the database says of a file that is made anew is forgotten', async () => {
  const path = join(newFolder(), 'cas.db')
  const dedup = ChunkDedup.open(path)
  const first = await open(one, dedup)
  await readAll(one, first.reader)
  await first.reader.close()
  assert.equal(counts(path).blobs, 1)
  rmSync(dataOf(first.cache))
  const again = await open(one, dedup, first.cache)
  assert.deepEqual(counts(path), { blobs: 0, chunks: 0 })
  await again.reader.close()
  dedup.close()
})

test('chunks that the database names are not evicted, since the original would copy holes', async () => {
  const dedup = ChunkDedup.open(join(newFolder(), 'cas.db'))
  const { bootstrap, blob } = one
  const parts = { bootstrap, backend: new ToldBackend(blob), cacheDirectory: newFolder(), decoders, dedup }
  const reader = await openImage({ ...parts, limits: { ...LIMITS, cacheBytes: 1 } })
  await readAll(one, reader)
  assert.equal(reader.counters.evictedBytes, 0)
  await reader.close()
  dedup.close()
})

test('a database in the hands of others is waited for without stopping readers; a damaged one is left alone', async () => {
  const path = join(newFolder(), 'cas.db')
  const dedup = ChunkDedup.open(path)
  const first = await open(one, dedup)
  const holder = new DatabaseSync(path)
  holder.exec('BEGIN IMMEDIATE')
  await readAll(one, first.reader)
  await sleep(60)
  assert.equal(counts(path).chunks, 0)
  holder.exec('ROLLBACK')
  holder.close()
  for (let tries = 0; tries < 6000 && counts(path).chunks === 0; tries += 1) await sleep(10)
  assert.equal(counts(path).chunks, one.bootstrap.blobs[0]?.chunkCount)
  await first.reader.close()
  const dropper = new DatabaseSync(path)
  dropper.exec('DROP TABLE Chunks')
  dropper.close()
  const second = await open(other, dedup)
  await readAll(other, second.reader)
  await second.reader.close()
  dedup.close()
})

test('several processes make and fill one database at once', { timeout: 180_000 }, async () => {
  const path = join(newFolder(), 'cas.db')
  const script = `
    const { ChunkDedup } = await import(${JSON.stringify(new URL('../cache/index.ts', import.meta.url).href)})
    const dedup = ChunkDedup.open(${JSON.stringify(path)})
    for (let n = 0; n < 300; n += 1) dedup.record('Blake3:' + n, { path: process.argv[1], offset: n })
    dedup.close()`
  const args = ['--disable-warning=ExperimentalWarning', '--input-type=module', '-e', script]
  const children = ['/a', '/b', '/c'].map((name) =>
    spawn(process.execPath, [...args, name], { stdio: ['ignore', 'ignore', 'inherit'] }),
  )
  const ends = await Promise.all(children.map((child) => once(child, 'exit') as Promise<[number]>))
  assert.deepEqual(
    ends.map(([code]) => code),
    [0, 0, 0],
  )
  assert.deepEqual(counts(path), { blobs: 3, chunks: 900 })
})

test('a file that is no database is refused, and left as it is', () => {
  const path = join(newFolder(), 'cas.db')
  writeFileSync(path, 'no database, '.repeat(1000))
  assert.throws(
    () => ChunkDedup.open(path),
    (error: unknown) => error instanceof CacheError && error.message.includes(path),
  )
  assert.ok(readFileSync(path, 'utf8').startsWith('no database, '))
  const absent = join(newFolder(), 'absent/cas.db')
  assert.throws(() => ChunkDedup.open(absent), CacheError)
  assert.equal(existsSync(absent), false)
})

test('the names in the database are those of the original', async () => {
  const path = join(newFolder(), 'cas.db')
  const dedup = ChunkDedup.open(path)
  const { reader, cache } = await open(one, dedup)
  await readAll(one, reader)
  await reader.close()
  dedup.close()
  const database = new DatabaseSync(path)
  const blobs = database.prepare('SELECT FilePath FROM Blobs').all()
  assert.deepEqual(
    blobs.map(({ FilePath: name }) => name),
    [realpathSync(dataOf(cache))],
  )
  for (const { ChunkId: id } of database.prepare('SELECT ChunkId FROM Chunks').all())
    assert.match(String(id), /^Blake3:[0-9a-f]{64}$/)
  database.close()
})
