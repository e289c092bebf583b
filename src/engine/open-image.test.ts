import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { after, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { BackendError, localfsBackend, type ReadOptions } from '../backend/index.ts'
import { mountTmpfs, unmount } from '../kernel/index.ts'
import { Attributes, ChunkSpan, isType, MODE, openBootstrap, walkBootstrap } from '../rafs/index.ts'
import { buildLayer } from '../builder/index.ts'
import { DecodePool, EngineError, HotReader, type ImageReader, openImage } from './index.ts'
import { addDerivedBlobs, buildTestImage, LIMITS, pattern, readFile, type TestImage, ToldBackend } from './testing.ts'

const KIB = 1024
const folder = mkdtempSync(join(tmpdir(), 'nydus-engine-'))
const decoders = new DecodePool()
after(async () => {
  await decoders.close()
  rmSync(folder, { recursive: true, force: true })
})
let caches = 0
const newCache = (): string => mkdtempSync(join(folder, `cache-${caches++}-`))

const image = await buildTestImage(buildLayer, {
  'a.bin': pattern(1, 300 * KIB),
  'b.bin': pattern(2, 10),
  'c.bin': pattern(3, 70 * KIB),
  'd.bin': pattern(4, 200 * KIB),
})

interface Opened {
  readonly reader: ImageReader
  readonly backend: ToldBackend
  readonly cacheDirectory: string | undefined
}

async function open(
  of: TestImage = image,
  limits = {},
  cacheDirectory: string | undefined = newCache(),
): Promise<Opened> {
  const backend = new ToldBackend(of.blob)
  const reader = await openImage({
    bootstrap: of.bootstrap,
    backend,
    cacheDirectory,
    decoders,
    limits: { ...LIMITS, ...limits },
  })
  return { reader, backend, cacheDirectory }
}

async function readAll(of: TestImage, reader: ImageReader): Promise<void> {
  for (const [name, content] of Object.entries(of.files))
    assert.ok((await readFile(of.bootstrap, reader, name)).equals(content), name)
}

for (const compression of ['none', 'lz4_block', 'zstd'] as const) {
  for (const digest of ['sha256', 'blake3'] as const) {
    test(`reads every byte of an image in ${compression}, ${digest}; again from the cache; again after a restart`, async () => {
      const built = await buildTestImage(buildLayer, image.files, { compression, digest })
      const { reader, backend, cacheDirectory } = await open(built)
      await readAll(built, reader)
      const requests = backend.asked.length
      await readAll(built, reader)
      assert.equal(backend.asked.length, requests)
      await reader.close()
      const again = await open(built, {}, cacheDirectory)
      await readAll(built, again.reader)
      assert.equal(again.backend.asked.length, 0)
      assert.ok(again.reader.counters.chunksVerified > 0, 'claims are verified')
      await again.reader.close()
    })
  }
}

test('a hundred readers of one missing chunk cost one request', async () => {
  const { reader, backend } = await open()
  const parts = await Promise.all(
    Array.from({ length: 100 }, (_, index) => readFile(image.bootstrap, reader, 'a.bin', index, 50)),
  )
  for (const [index, part] of parts.entries()) assert.ok(part.equals(image.files['a.bin'].subarray(index, index + 50)))
  assert.equal(backend.asked.length, 1)
  await reader.close()
})

test('misses of one moment come in one request, and nothing else does without amplification', async () => {
  const { reader, backend } = await open(image, { amplifyBytes: 128 * KIB })
  await Promise.all([
    readFile(image.bootstrap, reader, 'a.bin', 0, 10),
    readFile(image.bootstrap, reader, 'a.bin', 64 * KIB, 10),
    readFile(image.bootstrap, reader, 'c.bin'),
  ])
  assert.equal(backend.asked.length, 1)
  await reader.close()
  const exact = await open()
  await readFile(image.bootstrap, exact.reader, 'b.bin')
  assert.equal(exact.reader.counters.chunksVerified, 1)
  await exact.reader.close()
})

test('neighbours come along when amplification is allowed, and reading them costs nothing', async () => {
  const { reader, backend } = await open(image, { amplifyBytes: 1 << 20 })
  await readFile(image.bootstrap, reader, 'a.bin', 0, 10)
  await readFile(image.bootstrap, reader, 'a.bin', 70 * KIB, 10)
  assert.equal(backend.asked.length, 1)
  await reader.close()
})

test('the hot path has what was read, and nothing before', async () => {
  const { reader } = await open()
  const hot = new HotReader(reader.hot)
  const spans: ChunkSpan[] = []
  const ino = image.bootstrap.lookup(image.bootstrap.root, Buffer.from('a.bin')) ?? 0
  const count = image.bootstrap.chunks(ino, 0, 300 * KIB, spans)
  const { createRequire } = await import('node:module')
  const koffi = createRequire(import.meta.url)('koffi') as { address(of: Uint8Array): bigint }
  const into = Buffer.alloc(300 * KIB)
  const address = Number(koffi.address(into))
  assert.equal(hot.read(spans, count, address), false)
  await readFile(image.bootstrap, reader, 'a.bin')
  assert.equal(hot.read(spans, count, address), true)
  assert.ok(into.equals(image.files['a.bin']))
  await reader.close()
})

test('a file that says other things of its chunks than their records gets an error, also when they are here', async () => {
  const { reader } = await open()
  const hot = new HotReader(reader.hot)
  const { createRequire } = await import('node:module')
  const koffi = createRequire(import.meta.url)('koffi') as { address(of: Uint8Array): bigint }
  const into = Buffer.alloc(300 * KIB)
  const address = Number(koffi.address(into))
  const ino = image.bootstrap.lookup(image.bootstrap.root, Buffer.from('a.bin')) ?? 0
  const readAs = async (change: (span: ChunkSpan) => void): Promise<boolean> => {
    const spans: ChunkSpan[] = []
    image.bootstrap.chunks(ino, 0, 100, spans)
    change(spans[0])
    const isHot = hot.read(spans, 1, address)
    await reader.read(spans, 1, into.subarray(0, spans[0]?.length), AbortSignal.timeout(10_000))
    return isHot
  }
  const crafted: ReadonlyArray<(span: ChunkSpan) => void> = [
    (span) => (span.chunkOffset += 4096),
    (span) => (span.length = 65 * KIB),
    (span) => (span.offsetInChunk = 64 * KIB),
    (span) => (span.chunkIndex = 1),
  ]
  for (const _time of ['missing', 'here']) {
    for (const [at, change] of crafted.entries())
      await assert.rejects(readAs(change), { name: 'EngineError', code: 'BAD_IMAGE' }, `${at}`)
    await readFile(image.bootstrap, reader, 'a.bin')
  }
  assert.equal(await readAs(() => undefined), true)
  await reader.close()
})

test('wrong bytes are asked for once more; twice wrong is an error, and the next read tries again', async () => {
  const { reader, backend } = await open()
  const flip = (into: Uint8Array): void => void (into[20] ^= 1)
  backend.damage = (into, attempt) => attempt === 0 && flip(into)
  assert.ok((await readFile(image.bootstrap, reader, 'a.bin', 0, 100)).equals(image.files['a.bin'].subarray(0, 100)))
  assert.deepEqual(backend.afterWrongBytes, [false, true])
  backend.damage = flip
  await assert.rejects(readFile(image.bootstrap, reader, 'd.bin', 0, 100), { name: 'EngineError', code: 'BAD_DIGEST' })
  backend.damage = () => {}
  assert.ok((await readFile(image.bootstrap, reader, 'd.bin', 0, 100)).equals(image.files['d.bin'].subarray(0, 100)))
  assert.ok(reader.counters.badChunks >= 3)
  await reader.close()
})

test('a backend that fails gives an error with its cause; the next read gets the bytes', async () => {
  const { reader, backend } = await open()
  backend.before = async () => {
    throw new BackendError('UNREACHABLE', 'nobody there')
  }
  await assert.rejects(readFile(image.bootstrap, reader, 'a.bin'), (error: unknown) => {
    assert.ok(error instanceof EngineError && error.code === 'BACKEND')
    assert.ok(error.cause instanceof BackendError)
    return true
  })
  backend.before = async () => {}
  await readAll(image, reader)
  await reader.close()
})

test('a backend that never answers costs the deadline, not more; nothing is written to the buffer afterwards', async () => {
  const { reader, backend } = await open(image, { readDeadlineMs: 2_000 }) // also what the reads below have
  const { promise: later, resolve } = Promise.withResolvers<void>()
  backend.before = () => later
  await assert.rejects(readFile(image.bootstrap, reader, 'a.bin', 0, 100), { code: 'TIMEOUT' })
  resolve()
  backend.before = async () => {}
  await readAll(image, reader)
  await reader.close()
})

test('a reader that gives up leaves the others their fetch', async () => {
  const { reader, backend } = await open()
  const { promise: later, resolve } = Promise.withResolvers<void>()
  backend.before = () => later
  const abort = new AbortController()
  const given = readFile(image.bootstrap, reader, 'b.bin', 0, 10, abort.signal)
  const kept = readFile(image.bootstrap, reader, 'b.bin')
  await sleep(5)
  abort.abort()
  await assert.rejects(given, { code: 'ABORTED' })
  resolve()
  assert.ok((await kept).equals(image.files['b.bin']))
  assert.equal(backend.asked.length, 1)
  await reader.close()
})

test('a decode thread that is gone while the range still arrives costs the read, not the process', async () => {
  const gone = new DecodePool()
  await gone.close()
  const backend = new ToldBackend(image.blob)
  const inner = await backend.open()
  const slow = {
    name: 'slow end',
    open: async () => ({
      ...inner,
      read: async (from: number, into: Uint8Array, options: ReadOptions) => {
        await inner.read(from, into, options)
        await sleep(30)
      },
    }),
    close: async () => {},
  }
  const reader = await openImage({
    bootstrap: image.bootstrap,
    backend: slow,
    cacheDirectory: newCache(),
    decoders: gone,
    limits: LIMITS,
  })
  await assert.rejects(readFile(image.bootstrap, reader, 'a.bin', 0, 100), { name: 'EngineError' })
  await reader.close()
})

test('close ends reads under way; later ones are refused; no descriptor stays', async () => {
  const before = readdirSync('/proc/self/fd').length
  const { reader, backend } = await open()
  backend.before = (_asked, _attempt, signal) =>
    new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(new Error('aborted'))))
  const read = readFile(image.bootstrap, reader, 'a.bin')
  await sleep(5)
  await Promise.all([assert.rejects(read, { code: 'CLOSED' }), reader.close()])
  await assert.rejects(readFile(image.bootstrap, reader, 'a.bin'), { code: 'CLOSED' })
  // What earlier tests left may still be closed meanwhile.
  assert.ok(readdirSync('/proc/self/fd').length <= before)
})

