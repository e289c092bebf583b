import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { ChunkInfo, locateBootstrap } from '../blob/index.ts'
import { crc32c } from '../codec/index.ts'
import { type Bootstrap, type ChunkSpan, dumpEntries, openBootstrap } from '../rafs/index.ts'
import { parseSize } from './attributes.ts'
import {
  Attributes,
  BuilderError,
  type BuiltImage,
  buildImage,
  checkBootstrap,
  checkSources,
  diffImages,
  ImageStatistics,
  type LayerOptions,
} from './index.ts'
import { DEFAULTS, filesIn, noShared, sharedPath, sourceOf, temporary } from './testing.ts'

const ID = 'e'.repeat(64)
const V5 = { version: 5, chunkSize: 4096 } as const

/** 10,000 bytes that lie from byte 4096 on in the blob. */
const DATA = Buffer.from(Uint32Array.from({ length: 10_000 }, (_, at) => at * 0x9e37_79b1).buffer, 0, 10_000)
const SUMS = [0, 4096, 8192].map((at) => `0x${crc32c(DATA.subarray(at, at + 4096)).toString(16)}`).join(',')

function line(path: string, more: Readonly<Record<string, string>> = {}): string {
  const values = {
    type: 'external',
    blob_index: '0',
    blob_id: ID,
    chunk_size: '4KiB',
    chunk_0_compressed_offset: '4096',
    compressed_size: '20000',
    crcs: SUMS,
    ...more,
  }
  return `${path} ${Object.entries(values)
    .map(([key, value]) => `${key}=${value}`)
    .join(' ')}\n`
}

interface Built {
  readonly built: BuiltImage
  readonly main: Bootstrap
  readonly external: Bootstrap
  readonly folder: string
}

async function build(t: TestContext, attributes: string, options: Partial<LayerOptions> = V5): Promise<Built> {
  const folder = temporary(t)
  const source = join(folder, 'source')
  mkdirSync(join(source, 'models/deep'), { recursive: true })
  writeFileSync(join(source, 'models/deep/weights'), DATA)
  writeFileSync(join(source, 'models/config'), 'small')
  writeFileSync(join(source, 'models/deep/empty'), '')
  return await buildFrom(t, source, attributes, options)
}

async function buildFrom(
  t: TestContext,
  source: string,
  attributes: string,
  options: Partial<LayerOptions>,
): Promise<Built> {
  const folder = temporary(t)
  const inline = options.inlineBootstrap === true
  const externalBlob = join(folder, 'external.blob')
  const built = await buildImage(
    { kind: 'directory', path: source },
    {
      blob: { kind: 'file', path: join(folder, 'blob') },
      bootstrap: inline ? undefined : { kind: 'file', path: join(folder, 'image.boot') },
      externalBlob,
    },
    { ...DEFAULTS, ...options, attributes: Attributes.parse(Buffer.from(attributes)) },
    { signal: t.signal, onBytes: () => undefined },
  )
  const bytes = inline ? inlinedIn(readFileSync(externalBlob)) : readFileSync(built.external?.bootstrapPath ?? '')
  const main = inline ? inlinedIn(readFileSync(join(folder, 'blob'))) : readFileSync(built.bootstrapPath ?? '')
  return { built, main: openBootstrap(main), external: openBootstrap(bytes), folder }
}

function inlinedIn(blob: Buffer): Buffer {
  const part = locateBootstrap(blob.subarray(-4096), blob.length) ?? assert.fail('no bootstrap in it')
  return blob.subarray(part.compressedOffset, part.compressedOffset + part.compressedSize)
}

const pathsOf = (image: Bootstrap): string[] => [...dumpEntries(image)].map(({ path }) => path)

