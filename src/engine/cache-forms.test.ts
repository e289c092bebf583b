/** Caches that keep stored or encrypted bytes, or are verified at every read: the same bytes for readers, whatever lies on the disk. */
import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { after, test } from 'node:test'
import { localfsBackend } from '../backend/index.ts'
import { buildLayer } from '../builder/index.ts'
import { BLOB_FEATURES } from '../blob/index.ts'
import { PageCipher } from '../codec/index.ts'
import { Attributes, type Bootstrap, ChunkSpan, isType, MODE, openBootstrap, walkBootstrap } from '../rafs/index.ts'
import { DecodePool, type ImageCacheForm, type ImageReader, openImage } from './index.ts'
import { addDerivedBlobs, buildTestImage, LIMITS, pattern, readFile, ToldBackend } from './testing.ts'

const folder = mkdtempSync(join(tmpdir(), 'nydus-forms-'))
const decoders = new DecodePool(1)
after(async () => {
  await decoders.close()
  rmSync(folder, { recursive: true, force: true })
})
const newCache = (): string => mkdtempSync(join(folder, 'cache-'))
const image = await buildTestImage(buildLayer, {
  'a.bin': pattern(1, 300_000),
  'b.bin': Buffer.from('a secret that is easily recognised'.repeat(30)),
  'c.bin': pattern(3, 70_000),
})
const key = Buffer.from('00112233445566778899aabbccddeeff0f1e2d3c4b5a69788796a5b4c3d2e1f0', 'hex')
const PLAIN: ImageCacheForm = { compressed: false, validate: false, encryption: undefined }
const FORMS: Readonly<Record<string, ImageCacheForm>> = {
  compressed: { ...PLAIN, compressed: true },
  encrypted: { ...PLAIN, encryption: { key, convergent: false } },
  'encrypted by digests': { ...PLAIN, encryption: { key, convergent: true } },
  'always verified': { ...PLAIN, validate: true },
}

interface Opened {
  readonly reader: ImageReader
  readonly backend: ToldBackend
}

async function open(cacheDirectory: string, cacheForm: ImageCacheForm, limits = {}): Promise<Opened> {
  const backend = new ToldBackend(image.blob)
  const { bootstrap } = image
  const parts = { bootstrap, backend, cacheDirectory, cacheForm, decoders, limits: { ...LIMITS, ...limits } }
  return { reader: await openImage(parts), backend }
}

async function readAll(reader: ImageReader): Promise<void> {
  for (const [name, content] of Object.entries(image.files))
    assert.ok((await readFile(image.bootstrap, reader, name)).equals(content), name)
}

/** Data and map of the only blob. */
function filesOf(cache: string): { data: string; map: string } {
  const data = readdirSync(cache).find((name) => /\.blob\.(data|raw)$/.test(name)) ?? assert.fail('no data file')
  return { data: join(cache, data), map: join(cache, data.replace(/\.blob\..*/, '.blob.data.chunk_map')) }
}

for (const [name, form] of Object.entries(FORMS)) {
  test(`${name}: every byte is right, also from the cache and after a restart, and each chunk is fetched once`, async () => {
    const cache = newCache()
    const first = await open(cache, form)
    await readAll(first.reader)
    const requests = first.backend.asked.length
    await readAll(first.reader)
    assert.equal(first.backend.asked.length, requests)
    assert.ok(first.reader.hot.blobs.every(({ chunks }) => chunks?.trusted.every((byte) => byte === 0)))
    await first.reader.close()
    for (const memoryBytes of [0, 16 << 20]) {
      const again = await open(cache, form, { memoryBytes })
      await readAll(again.reader)
      await readAll(again.reader)
      assert.equal(again.backend.asked.length, 0)
      assert.equal(again.reader.counters.badChunks, 0)
      await again.reader.close()
    }
  })

  test(`${name}: bytes that change under the image are found out at the next read`, async () => {
    const cache = newCache()
    const { reader, backend } = await open(cache, form, { memoryBytes: 0 })
    await readAll(reader)
    const requests = backend.asked.length
    const { data } = filesOf(cache)
    writeFileSync(data, Buffer.alloc(readFileSync(data).length))
    await readAll(reader)
    assert.ok(reader.counters.badChunks > 0)
    assert.ok(backend.asked.length > requests)
    await reader.close()
    const again = await open(cache, form)
    await readAll(again.reader)
    assert.equal(again.backend.asked.length, 0, 'it was mended')
    await again.reader.close()
  })
}

test('a compressed cache is the data of the blob, byte for byte', async () => {
  const cache = newCache()
  const { reader } = await open(cache, { ...PLAIN, compressed: true })
  await readAll(reader)
  await reader.close()
  const raw = readFileSync(filesOf(cache).data)
  assert.ok(raw.length > 0 && raw.length === image.bootstrap.blobs[0]?.metaOffset)
  assert.ok(raw.equals(image.blob.subarray(0, raw.length)))
  assert.ok(!existsSync(filesOf(cache).data.replace('.blob.raw', '.blob.data')))
})

