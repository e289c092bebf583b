import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { Worker } from 'node:worker_threads'
import { buildLayer } from '../builder/index.ts'
import { trimCache } from '../cache/index.ts'
import { punchHole } from '../kernel/index.ts'
import { ChunkSpan } from '../rafs/index.ts'
import { DecodePool, HotReader, type ImageReader, openImage } from './index.ts'
import { buildTestImage, LIMITS, pattern, readFile, type TestImage, ToldBackend } from './testing.ts'

const folder = mkdtempSync(join(tmpdir(), 'nydus-limit-'))
const decoders = new DecodePool(1)
after(async () => {
  await decoders.close()
  rmSync(folder, { recursive: true, force: true })
})
const newFolder = (): string => mkdtempSync(join(folder, 'd-'))
const MIB = 1 << 20
const image = await buildTestImage(
  buildLayer,
  Object.fromEntries(Array.from({ length: 12 }, (_, index) => [`${index}.bin`, pattern(index + 1, 512 * 1024)])),
)

async function open(
  cacheDirectory: string,
  cacheBytes: number,
  of: TestImage = image,
): Promise<{ reader: ImageReader; backend: ToldBackend }> {
  const backend = new ToldBackend(of.blob)
  // A request waits for room before the next one: more at once would go over the limit by what they bring.
  const limits = { ...LIMITS, memoryBytes: 0, cacheBytes, demandRequests: 1 }
  return { reader: await openImage({ bootstrap: of.bootstrap, backend, cacheDirectory, decoders, limits }), backend }
}

async function readAll(reader: ImageReader, of: TestImage = image): Promise<void> {
  for (const [name, content] of Object.entries(of.files))
    assert.ok((await readFile(of.bootstrap, reader, name)).equals(content), name)
}

const taken = (directory: string): number =>
  readdirSync(directory).reduce((sum, name) => sum + statSync(join(directory, name)).blocks * 512, 0)

/** Files of a blob that nobody has open, used so many seconds ago. */
function leftOver(directory: string, id: string, bytes: number, secondsAgo: number): void {
  for (const suffix of ['.blob.data', '.blob.data.chunk_map', '.blob.meta']) {
    const path = join(directory, id + suffix)
    writeFileSync(path, Buffer.alloc(suffix === '.blob.data' ? bytes : 4096 + 8, 1))
    const at = Date.now() / 1000 - secondsAgo
    utimesSync(path, at, at)
  }
}

test('blobs that nobody uses go first, those used longest ago before the others, with all their files', async () => {
  const cache = newFolder()
  leftOver(cache, 'old', MIB, 300)
  leftOver(cache, 'older', MIB, 400)
  leftOver(cache, 'new', MIB, 100)
  writeFileSync(join(cache, 'e'.repeat(64)), Buffer.alloc(MIB)) // the tar of a tarfs image
  writeFileSync(join(cache, 'other.txt'), Buffer.alloc(MIB))
  assert.ok((await trimCache(cache, 2.5 * MIB)) < 2.5 * MIB)
  const left = readdirSync(cache).sort()
  assert.deepEqual(left, [
    'e'.repeat(64),
    'new.blob.data',
    'new.blob.data.chunk_map',
    'new.blob.meta',
    'old.blob.data',
    'old.blob.data.chunk_map',
    'old.blob.meta',
    'other.txt',
  ])
})