test('external files are in a bootstrap of their own, and what lies beside them is lost in neither', async (t) => {
  const { built, main, external, folder } = await build(t, line('/models/deep/weights'))
  assert.deepEqual(pathsOf(main), ['/', '/models', '/models/config', '/models/deep', '/models/deep/empty'])
  assert.deepEqual(pathsOf(external), ['/', '/models', '/models/deep', '/models/deep/weights'])
  assert.deepEqual(built.external, { bootstrapPath: join(folder, 'image.external'), blobs: [ID] })
  assert.deepEqual([...checkBootstrap(external), ...checkBootstrap(main)], [])
  assert.deepEqual(filesIn(folder), ['blob', 'external.blob', 'image.boot', 'image.external'])
  assert.equal(readFileSync(join(folder, 'external.blob')).length, 0)
  assert.equal(readFileSync(join(folder, 'blob')).toString(), 'small')
})

test('chunks lie where the attributes say, with their sums', async (t) => {
  for (const chunkSize of [4096, 0x10_0000]) {
    const { external } = await build(t, line('models/deep/weights'), { ...V5, chunkSize, compression: 'none' })
    const [file] = [...dumpEntries(external)].filter(({ type }) => type === 'file')
    assert.equal(file?.size, 10_000)
    const spans: ChunkSpan[] = []
    const info = new ChunkInfo()
    const ino = external.lookup(
      external.lookup(external.lookup(1, Buffer.from('models')) ?? 0, Buffer.from('deep')) ?? 0,
      Buffer.from('weights'),
    )
    const count = external.chunks(ino ?? 0, 0, 10_000, spans)
    assert.deepEqual(
      spans.slice(0, count).map(({ chunkIndex, length }) => {
        external.layout(0).chunk(chunkIndex, info)
        return [info.compressedOffset, info.uncompressedSize, length, info.crc32c]
      }),
      [0, 4096, 8192].map((at) => {
        const part = DATA.subarray(at, at + 4096)
        return [4096 + at, part.length, part.length, crc32c(part)]
      }),
    )
  }
})

test('the size of a file of which there is only an empty one is what the attributes say; chunks may be larger than any of the image', async (t) => {
  const large = {
    file_size: String(200 * 2 ** 20),
    chunk_size: '64MiB',
    compressed_size: String(2 ** 30),
    crcs: '1,2,3,4',
  }
  const { external } = await build(t, line('/models/deep/empty', large))
  const [file] = [...dumpEntries(external)].filter(({ type }) => type === 'file')
  assert.equal(file?.size, 200 * 2 ** 20)
  assert.deepEqual([...checkBootstrap(external)], [])
})

test('an inlined bootstrap of external files goes into the external blob', async (t) => {
  const { external, built } = await build(t, line('/models/deep/weights'), { ...V5, inlineBootstrap: true })
  assert.deepEqual(built.external, { bootstrapPath: undefined, blobs: [ID] })
  assert.equal(pathsOf(external).length, 4)
})

function differences(a: Bootstrap, b: Bootstrap): { readonly parts: string[]; readonly elsewhere: number } {
  const walk = diffImages({ name: 'a', image: a }, { name: 'b', image: b })
  const parts: string[] = []
  let next = walk.next()
  for (; next.done !== true; next = walk.next()) parts.push(...(next.value?.parts ?? []))
  return { parts: parts.filter((part) => part.startsWith('content')), elsewhere: next.value.fetch.elsewhere.chunks }
}

test('chunks without digests are not taken for equal ones', async (t) => {
  const { external: image } = await build(t, line('/models/deep/weights'))
  const { external: inOther } = await build(t, line('/models/deep/weights', { blob_id: 'f'.repeat(64) }))
  const changed = { blob_id: 'f'.repeat(64), crcs: '1,2,3' }
  const { external: other } = await build(t, line('/models/deep/weights', changed))
  const { external: cut } = await build(
    t,
    line('/models/deep/weights', { blob_id: 'd'.repeat(64), chunk_size: '8KiB' }),
  )
  assert.deepEqual(differences(image, image), { parts: [], elsewhere: 0 })
  assert.deepEqual(differences(image, inOther), { parts: ['content_unknown'], elsewhere: 0 })
  assert.deepEqual(differences(image, other), { parts: ['content'], elsewhere: 0 })
  assert.deepEqual(differences(image, cut), { parts: ['content_unknown'], elsewhere: 0 })
  const statistics = new ImageStatistics('blake3')
  await statistics.addBase(image, t.signal)
  await statistics.addTarget(inOther, t.signal)
  assert.equal(statistics.base.own_chunks, 3)
  assert.deepEqual([statistics.target.own_chunks, statistics.target.ref_chunks], [3, 0])
  assert.throws(
    () => checkSources([{ name: 'x', bootstrap: image }]),
    (error: unknown) => error instanceof BuilderError && error.code === 'UNSUPPORTED',
  )
})

