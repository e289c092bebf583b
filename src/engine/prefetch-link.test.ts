/** How well prefetch uses a link, in a time that is only counted: a shared link with a bandwidth and a delay, and decoders that take their time. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { setImmediate as turn, setTimeout as pause } from 'node:timers/promises'
import { buildLayer } from '../builder/index.ts'
import type { Backend, BlobReader, ReadOptions } from '../backend/index.ts'
import type { Clock } from './clock.ts'
import type { DecodeOutcome, DecodeTask } from './decode-task.ts'
import { DecodePool, openImage } from './index.ts'
import { buildTestImage, LIMITS, pattern, readFile } from './testing.ts'

const folder = mkdtempSync(join(tmpdir(), 'nydus-link-'))
after(() => rmSync(folder, { recursive: true, force: true }))

/** Moves to the next time that somebody waits for when nothing else goes on. */
class CountedClock implements Clock {
  #now = 0
  readonly #sleepers: Array<{ readonly until: number; readonly resolve: () => void }> = []
  #working = 0

  now(): number {
    return this.#now
  }

  sleep(ms: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#sleepers.push({ until: this.#now + ms, resolve })
    return promise
  }

  /** Time stands still until the work is done. */
  async standStill<T>(work: Promise<T>): Promise<T> {
    this.#working += 1
    try {
      return await work
    } finally {
      this.#working -= 1
    }
  }

  /** Whatever needs no time is done when nobody works, no file is read or written, and that for a few turns. */
  async advance(): Promise<void> {
    for (let idle = 0; idle < 4; idle += 1) {
      await turn()
      if (this.#working > 0 || process.getActiveResourcesInfo().some((kind) => kind.startsWith('FSReq'))) idle = -1
    }
    this.#sleepers.sort((a, b) => a.until - b.until)
    const first = this.#sleepers.shift()
    if (first === undefined) return await pause(1)
    this.#now = Math.max(this.#now, first.until)
    first.resolve()
  }

  /** Moves on until something is over. */
  async run(work: Promise<unknown>): Promise<void> {
    const over = work.then(() => false)
    while (await Promise.race([over, turn(true)])) await this.advance()
  }
}

interface LinkShape {
  readonly name: string
  readonly bytesPerMs: number
  readonly roundTripMs: number
}

const SLICE = 16 << 10
/** A task has 256 KiB: a quarter of what they take at 200 Mbit/s. */
const DECODE_MS = 2.5

/** A registry behind a link that all answers share in turns. */
class LinkedBackend implements Backend {
  readonly name = 'linked'
  bytes = 0
  firstAt = Number.NaN
  lastAt = 0
  #freeAt = 0
  readonly #blob: Buffer
  readonly #shape: LinkShape
  readonly #clock: CountedClock

  constructor(blob: Buffer, shape: LinkShape, clock: CountedClock) {
    this.#blob = blob
    this.#shape = shape
    this.#clock = clock
  }

  /** Of what the link could have carried from the first byte to the last. */
  get share(): number {
    return this.bytes / this.#shape.bytesPerMs / (this.lastAt - this.firstAt)
  }

  async open(): Promise<BlobReader> {
    return {
      size: async () => this.#blob.length,
      read: (from, into, options) => this.#read(from, into, options),
      close: async () => {},
    }
  }

  async close(): Promise<void> {}

  async #read(from: number, into: Uint8Array, { onFilled }: ReadOptions): Promise<void> {
    const [clock, { bytesPerMs, roundTripMs }] = [this.#clock, this.#shape]
    await clock.sleep(roundTripMs)
    if (Number.isNaN(this.firstAt)) this.firstAt = clock.now()
    for (let at = 0; at < into.length; at += SLICE) {
      const length = Math.min(SLICE, into.length - at)
      this.#freeAt = Math.max(this.#freeAt, clock.now()) + length / bytesPerMs
      await clock.sleep(this.#freeAt - clock.now())
      into.set(this.#blob.subarray(from + at, from + at + length), at)
      onFilled?.(at + length)
      this.bytes += length
      this.lastAt = clock.now()
    }
  }
}

/** Decodes by a clock, one task after the other. */
class SlowDecoders extends DecodePool {
  readonly #clock: CountedClock
  #before: Promise<unknown> = Promise.resolve()

  constructor(clock: CountedClock) {
    super(1)
    this.#clock = clock
  }

  override async run(task: DecodeTask): Promise<DecodeOutcome[]> {
    const turnOfTask = this.#before.then(() => this.#clock.sleep(DECODE_MS))
    this.#before = turnOfTask
    await turnOfTask
    return await this.#clock.standStill(super.run(task))
  }
}

const LINKS: readonly LinkShape[] = [
  { name: '200 Mbit/s, 5 ms', bytesPerMs: 25_000, roundTripMs: 5 },
  { name: '50 Mbit/s, 20 ms', bytesPerMs: 6_250, roundTripMs: 20 },
  { name: '20 Mbit/s, 80 ms', bytesPerMs: 2_500, roundTripMs: 80 },
]

const image = await buildTestImage(
  buildLayer,
  { 'all.bin': pattern(1, 12 << 20), 'wanted.bin': pattern(2, 4 << 20) },
  { compression: 'none', chunkSize: 0x4_0000 },
)

for (const shape of LINKS)
  test(`prefetch uses nine tenths of a link that nobody else uses: ${shape.name}`, async () => {
    const clock = new CountedClock()
    const [backend, decoders] = [new LinkedBackend(image.blob, shape, clock), new SlowDecoders(clock)]
    const cacheDirectory = mkdtempSync(join(folder, 'cache-'))
    const parts = {
      bootstrap: image.bootstrap,
      backend,
      cacheDirectory,
      decoders,
      limits: { ...LIMITS, prefetchRequests: 4, readDeadlineMs: 120_000 },
    }
    const reader = await openImage(parts, clock)
    const chunks = image.bootstrap.blobs[0]?.chunkCount ?? 0
    reader.prefetch({ table: false, paths: [], everything: true })
    while (reader.counters.chunksVerified < chunks) await clock.advance()
    assert.ok(backend.share >= 0.9, `${backend.share}`)
    await reader.close()
    await decoders.close()
  })

test('a reader who comes while everything is fetched ahead waits for little more than its own data', async () => {
  const [shape] = LINKS
  assert.ok(shape !== undefined)
  const clock = new CountedClock()
  const [backend, decoders] = [new LinkedBackend(image.blob, shape, clock), new SlowDecoders(clock)]
  const cacheDirectory = mkdtempSync(join(folder, 'cache-'))
  const parts = {
    bootstrap: image.bootstrap,
    backend,
    cacheDirectory,
    decoders,
    limits: { ...LIMITS, prefetchRequests: 4, readDeadlineMs: 120_000 },
  }
  const reader = await openImage(parts, clock)
  reader.prefetch({ table: false, paths: [], everything: true })
  while (backend.bytes < 4 << 20) await clock.advance()
  const beganAt = clock.now()
  const reading = readFile(image.bootstrap, reader, 'wanted.bin', 3 << 20, 4096).then((bytes) => {
    assert.ok(bytes.equals(image.files['wanted.bin']?.subarray(3 << 20, (3 << 20) + 4096) ?? Buffer.alloc(0)))
    return clock.now() - beganAt
  })
  await clock.run(reading)
  const tookMs = await reading
  // Its chunk takes 10.5 ms, thrice that beside two others; a round trip, and the decoders' turn after what waits for them.
  assert.ok(tookMs < 5 + 3 * 10.5 + 5 * DECODE_MS, `${tookMs} ms`)
  await clock.run(reader.close())
  await decoders.close()
})
