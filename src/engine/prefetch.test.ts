import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { BackendError } from '../backend/index.ts'
import { buildLayer } from '../builder/index.ts'
import { openBootstrap } from '../rafs/index.ts'
import type { Clock } from './clock.ts'
import { DecodePool, type EngineLimits, type ImageReader, openImage, type PrefetchPlan } from './index.ts'
import { ImageBlob } from './image-blob.ts'
import { MemoryStore } from './memory-store.ts'
import { Prefetcher } from './prefetch.ts'
import { Schedule } from './schedule.ts'
import { buildTestImage, LIMITS, pattern, readFile, ToldBackend } from './testing.ts'

const folder = mkdtempSync(join(tmpdir(), 'nydus-prefetch-'))
const decoders = new DecodePool(1)
after(async () => {
  await decoders.close()
  rmSync(folder, { recursive: true, force: true })
})
const image = await buildTestImage(buildLayer, {
  'a.bin': pattern(1, 300_000),
  'b.bin': pattern(2, 10),
  'c.bin': pattern(3, 700_000),
})
const EVERYTHING: PrefetchPlan = { table: false, paths: [], everything: true }
const NOTHING: PrefetchPlan = { table: true, paths: [], everything: false }

/** Waits are noted, and over at once. */
class QuickClock implements Clock {
  readonly slept: number[] = []
  #now = 0

  now(): number {
    return this.#now
  }

  async sleep(ms: number): Promise<void> {
    this.slept.push(ms)
    this.#now += ms
    await sleep(0)
  }
}

interface Opened {
  readonly reader: ImageReader
  readonly backend: ToldBackend
  readonly clock: QuickClock
}

async function open(limits: Partial<EngineLimits> = {}, of = image.bootstrap, blob = image.blob): Promise<Opened> {
  const [backend, clock] = [new ToldBackend(blob), new QuickClock()]
  const cacheDirectory = mkdtempSync(join(folder, 'cache-'))
  const parts = {
    bootstrap: of,
    backend,
    cacheDirectory,
    decoders,
    limits: { ...LIMITS, prefetchRequests: 1, ...limits },
  }
  return { reader: await openImage(parts, clock), backend, clock }
}

async function until(isTrue: () => boolean): Promise<void> {
  for (let tries = 0; tries < 6000 && !isTrue(); tries += 1) await sleep(10)
  assert.ok(isTrue())
}

const CHUNKS = image.bootstrap.blobs[0]?.chunkCount ?? 0

test('everything comes in the order of the blob, no byte twice, none that is not of a chunk', async () => {
  const { reader, backend } = await open()
  reader.prefetch(EVERYTHING)
  await until(() => reader.counters.chunksVerified === CHUNKS)
  let at = 0
  for (const { from, length } of backend.asked) {
    assert.equal(from, at)
    at += length
  }
  assert.equal(at, image.bootstrap.blobs[0]?.metaOffset)
  assert.equal(reader.counters.prefetchBytes, at)
  await reader.close()
})

test('what could not be had is asked for again, with pauses that grow, and not for ever', async () => {
  const { reader, backend, clock } = await open()
  backend.before = async (_asked, attempt) => {
    if (attempt < 3) throw new BackendError('UNREACHABLE', 'no network')
  }
  reader.prefetch(EVERYTHING)
  await until(() => reader.counters.chunksVerified === CHUNKS)
  const pauses = clock.slept.filter((ms) => ms >= 500)
  assert.deepEqual(pauses, [500, 1000, 2000])
  await reader.close()
  const dead = await open()
  dead.backend.before = async () => {
    throw new BackendError('UNREACHABLE', 'no network')
  }
  dead.reader.prefetch(EVERYTHING)
  const pieces = Math.ceil(image.blob.length / (128 * 1024)) + 2
  await until(() => dead.backend.asked.length > 32)
  await sleep(200)
  assert.ok(dead.backend.asked.length <= 32 + pieces, `${dead.backend.asked.length} requests`)
  await dead.reader.close()
})

for (const when of ['before its bytes come', 'after its bytes came'])
  test(`a request that rejects, ${when}, ends the plan with its error, and nothing waits for ever`, async () => {
    const { bootstrap, blob: bytes } = image
    const [info] = bootstrap.blobs
    assert.ok(info !== undefined)
    const [backend, clock, memory] = [new ToldBackend(bytes), new QuickClock(), new MemoryStore(1 << 20)]
    const blob = await ImageBlob.open({ bootstrap, info, backend, cacheDirectory: undefined, memory })
    const schedule = new Schedule(LIMITS, clock, () => undefined)
    let ends = 0
    const prefetcher = new Prefetcher(bootstrap, [blob], schedule, {
      requests: 2,
      clock,
      verify: async () => undefined,
      fetch: async (_blob, range, place) => {
        if (when.startsWith('after')) place.arrived(range.length)
        await sleep(1)
        ends += 1
        throw new Error('out of luck')
      },
    })
    await assert.rejects(prefetcher.start(EVERYTHING), /out of luck/)
    assert.ok(ends > 0)
    const before = ends
    await prefetcher.stop()
    await sleep(20)
    assert.equal(ends, before, 'a request was under way when the plan had ended')
    await blob.close()
  })

test('a bandwidth keeps prefetch, and no reader, to so many bytes a second', async () => {
  const { reader, clock, backend } = await open({ prefetchBandwidth: 100_000 })
  reader.prefetch(EVERYTHING)
  await until(() => reader.counters.chunksVerified === CHUNKS)
  const waited = clock.slept.reduce((sum, ms) => sum + ms, 0)
  const last = backend.asked.at(-1)?.length ?? 0
  assert.ok(
    waited + 1000 >= ((backend.bytesSent - last) * 1000) / 100_000,
    `${waited} ms for ${backend.bytesSent} bytes`,
  )
  await reader.close()
  const demand = await open({ prefetchBandwidth: 1 })
  await readFile(image.bootstrap, demand.reader, 'c.bin')
  assert.deepEqual(demand.clock.slept, [])
  await demand.reader.close()
})

const shared = join(import.meta.dirname, '../../../shared/fixtures')

test('the head of a blob that its image names comes first, and alone when nothing else is asked for', {
  skip: !existsSync(join(shared, 'manifest.json')) && 'no ../shared/fixtures beside the repository',
}, async () => {
  const of = openBootstrap(readFileSync(join(shared, 'images/v5-dir-prefetch-blob/bootstrap')))
  const [blob] = of.blobs
  assert.ok(blob !== undefined && blob.prefetchSize > 0 && blob.prefetchSize < blob.compressedSize)
  const bytes = readFileSync(join(shared, 'blobs', blob.id))
  const { reader, backend } = await open({}, of, bytes)
  reader.prefetch(NOTHING)
  await until(() => backend.bytesSent >= blob.prefetchSize)
  await sleep(50)
  assert.equal(backend.asked[0]?.from, 0)
  assert.equal(backend.bytesSent, blob.prefetchSize)
  await reader.close()
})