test('a place for external files that cannot be written leaves nothing behind', async (t) => {
  const folder = temporary(t)
  const [source, out] = [join(folder, 'source'), join(folder, 'out')]
  for (const path of [source, out, join(out, 'taken')]) mkdirSync(path)
  writeFileSync(join(source, 'weights'), DATA)
  writeFileSync(join(source, 'config'), 'small')
  const attributes = Attributes.parse(Buffer.from(line('/weights')))
  const isLeft = async (kept: string, externalBlob: string, bootstrap: string): Promise<void> => {
    const places = {
      blob: { kind: 'directory', path: out },
      bootstrap: { kind: 'file', path: join(out, bootstrap) },
      externalBlob: join(out, externalBlob),
    } as const
    const run = { signal: t.signal, onBytes: () => undefined }
    const building = buildImage({ kind: 'directory', path: source }, places, { ...DEFAULTS, ...V5, attributes }, run)
    await assert.rejects(building, (error: unknown) => error instanceof BuilderError && error.code === 'OUTPUT')
    assert.deepEqual(filesIn(out), [kept])
  }
  await isLeft('taken', 'taken', 'image.boot')
  await isLeft('taken', 'nowhere/blob', 'image.boot')
  await isLeft('taken', 'external.blob', 'nowhere/image.boot')
  rmdirSync(join(out, 'taken'))
  mkdirSync(join(out, 'image.external'))
  await isLeft('image.external', 'external.blob', 'image.boot')
})

const isBad =
  (pattern: RegExp) =>
  (error: unknown): boolean =>
    error instanceof BuilderError && error.code === 'BAD_OPTION' && pattern.test(error.message)

const wrong: ReadonlyArray<readonly [string, string, RegExp]> = [
  ['no blob', line('/models/config', { blob_index: '' }), /failed to parse blob_index/],
  ['a short id', line('/models/config', { blob_id: 'abc' }), /invalid blob id:abc, length:3/],
  ['a size that is none', line('/models/config', { chunk_size: 'big' }), /failed to parse chunk_size/],
  [
    'too few sums',
    line('/models/deep/weights', { crcs: '0x1' }),
    /invalid crc index 1 for file \/models\/deep\/weights/,
  ],
  [
    'a place behind the blob',
    line('/models/deep/weights', { compressed_size: '9000' }),
    /ends at byte 14096 of a blob of 9000/,
  ],
  ['a blob that nothing tells of', line('/models/config', { blob_index: '1' }), /no file of blob 0/],
  [
    'two ids of one blob',
    line('/models/config', { crcs: '1' }) + line('/models/deep/weights', { blob_id: 'f'.repeat(64) }),
    /its blob_id is .{64}, another file of that blob has .{64}$/,
  ],
  [
    'two sizes of one blob',
    line('/models/config', { crcs: '1' }) + line('/models/deep/weights', { compressed_size: '20001' }),
    /its compressed_size is \d+, another file of that blob has \d+$/,
  ],
  [
    'two chunk sizes of one blob',
    line('/models/config', { crcs: '1' }) + line('/models/deep/weights', { chunk_size: '8KiB' }),
    /its chunk_size is \d+, another file of that blob has \d+$/,
  ],
  ['a billion blobs', line('/models/config', { blob_index: '1000000000' }), /up to 254 blobs/],
  ['a path out of the image', line('/models/../../x'), /"\.\."/],
  ['a quote without end', '"/a type=external\n', /no end/],
]
for (const [name, attributes, pattern] of wrong)
  test(`attributes are refused: ${name}`, async (t) => {
    await assert.rejects(
      async () => await build(t, attributes),
      (error: unknown) => error instanceof BuilderError && pattern.test(error.message),
    )
  })