test('what another process has open stays', async () => {
  const cache = newFolder()
  leftOver(cache, 'used', MIB, 300)
  leftOver(cache, 'unused', MIB, 100)
  const holder = spawn(
    process.execPath,
    [
      '-e',
      `require('fs').openSync(${JSON.stringify(join(cache, 'used.blob.data'))}); console.log('open'); setInterval(() => {}, 1000)`,
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  )
  await once(holder.stdout, 'data')
  await trimCache(cache, 0)
  assert.deepEqual(readdirSync(cache).sort(), ['used.blob.data', 'used.blob.data.chunk_map', 'used.blob.meta'])
  holder.kill('SIGKILL')
  await once(holder, 'exit')
  await trimCache(cache, 0)
  assert.deepEqual(readdirSync(cache), [])
})

test('an image that is larger than the limit is read rightly within it, over and over', async () => {
  const cache = newFolder()
  leftOver(cache, 'unused', MIB, 100)
  const { reader, backend } = await open(cache, 3 * MIB)
  for (let round = 0; round < 3; round += 1) {
    await readAll(reader)
    assert.ok(
      taken(cache) < 4.6 * MIB, // the limit, what is stored between two looks, what one request brings, and the tables
      `${taken(cache)} bytes are taken`,
    )
  }
  assert.equal(existsSync(join(cache, 'unused.blob.data')), false)
  assert.ok(reader.counters.evictedBytes > 6 * MIB)
  assert.ok(backend.asked.length > 0 && reader.counters.failedReads === 0)
  await reader.close()
  const again = await open(cache, 0)
  await readAll(again.reader)
  assert.equal(again.reader.counters.badChunks, 0, 'no mark is left over a hole')
  await again.reader.close()
})

test('two images in one directory: neither takes from the other what it has open', async () => {
  const cache = newFolder()
  const other = await buildTestImage(buildLayer, { 'x.bin': pattern(99, 2 * MIB) })
  const first = await open(cache, 0, other)
  await readAll(first.reader, other)
  const requests = first.backend.asked.length
  const second = await open(cache, 2 * MIB)
  await readAll(second.reader)
  await readAll(first.reader, other)
  assert.equal(first.backend.asked.length, requests)
  await first.reader.close()
  await readAll(second.reader)
  assert.equal(readdirSync(cache).filter((name) => name.startsWith(other.bootstrap.blobs[0]?.id ?? '?')).length, 0)
  await second.reader.close()
})

test('the hot path never shows a hole, whatever is evicted, cut and grown under it', { timeout: 180_000 }, async () => {
  const cache = newFolder()
  const { reader } = await open(cache, 1.5 * MIB)
  const hot = new HotReader(reader.hot)
  const koffi = createRequire(import.meta.url)('koffi') as { address(of: Uint8Array): bigint }
  const into = Buffer.alloc(128 * 1024)
  const address = Number(koffi.address(into))
  const data = join(cache, `${image.bootstrap.blobs[0]?.id}.blob.data`)
  const size = statSync(data).size
  let shown = 0
  for (let round = 0; round < 400; round += 1) {
    const name = `${round % 3 === 0 ? (round / 3) % 12 : 1}.bin`
    const ino = image.bootstrap.lookup(image.bootstrap.root, Buffer.from(name)) ?? assert.fail(name)
    const offset = (Math.floor(round / 7) % 4) * into.length
    const spans: ChunkSpan[] = []
    const count = image.bootstrap.chunks(ino, offset, into.length, spans)
    const wanted = image.files[name]?.subarray(offset, offset + into.length) ?? assert.fail(name)
    if (hot.read(spans, count, address)) {
      shown += 1
      assert.ok(into.equals(wanted), `round ${round}`)
    } else assert.ok((await readFile(image.bootstrap, reader, name, offset, into.length)).equals(wanted))
    if (round % 100 === 99) {
      truncateSync(data, round * 1000)
      truncateSync(data, size)
      for (let turns = 0; turns < 2; turns += 1) await turn() // the news of it
    }
  }
  assert.ok(shown > 20, `${shown} reads were answered at once`)
  assert.ok(reader.counters.evictedBytes > 0)
  await reader.close()
})

test('bytes that were read while trust was taken back are not shown', async () => {
  const { reader } = await open(newFolder(), 0)
  await readAll(reader)
  const { chunks, dataFd } = reader.hot.blobs[0] ?? assert.fail('no blob')
  assert.ok(chunks !== undefined)
  const hot = new HotReader(reader.hot)
  const koffi = createRequire(import.meta.url)('koffi') as { address(of: Uint8Array): bigint }
  const into = Buffer.alloc(1000)
  const ino = image.bootstrap.lookup(image.bootstrap.root, Buffer.from('3.bin')) ?? assert.fail('no file')
  const [span] = [new ChunkSpan()]
  image.bootstrap.chunks(ino, 0, into.length, [span])
  const { chunkOffset, chunkIndex } = span
  let looks = 0
  const { blobIndex, offsetInChunk, length } = span
  const evictedMeanwhile = {
    blobIndex,
    chunkIndex,
    offsetInChunk,
    length,
    get chunkOffset() {
      looks += 1
      if (looks === 2) {
        // after the check, before the read
        chunks.trusted[chunkIndex] = 0
        Atomics.add(chunks.withdrawals, 0, 1)
        punchHole(dataFd, chunkOffset, chunks.sizes[chunkIndex] ?? 0)
      }
      return chunkOffset
    },
  }
  assert.equal(hot.read([span], 1, Number(koffi.address(into))), true)
  assert.equal(hot.read([evictedMeanwhile], 1, Number(koffi.address(into))), false)
  assert.ok(looks >= 2 && into.every((byte) => byte === 0))
  assert.ok((await readFile(image.bootstrap, reader, '3.bin')).equals(image.files['3.bin'] ?? assert.fail('no file')))
  await reader.close()
})

test('readers on another thread never see a hole while chunks are evicted', { timeout: 180_000 }, async () => {
  const cache = newFolder()
  const { reader } = await open(cache, 3 * MIB)
  await readAll(reader)
  const { chunks, dataFd } = reader.hot.blobs[0] ?? assert.fail('no blob')
  assert.ok(chunks !== undefined)
  const code = `
    const { parentPort, workerData: { chunks, dataFd } } = require('node:worker_threads')
    const { readSync } = require('node:fs')
    const into = Buffer.alloc(65536)
    let [shown, holes] = [0, 0]
    const until = Date.now() + 1500
    while (Date.now() < until || shown <= 100)
      for (let chunk = 0; chunk < chunks.trusted.length; chunk += 1) {
        const before = Atomics.load(chunks.withdrawals, 0)
        if (chunks.trusted[chunk] !== 1) continue
        const size = Math.min(into.length, chunks.sizes[chunk])
        const count = readSync(dataFd, into, 0, size, chunks.offsets[chunk])
        if (Atomics.load(chunks.withdrawals, 0) !== before) continue
        shown += 1
        if (count !== size || into.subarray(0, 64).every((byte) => byte === 0)) holes += 1
      }
    parentPort.postMessage({ shown, holes })`
  const worker = new Worker(code, { eval: true, workerData: { chunks, dataFd } })
  const result = once(worker, 'message') as Promise<[{ shown: number; holes: number }]>
  const before = reader.counters.evictedBytes
  for (let round = 0; round < 20; round += 1) await readAll(reader)
  const [{ shown, holes }] = await result
  assert.ok(reader.counters.evictedBytes - before > 20 * MIB)
  await worker.terminate()
  assert.ok(shown > 100)
  assert.equal(holes, 0)
  await reader.close()
})