test('a foreign or torn cache file is never shown: its claims are withdrawn and the chunks fetched', async () => {
  const first = await open()
  await readAll(image, first.reader)
  await first.reader.close()
  const name = readdirSync(first.cacheDirectory ?? '').find((file) => file.endsWith('.blob.data')) ?? ''
  const fd = openSync(join(first.cacheDirectory ?? '', name), 'r+')
  writeSync(fd, Buffer.from('foreign'), 0, 7, 10)
  closeSync(fd)
  const second = await open(image, {}, first.cacheDirectory)
  await readAll(image, second.reader)
  assert.equal(second.reader.counters.badChunks, 1)
  assert.equal(second.backend.asked.length, 1)
  await second.reader.close()
})

test('a data file that is cut under our hands is filled again', async () => {
  const { reader, cacheDirectory = '' } = await open()
  await readAll(image, reader)
  const name = readdirSync(cacheDirectory).find((file) => file.endsWith('.blob.data')) ?? ''
  truncateSync(join(cacheDirectory, name), 1000)
  await readAll(image, reader)
  await reader.close()
})

test('without a cache directory chunks are kept in memory, within the budget', async () => {
  const backend = new ToldBackend(image.blob)
  const reader = await openImage({
    bootstrap: image.bootstrap,
    backend,
    cacheDirectory: undefined,
    decoders,
    limits: { ...LIMITS, memoryBytes: 1 << 20 },
  })
  await readAll(image, reader)
  const requests = backend.asked.length
  await readAll(image, reader)
  assert.equal(backend.asked.length, requests)
  await reader.close()
})