test('RAFS v6, archives and a parent are refused', async (t) => {
  await assert.rejects(build(t, line('/models/config'), { chunkSize: 4096 }), isBad(/RAFS v6 has no place/))
  const places = { blob: { kind: 'directory', path: '.' }, bootstrap: { kind: 'file', path: 'x.boot' } } as const
  const options = { ...DEFAULTS, ...V5, attributes: Attributes.NONE }
  const run = { signal: t.signal, onBytes: () => undefined }
  await assert.rejects(buildImage({ kind: 'tar', path: 'x' }, places, options, run), isBad(/for directories/))
  const taken = { ...places, bootstrap: { kind: 'file', path: 'x.external' } } as const
  await assert.rejects(buildImage({ kind: 'directory', path: '.' }, taken, options, run), isBad(/another name/))
})

test('comments, macros, quotes and words without a value are read as git does', () => {
  const file = '# text\n[attr]x y\n\n  /a type=external\r\n"/b \\"c\\"\\040d" type=external set -unset\n/e type=other\n'
  const attributes = Attributes.parse(Buffer.from(file))
  assert.equal(attributes.isExternal('/a'), true)
  assert.equal(attributes.isExternal('/b "c" d'), true)
  assert.equal(attributes.isExternal('/e'), false)
  assert.deepEqual(['4096', '4KiB', '4kb', '1.5 MiB', '1_000', '2g', 'x', '-1'].map(parseSize), [
    4096,
    4096,
    4000,
    1_572_864,
    1000,
    2_000_000_000,
    undefined,
    undefined,
  ])
})

const needsRoot = process.getuid?.() === 0 ? false : 'needs root to unpack owners and devices'

test("the bootstrap of external files has the original's bytes", {
  skip: noShared === false ? needsRoot : noShared,
}, async (t) => {
  const attributes = readFileSync(sharedPath('sources/external.attributes'), 'utf8')
  const source = sourceOf('dirs/small', temporary(t))
  const { folder } = await buildFrom(t, source, attributes, { version: 5 })
  const theirs = readFileSync(sharedPath('images/v5-external/bootstrap.external'))
  assert.ok(readFileSync(join(folder, 'image.external')).equals(theirs))
})

const peer = join(process.env['NYDUS_PEER_DIR'] ?? '', 'nydus-image')
const noPeer = process.env['NYDUS_PEER_DIR'] !== undefined && existsSync(peer) ? false : 'NYDUS_PEER_DIR is not set'

test("both bootstraps have the original's bytes where that loses nothing", { skip: noPeer }, async (t) => {
  const folder = temporary(t)
  const [source, attributes] = [join(folder, 'source'), join(folder, 'attributes')]
  mkdirSync(join(source, 'a/b'), { recursive: true })
  for (const name of ['a/b/one', 'a/b/two', 'a/three', 'c']) writeFileSync(join(source, name), DATA)
  const text = ['a/b/one', '/a/b/two', '/a/three'].map((path) => line(path)).join('')
  writeFileSync(attributes, text)
  for (const inline of [false, true]) {
    const options = { ...V5, compression: 'lz4_block', inlineBootstrap: inline } as const
    const ours = await buildFrom(t, source, text, options)
    const theirs = temporary(t)
    const flags = ['-v', '5', '--chunk-size', '0x1000', '--compressor', 'lz4_block', '--attributes', attributes]
    const places = ['--blob', 'blob', '--external-blob', 'external.blob']
    const bootstrap = inline ? ['--blob-inline-meta'] : ['-B', 'image.boot']
    const args = ['create', '-l', 'error', '-t', 'dir-rafs', ...flags, ...places, ...bootstrap, source]
    const { status, stderr } = spawnSync(peer, args, { cwd: theirs, encoding: 'utf8' })
    assert.equal(status, 0, stderr)
    assert.deepEqual(filesIn(ours.folder), filesIn(theirs))
    for (const name of filesIn(theirs))
      assert.ok(readFileSync(join(ours.folder, name)).equals(readFileSync(join(theirs, name))), `${inline} ${name}`)
  }
})
