import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { gzipSync } from 'node:zlib'
import { ChunkInfo } from '../blob/index.ts'
import { openBootstrap } from '../rafs/index.ts'
import { type BuiltImage, BuilderError, buildImage, type LayerOptions } from './index.ts'
import { type ArchiveEntry, DEFAULTS, filesIn, noShared, sharedPath, sourceOf, tarOf, temporary } from './testing.ts'

interface Kept {
  readonly built: BuiltImage
  readonly cache: string
  readonly bootstrap: string
}

async function keep(t: TestContext, source: string, options: Partial<LayerOptions>): Promise<Kept> {
  const folder = temporary(t)
  const [cache, bootstrap] = [join(folder, 'cache'), join(folder, 'bootstrap')]
  mkdirSync(cache)
  const built = await buildImage(
    { kind: 'tar', path: source },
    { blob: { kind: 'cache', path: cache }, bootstrap: { kind: 'file', path: bootstrap } },
    { ...DEFAULTS, compression: 'none', ...options },
    { signal: t.signal, onBytes: () => undefined },
  )
  return { built, cache, bootstrap }
}

async function archive(t: TestContext, entries: readonly ArchiveEntry[]): Promise<string> {
  const path = join(temporary(t), 'source.tar')
  writeFileSync(path, await tarOf(entries))
  return path
}

const FILES: readonly ArchiveEntry[] = [0, 1, 100, 2000, 4096, 5000, 20_000].map((size) => ({
  path: `file-${size}`,
  // No part of it comes twice.
  content: Buffer.from(Uint32Array.from({ length: size }, (_, at) => size + at * 0x9e37_79b1).buffer, 0, size),
}))

const cases: ReadonlyArray<readonly [string, string, string]> = [
  ['what the original writes', 'images/v6-blob-cache', 'v6-blob-cache'],
  ["what the original's nydusd has in its cache after everything was read", 'cache/v6-none/full', 'v6-tar-none-c64k'],
]
for (const [what, place, id] of cases)
  test(`the files are ${what}`, { skip: noShared }, async (t) => {
    const chunkSize = id.endsWith('c64k') ? 0x1_0000 : 0x10_0000
    const { cache, built } = await keep(t, sourceOf('sources/mini.tar', temporary(t)), { chunkSize })
    const blob = built.blobs[0] ?? ''
    assert.deepEqual(filesIn(cache), [`${blob}.blob.data`, `${blob}.blob.data.chunk_map`, `${blob}.blob.meta`])
    let equal = 0
    for (const name of filesIn(sharedPath(place)).filter((file) => file.startsWith(blob))) {
      assert.ok(readFileSync(join(cache, name)).equals(readFileSync(sharedPath(place, name))), name)
      equal += 1
    }
    assert.equal(equal, 2)
    if (place.startsWith('images')) return
    const state = JSON.parse(readFileSync(sharedPath('cache/v6-none/state.json'), 'utf8')) as {
      states: Record<string, Record<string, { sha256: string }>>
    }
    const data = readFileSync(join(cache, `${blob}.blob.data`))
    const wanted = state.states['after full read']?.[`${blob}.blob.data`]?.sha256
    assert.equal(createHash('sha256').update(data).digest('hex'), wanted)
  })

const ways: ReadonlyArray<Partial<LayerOptions>> = [
  {},
  { batchSize: 4096, chunkSize: 4096 },
  { cipher: { key: Uint8Array.from({ length: 32 }, (_, i) => i), iv: new Uint8Array(16) } },
  { version: 5 },
  { version: 5, alignedChunks: true },
  { reference: true, digest: 'sha256' },
]
for (const [isZipped, options] of ways.flatMap((way) => [[false, way] as const, [true, way] as const]))
  test(`every chunk lies in clear where the image has it: ${JSON.stringify(Object.keys(options))}, ${isZipped}`, async (t) => {
    const source = await archive(t, FILES)
    if (isZipped) writeFileSync(source, gzipSync(readFileSync(source)))
    const { cache, bootstrap, built } = await keep(t, source, options)
    const image = openBootstrap(readFileSync(bootstrap))
    const layout = image.layout(0)
    const data = readFileSync(join(cache, `${built.blobs[0]}.blob.data`))
    assert.equal(data.length, image.blobs[0]?.uncompressedSize)
    const info = new ChunkInfo()
    const found: Buffer[] = []
    for (let index = 0; index < layout.chunkCount; index += 1) {
      layout.chunk(index, info)
      found.push(data.subarray(info.uncompressedOffset, info.uncompressedOffset + info.uncompressedSize))
    }
    assert.ok(Buffer.concat(found).equals(Buffer.concat(FILES.map(({ content }) => content ?? Buffer.alloc(0)))))
    const suffixes = ['.blob.data', '.blob.data.chunk_map', ...(options.version === 5 ? [] : ['.blob.meta'])]
    assert.deepEqual(
      filesIn(cache),
      suffixes.map((suffix) => `${built.blobs[0]}${suffix}`),
    )
  })