test('a full disk costs the cache, not the read', {
  skip: process.getuid?.() !== 0 && 'needs root for a small file system',
}, async () => {
  const small = newCache()
  await mountTmpfs(small, 64 * KIB)
  try {
    const { reader } = await open(image, {}, small)
    await readAll(image, reader)
    await readAll(image, reader)
    assert.ok(reader.counters.chunksUncached > 0)
    await reader.close()
  } finally {
    await unmount(small)
  }
})

test('prefetch brings everything, once; then nothing is asked for any more', async () => {
  const { reader, backend } = await open()
  reader.prefetch({ table: false, paths: [], everything: true })
  const total = Math.ceil(300 / 64) + 1 + 2 + 4
  for (let turns = 0; reader.counters.chunksVerified < total && turns < 6000; turns++) await sleep(10)
  assert.equal(reader.counters.chunksVerified, total)
  const requests = backend.asked.length
  await readAll(image, reader)
  assert.equal(backend.asked.length, requests)
  assert.ok(backend.bytesSent <= image.blob.length, 'no byte came twice')
  await reader.close()
})

test('prefetch of a path brings that file only', async () => {
  const { reader } = await open()
  reader.prefetch({ table: false, paths: [Buffer.from('/c.bin'), Buffer.from('/not/there')], everything: false })
  for (let turns = 0; reader.counters.chunksVerified < 2 && turns < 12_000; turns++) await sleep(5)
  await sleep(20)
  assert.equal(reader.counters.chunksVerified, 2)
  await reader.close()
})

