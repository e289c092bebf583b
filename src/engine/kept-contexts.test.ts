import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { BackendError } from '../backend/index.ts'
import { buildLayer } from '../builder/index.ts'
import { DecodePool, type ImageReader, openImage } from './index.ts'
import { buildTestImage, LIMITS, pattern, readFile, ToldBackend } from './testing.ts'

const folder = mkdtempSync(join(tmpdir(), 'nydus-contexts-'))
const decoders = new DecodePool(1)
after(async () => {
  await decoders.close()
  rmSync(folder, { recursive: true, force: true })
})
const image = await buildTestImage(buildLayer, { 'a.bin': pattern(1, 300_000), 'b.bin': pattern(2, 10) })
const [blob] = image.bootstrap.blobs
const META_BYTES = (blob?.metaCompressedSize ?? 0) + 4096

interface Opened {
  readonly reader: ImageReader
  readonly backend: ToldBackend
  readonly path: string
}

async function open(directory = mkdtempSync(join(folder, 'cache-'))): Promise<Opened> {
  const backend = new ToldBackend(image.blob)
  const parts = { bootstrap: image.bootstrap, backend, cacheDirectory: directory, decoders, limits: LIMITS }
  return { reader: await openImage(parts), backend, path: join(directory, `${blob?.id}.blob.meta`) }
}

async function until(isTrue: () => boolean): Promise<void> {
  for (let tries = 0; tries < 6000 && !isTrue(); tries += 1) await sleep(10)
  assert.ok(isTrue())
}

test('the context of a plain blob is kept with one request, and not asked for again', async () => {
  const { reader, backend, path } = await open()
  reader.keepContexts()
  await until(() => existsSync(path))
  await reader.close()
  assert.deepEqual(backend.asked, [{ from: blob?.metaOffset, length: META_BYTES }])
  const kept = readFileSync(path)
  assert.equal(kept.length, Math.ceil((blob?.metaUncompressedSize ?? 0) / 4096) * 4096 + 4096)
  assert.deepEqual(kept.subarray(-4096), image.blob.subarray(-4096), 'the header, as it lies in the blob')
  const again = await open(join(path, '..'))
  again.reader.keepContexts()
  await sleep(100)
  await again.reader.close()
  assert.equal(again.backend.asked.length, 0)
})

test('a kept file that does not fit the image, or is too short, is fetched again', async () => {
  for (const damage of [(bytes: Buffer) => bytes.subarray(0, 4096), (bytes: Buffer) => bytes.fill(0xa5)]) {
    const { reader, path } = await open()
    reader.keepContexts()
    await until(() => existsSync(path))
    await reader.close()
    const right = readFileSync(path)
    writeFileSync(path, damage(Buffer.from(right)))
    const again = await open(join(path, '..'))
    again.reader.keepContexts()
    await until(() => readFileSync(path).equals(right))
    await again.reader.close()
  }
})

test('it waits while a reader waits, is tried again after a failure, and a closed image gives up at once', async () => {
  const { reader, backend, path } = await open()
  const order: string[] = []
  backend.before = async ({ from }, attempt) => {
    order.push(from === blob?.metaOffset ? 'context' : 'demand')
    if (attempt < 2) await sleep(50)
    if (attempt === 1) throw new BackendError('IO', 'not now')
  }
  const read = readFile(image.bootstrap, reader, 'b.bin')
  reader.keepContexts()
  await read
  await until(() => existsSync(path))
  await reader.close()
  assert.deepEqual(order, ['demand', 'context', 'context'])
  const hanging = await open()
  hanging.backend.before = (_asked, _attempt, signal) =>
    new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason as Error)))
  hanging.reader.keepContexts()
  await until(() => hanging.backend.asked.length > 0)
  await hanging.reader.close()
  assert.equal(existsSync(hanging.path), false)
})
