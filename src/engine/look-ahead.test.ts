/** Readers who read all there is: what is far ahead of them is asked for while they are busy. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { buildLayer } from '../builder/index.ts'
import { DecodePool, type ImageReader, openImage } from './index.ts'
import { buildTestImage, LIMITS, pattern, readFile, ToldBackend } from './testing.ts'

const folder = mkdtempSync(join(tmpdir(), 'nydus-look-ahead-'))
const decoders = new DecodePool(1)
after(async () => {
  await decoders.close()
  rmSync(folder, { recursive: true, force: true })
})
const CHUNK = 0x1_0000
const MIB = 2 ** 20
const SIZE = 96 * MIB
const image = await buildTestImage(buildLayer, { file: pattern(1, SIZE) }, { compression: 'none', chunkSize: CHUNK })

async function open(cacheBytes = 0): Promise<{ readonly reader: ImageReader; readonly backend: ToldBackend }> {
  const backend = new ToldBackend(image.blob)
  const cacheDirectory = mkdtempSync(join(folder, 'cache-'))
  const limits = { ...LIMITS, amplifyBytes: MIB, readDeadlineMs: 60_000, cacheBytes }
  return { reader: await openImage({ bootstrap: image.bootstrap, backend, cacheDirectory, decoders, limits }), backend }
}

async function readAt(reader: ImageReader, at: number): Promise<void> {
  const bytes = await readFile(image.bootstrap, reader, 'file', at, CHUNK)
  assert.ok(bytes.equals(image.files['file']?.subarray(at, at + CHUNK) ?? Buffer.alloc(0)), `at ${at}`)
}

/** Reads on to there, and waits until nothing more is asked for; gives where the data that came ends. */
async function readTo(reader: ImageReader, backend: ToldBackend, to: number): Promise<number> {
  for (let at = 0; at < to; at += CHUNK) await readAt(reader, at)
  for (let known = -1; known !== backend.asked.length; await pause(200)) known = backend.asked.length
  return Math.max(...backend.asked.map(({ from, length }) => from + length))
}

test('who has read on for long finds a quarter of that ahead, each byte asked for once', async () => {
  const { reader, backend } = await open()
  const end = await readTo(reader, backend, 32 * MIB)
  assert.ok(end >= 38 * MIB, `${end / MIB} MiB`)
  assert.ok(end <= 43 * MIB, `${end / MIB} MiB`)
  assert.equal(backend.bytesSent, end)
  for (let at = 32 * MIB; at < SIZE; at += CHUNK) await readAt(reader, at)
  assert.equal(backend.bytesSent, SIZE)
  await reader.close()
})

test('who has read little finds the next request only', async () => {
  const { reader, backend } = await open()
  const end = await readTo(reader, backend, 12 * MIB)
  assert.ok(end <= 15 * MIB, `${end / MIB} MiB`)
  await reader.close()
})

test('where the cache has a limit, what is far ahead is left where it is', async () => {
  const { reader, backend } = await open(64 * MIB)
  const end = await readTo(reader, backend, 32 * MIB)
  assert.ok(end <= 35 * MIB, `${end / MIB} MiB`)
  await reader.close()
})

test('while a reader waits for something else, nothing more is asked for far ahead', async () => {
  const { reader, backend } = await open()
  for (let at = 0; at < 40 * MIB; at += CHUNK) await readAt(reader, at)
  for (let known = -1; known !== backend.asked.length; await pause(200)) known = backend.asked.length
  const gate = Promise.withResolvers<void>()
  const far = SIZE - CHUNK
  backend.before = async ({ from, length }) => (from + length > far ? await gate.promise : undefined)
  const other = readAt(reader, far)
  await pause(50)
  const known = backend.asked.length
  // A reader on another thread comes to what is ahead.
  const last = backend.asked.at(-2)
  const touched = reader.hot.blobs[0]?.touched
  assert.ok(last !== undefined && touched !== undefined)
  touched.fill(1, 0, last.from / CHUNK)
  await pause(300)
  // The next request of each reader who has come to the end of what is here, no more.
  assert.ok(backend.asked.length - known <= 4, `${backend.asked.length - known} requests`)
  gate.resolve()
  await other
  await reader.close()
})
