/** Readers who go on and on: what follows is asked for while they still wait for what was guessed. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { setImmediate as turn, setTimeout as pause } from 'node:timers/promises'
import { buildLayer } from '../builder/index.ts'
import { DecodePool, type ImageReader, openImage } from './index.ts'
import { buildTestImage, LIMITS, pattern, readFile, ToldBackend } from './testing.ts'

const folder = mkdtempSync(join(tmpdir(), 'nydus-read-on-'))
const decoders = new DecodePool(1)
after(async () => {
  await decoders.close()
  rmSync(folder, { recursive: true, force: true })
})
const CHUNK = 0x1_0000
const MIB = 2 ** 20
const SIZE = 12 * MIB
const image = await buildTestImage(buildLayer, { file: pattern(1, SIZE) }, { compression: 'none', chunkSize: CHUNK })

async function open(): Promise<{ readonly reader: ImageReader; readonly backend: ToldBackend }> {
  const backend = new ToldBackend(image.blob)
  const cacheDirectory = mkdtempSync(join(folder, 'cache-'))
  const limits = { ...LIMITS, amplifyBytes: MIB, readDeadlineMs: 60_000 }
  return { reader: await openImage({ bootstrap: image.bootstrap, backend, cacheDirectory, decoders, limits }), backend }
}

/** Reads chunks one after another. */
async function readFrom(reader: ImageReader, from: number, to: number): Promise<void> {
  for (let at = from; at < to; at += CHUNK) await readFile(image.bootstrap, reader, 'file', at, CHUNK)
}

/** The next two chunks are read while nothing is answered; gives the requests that this makes. */
async function readTwo(reader: ImageReader, backend: ToldBackend): Promise<ToldBackend['asked']> {
  const [known, gate] = [backend.asked.length, Promise.withResolvers<void>()]
  backend.before = async () => await gate.promise
  const last = backend.asked.at(-1)
  const at = last === undefined ? 0 : last.from + last.length
  const reads = [readFile(image.bootstrap, reader, 'file', at, CHUNK)]
  while (backend.asked.length === known) await turn()
  reads.push(readFile(image.bootstrap, reader, 'file', at + CHUNK, CHUNK))
  for (let turns = 0; turns < 20; turns += 1) await turn()
  gate.resolve()
  const [one, two] = await Promise.all(reads)
  assert.ok(one?.equals(image.files['file']?.subarray(at, at + CHUNK) ?? Buffer.alloc(0)))
  assert.ok(two?.equals(image.files['file']?.subarray(at + CHUNK, at + 2 * CHUNK) ?? Buffer.alloc(0)))
  return backend.asked.slice(known)
}

test('where guesses were good, what follows is asked for before the answer is there', async () => {
  const { reader, backend } = await open()
  await readFrom(reader, 0, 8 * MIB)
  const last = backend.asked.at(-1)
  assert.ok(last !== undefined)
  await readFrom(reader, 8 * MIB, last.from + last.length) // what came with it
  const [first, second, ...others] = await readTwo(reader, backend)
  assert.ok(first !== undefined && second !== undefined)
  assert.equal(second.from, first.from + first.length)
  assert.deepEqual(others, [], 'once')
  await reader.close()
})

test('where nothing is known of guesses, nobody asks further ahead', async () => {
  const { reader, backend } = await open()
  assert.equal((await readTwo(reader, backend)).length, 1)
  await reader.close()
})

test('where guesses were for nothing, nobody asks further ahead', async () => {
  const { reader, backend } = await open()
  for (let at = 0; at < SIZE - 2 * MIB; at += MIB) await readFile(image.bootstrap, reader, 'file', at, CHUNK)
  const [first, ...others] = await readTwo(reader, backend)
  assert.ok(first !== undefined)
  assert.ok(
    others.every(({ from }) => from <= first.from + CHUNK),
    'but the second reader itself',
  )
  await reader.close()
})

test('where guesses were good, what follows is asked for when another thread reads on in what is here', async () => {
  const { reader, backend } = await open()
  await readFrom(reader, 0, 8 * MIB)
  await pause(100)
  const newest = backend.asked.at(-1)
  assert.ok(newest !== undefined && newest.from + newest.length < SIZE)
  await pause(50)
  assert.equal(backend.asked.at(-1), newest, 'nobody has read what was guessed')
  const touched = reader.hot.blobs[0]?.touched
  assert.ok(touched !== undefined)
  const known = backend.asked.length
  touched[newest.from / CHUNK + 1] = 1
  for (const until = performance.now() + 60_000; backend.asked.length === known && performance.now() < until; )
    await pause(5)
  assert.deepEqual(
    backend.asked.slice(known).map(({ from }) => from),
    [newest.from + newest.length],
  )
  await reader.close()
})