test('a layer without data leaves no files, a build that fails neither', async (t) => {
  const empty = await keep(t, await archive(t, [{ path: 'd/', type: 'directory' }]), {})
  assert.deepEqual(filesIn(empty.cache), [])
  const cut = await archive(t, FILES)
  writeFileSync(cut, readFileSync(cut).subarray(0, 20_000))
  const folder = temporary(t)
  const run = buildImage(
    { kind: 'tar', path: cut },
    { blob: { kind: 'cache', path: folder }, bootstrap: { kind: 'file', path: join(folder, 'bootstrap') } },
    { ...DEFAULTS, compression: 'none' },
    { signal: t.signal, onBytes: () => undefined },
  )
  await assert.rejects(run, BuilderError)
  assert.deepEqual(filesIn(folder), [])
})

test('a chunk map that cannot be placed leaves no data behind; names of what is written are not in the way', async (t) => {
  const source = await archive(t, FILES)
  const { cache, bootstrap, built } = await keep(t, source, {})
  for (const name of filesIn(cache)) rmSync(join(cache, name))
  const map = `${built.blobs[0]}.blob.data.chunk_map`
  mkdirSync(join(cache, map))
  for (const name of ['cache', 'meta', 'map']) mkdirSync(join(cache, name))
  const run = buildImage(
    { kind: 'tar', path: source },
    { blob: { kind: 'cache', path: cache }, bootstrap: { kind: 'file', path: `${bootstrap}.new` } },
    { ...DEFAULTS, compression: 'none' },
    { signal: t.signal, onBytes: () => undefined },
  )
  await assert.rejects(run, (error: unknown) => error instanceof BuilderError && error.message.includes(map))
  assert.deepEqual(filesIn(cache), [map, 'cache', 'map', 'meta'].sort())
  assert.equal(existsSync(`${bootstrap}.new`), false)
})

test('an id that could leave the folder is refused', async (t) => {
  await assert.rejects(
    keep(t, await archive(t, FILES), { blobId: '../x' }),
    (error: unknown) => error instanceof BuilderError,
  )
})

test("of a gzip layer, the files are what the original's nydusd has in its cache", { skip: noShared }, async (t) => {
  const { cache, built } = await keep(t, sharedPath('sources/lower.tar.gz'), { reference: true, digest: 'sha256' })
  const blob = built.blobs[0] ?? ''
  const ours = (suffix: string): Buffer => readFileSync(join(cache, blob + suffix))
  const theirs = (suffix: string): Buffer => readFileSync(sharedPath('cache/v6-zran/full', blob + suffix))
  assert.ok(ours('.blob.data.chunk_map').equals(theirs('.blob.data.chunk_map')))
  const { states } = JSON.parse(readFileSync(sharedPath('cache/v6-zran/state.json'), 'utf8')) as {
    states: Record<string, Record<string, { sha256: string }>>
  }
  const wanted = states['after full read']?.[`${blob}.blob.data`]?.sha256
  assert.equal(createHash('sha256').update(ours('.blob.data')).digest('hex'), wanted)
  // Their blob has its bootstrap and a table of contents in it, which the header tells.
  const [found, meta] = [ours('.blob.meta'), theirs('.blob.meta')]
  assert.ok(found.subarray(0, -4096).equals(meta.subarray(0, -4096)))
  assert.equal(found.length, meta.length)
})