test('an encrypted cache shows nothing; with another key all is fetched again, and nothing is wrong', async () => {
  const cache = newCache()
  const { reader } = await open(cache, { ...PLAIN, encryption: { key, convergent: false } })
  await readAll(reader)
  await reader.close()
  const data = readFileSync(filesOf(cache).data)
  assert.equal(data.length % 4096, 0)
  for (const content of Object.values(image.files)) assert.equal(data.indexOf(content.subarray(0, 32)), -1)
  const other = await open(cache, { ...PLAIN, encryption: { key: Buffer.from(key).reverse(), convergent: false } })
  await readAll(other.reader)
  assert.ok(other.reader.counters.badChunks > 0 && other.backend.asked.length > 0)
  await other.reader.close()
})

test('convergent encryption of a v6 blob without digests inside has the key that the original takes there', async () => {
  assert.equal((image.bootstrap.blobs[0]?.features ?? 0) & BLOB_FEATURES.INLINED_CHUNK_DIGEST, 0)
  const constant = Buffer.from('aced146994231eca448ced2f6b400c00fdbb3facddc7d9ee83f65cd93caa287c', 'hex')
  for (const validate of [false, true]) {
    const cache = newCache()
    const { reader } = await open(cache, { ...PLAIN, validate, encryption: { key, convergent: true } })
    await readAll(reader)
    await reader.close()
    const page = readFileSync(filesOf(cache).data).subarray(0, 4096)
    assert.ok(Buffer.from(new PageCipher(constant).decrypt(page)).equals(image.files['a.bin'].subarray(0, 4096)))
  }
})

test('a directory that was used in one form and then in another gives right bytes in both', async () => {
  const cache = newCache()
  for (const form of [PLAIN, ...Object.values(FORMS), ...Object.values(FORMS).toReversed(), PLAIN]) {
    const { reader } = await open(cache, form)
    await readAll(reader)
    await reader.close()
  }
})

const fixtures = join(import.meta.dirname, '../../../shared/fixtures')
/** All ways of storing chunks. */
const STORED = new Set([
  'v6-zran-gzip',
  'v6-zran-estargz',
  'v6-tar-ref',
  'v6-tar-zstd-batch',
  'v6-tar-lz4-encrypt-batch',
  'v6-tar-none-encrypt-inline-toc',
  'v5-tar-zstd-inline',
  'v5-tar-none-aligned',
])

test('slices, batches and encrypted chunks are kept as they are stored, and come from there', {
  skip: !existsSync(join(fixtures, 'manifest.json')) && 'no ../shared/fixtures beside the repository',
  timeout: 180_000,
}, async () => {
  const { images } = JSON.parse(readFileSync(join(fixtures, 'manifest.json'), 'utf8')) as {
    images: ReadonlyArray<{ readonly id: string; readonly exit: number }>
  }
  const layers = newCache()
  addDerivedBlobs(fixtures, layers)
  const ids = images.filter(({ id, exit }) => exit === 0 && STORED.has(id)).map(({ id }) => id)
  assert.equal(ids.length, STORED.size)
  for (const id of ids) {
    const at = join(fixtures, 'images', id)
    const { inline_blob: inline } = JSON.parse(readFileSync(join(at, 'image.json'), 'utf8')) as { inline_blob?: string }
    const inlinedBlobId = inline === undefined ? undefined : basename(inline)
    const bootstrap = openBootstrap(readFileSync(join(at, 'bootstrap')), { inlinedBlobId })
    const cacheDirectory = newCache()
    for (const memoryBytes of [16 << 20, 0]) {
      const backend = localfsBackend({ dir: join(fixtures, 'blobs'), altDirs: [layers] })
      const limits = { ...LIMITS, memoryBytes }
      const cacheForm = { ...PLAIN, compressed: true }
      const reader = await openImage({ bootstrap, backend, cacheDirectory, cacheForm, decoders, limits })
      await readFiles(bootstrap, reader, id)
      if (memoryBytes === 0) assert.equal(reader.counters.demandRequests, 0, `${id}: all of it is in the cache`)
      await reader.close()
    }
  }
})

/** Chunks are verified; what is wrong throws. */
async function readFiles(of: Bootstrap, reader: ImageReader, id: string): Promise<void> {
  const attributes = new Attributes()
  for (const { path, ino } of walkBootstrap(of)) {
    of.attributes(ino, attributes)
    if (!isType(attributes.mode, MODE.FILE)) continue
    const spans: ChunkSpan[] = []
    const count = of.chunks(ino, 0, attributes.size, spans)
    const into = Buffer.alloc(attributes.size)
    await assert.doesNotReject(
      reader.read(spans, count, into, new AbortController().signal),
      `${id} ${Buffer.from(path).toString()}`,
    )
  }
}