test('prefetch waits while a reader waits, and joins nothing to what he gets', async () => {
  const { reader, backend } = await open(image, { prefetchRequests: 1 })
  const { promise: later, resolve } = Promise.withResolvers<void>()
  backend.before = async (_asked, attempt) => {
    if (attempt === 0) await later
  }
  const read = readFile(image.bootstrap, reader, 'b.bin')
  await sleep(5)
  reader.prefetch({ table: false, paths: [], everything: true })
  await sleep(60)
  assert.equal(backend.asked.length, 1, 'no prefetch while a reader waits')
  resolve()
  await read
  for (let turns = 0; backend.asked.length < 2 && turns < 6000; turns++) await sleep(10)
  assert.ok(backend.asked.length >= 2, 'then it goes on')
  await reader.close()
})

test('two readers on one cache directory show the same right bytes', async () => {
  const directory = newCache()
  const [one, two] = [await open(image, {}, directory), await open(image, {}, directory)]
  await Promise.all([readAll(image, one.reader), readAll(image, two.reader)])
  await one.reader.close()
  await two.reader.close()
})

const fixtures = join(import.meta.dirname, '../../../shared/fixtures')
interface ManifestImage {
  readonly id: string
  readonly exit: number
  readonly bootstrap?: string
  readonly tree?: string
}
/** Where the image itself is wrong, as the fixtures' page tells. */
const WRONG = new Set([
  'v5-src-implicit',
  'v6-src-implicit',
  'v5-upper-tar-parent',
  'v6-upper-tar-parent',
  'v5-tar-zstd-encrypt',
  'v6-optimize',
  'v6-optimize-batch',
])

test('every byte of every image of the large set is right', {
  skip: !existsSync(join(fixtures, 'manifest.json')) && 'no ../shared/fixtures beside the repository',
  timeout: 240_000,
}, async () => {
  const { images } = JSON.parse(readFileSync(join(fixtures, 'manifest.json'), 'utf8')) as { images: ManifestImage[] }
  let checked = 0
  const wrong: string[] = []
  const layers = newCache()
  addDerivedBlobs(fixtures, layers)
  for (const { id, exit, bootstrap, tree } of images) {
    if (exit !== 0 || bootstrap === undefined || tree === undefined || WRONG.has(id)) continue
    if (!existsSync(join(fixtures, bootstrap))) continue
    const { inline_blob: inline } = JSON.parse(readFileSync(join(fixtures, 'images', id, 'image.json'), 'utf8')) as {
      inline_blob?: string
    }
    const inlinedBlobId = inline === undefined ? undefined : basename(inline)
    const of = openBootstrap(readFileSync(join(fixtures, bootstrap)), { inlinedBlobId })
    let reader: ImageReader
    try {
      reader = await openImage({
        bootstrap: of,
        backend: localfsBackend({ dir: join(fixtures, 'blobs'), altDirs: [layers] }),
        cacheDirectory: of.isTarfs ? layers : newCache(), // tars lie there before
        decoders,
        limits: { ...LIMITS, amplifyBytes: 1 << 20 },
      })
    } catch (error) {
      assert.ok(error instanceof EngineError && error.code === 'UNSUPPORTED', `${id}: ${String(error)}`)
      continue
    }
    const wanted = new Map(
      readFileSync(join(fixtures, tree), 'utf8')
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line) as { path: string; sha256?: string })
        .map(({ path, sha256 }) => [path, sha256]),
    )
    const attributes = new Attributes()
    for (const { path, ino } of walkBootstrap(of)) {
      of.attributes(ino, attributes)
      if (!isType(attributes.mode, MODE.FILE)) continue
      const spans: ChunkSpan[] = []
      const count = of.chunks(ino, 0, attributes.size, spans)
      const into = Buffer.alloc(attributes.size)
      try {
        await reader.read(spans, count, into, new AbortController().signal)
      } catch (error) {
        wrong.push(`${id} ${Buffer.from(path).toString()}: ${String(error)}`)
        continue
      }
      const name = [...path]
        .map((byte) =>
          byte < 0x20 || byte > 0x7e || byte === 0x25
            ? `%${byte.toString(16).toUpperCase().padStart(2, '0')}`
            : String.fromCharCode(byte),
        )
        .join('')
      const sha256 = wanted.get(name) ?? wanted.get(`/${name.replace(/^\//, '')}`)
      if (sha256 !== createHash('sha256').update(into).digest('hex')) wrong.push(`${id} ${name}`)
    }
    checked++
    await reader.close()
  }
  assert.deepEqual(wrong, [])
  assert.ok(checked > 60, `${checked} images`)
})
