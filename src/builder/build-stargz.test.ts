import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { readFileSync, statSync } from 'node:fs'
import { test } from 'node:test'
import { gzipSync } from 'node:zlib'
import { openBootstrap, type RafsChunk, type RafsNode, readTree } from '../rafs/index.ts'
import { TarReader } from '../tar/index.ts'
import { decompressor } from '../codec/index.ts'
import { buildStargzLayer, type StargzOptions } from './build-stargz.ts'
import type { BuiltLayer } from './built-layer.ts'
import { checkBootstrap } from './check.ts'
import { BuilderError } from './errors.ts'
import {
  assertSameLines,
  CollectedBlob,
  DEFAULTS,
  inPieces,
  noShared,
  sha256,
  sharedPath,
  shownLines,
  tarOf,
  treeLines,
} from './testing.ts'

const ID = 'ab'.repeat(32)

async function build(
  toc: unknown,
  options: Partial<StargzOptions> = {},
  pieceBytes?: number,
): Promise<BuiltLayer & { blob: Buffer }> {
  const collected = new CollectedBlob()
  const bytes = toc instanceof Uint8Array ? toc : Buffer.from(typeof toc === 'string' ? toc : JSON.stringify(toc))
  const built = await buildStargzLayer(inPieces(bytes, pieceBytes), {
    ...DEFAULTS,
    chunkSize: 0x40_0000,
    blobId: ID,
    blobSize: 100_000,
    ...options,
    signal: new AbortController().signal,
    sink: collected.sink,
  })
  return { ...built, blob: collected.bytes }
}

/** An eStargz layer as the reference library writes it: a gzip member starts at each chunk of a file, and holds what follows it too. */
async function estargzOf(
  tar: Buffer,
  chunkSize: number,
): Promise<{ layer: Buffer; toc: { version: 1; entries: object[] } }> {
  const reader = new TarReader(inPieces(tar))
  const cuts: number[] = [0]
  const entries: Array<Record<string, unknown>> = []
  for (let entry = await reader.next(); entry !== undefined; entry = await reader.next()) {
    const [name, at] = [Buffer.from(entry.path).toString(), reader.position]
    const type = { file: 'reg', directory: 'dir' }[entry.type as string] ?? entry.type
    const common = { name, type, mode: entry.mode, uid: entry.uid, gid: entry.gid, size: entry.size }
    entries.push({ ...common, modtime: new Date(entry.mtimeSeconds * 1000).toISOString().replace('.000', '') })
    if (entry.link.length > 0) Object.assign(entries.at(-1) ?? {}, { linkName: Buffer.from(entry.link).toString() })
    for (let offset = 0; offset < entry.size; offset += chunkSize) {
      const end = Math.min(entry.size, offset + chunkSize)
      const chunk = tar.subarray(at + offset, at + end)
      const facts = {
        chunkDigest: `sha256:${sha256(chunk)}`,
        cut: cuts.push(at + offset) - 1,
        chunkOffset: offset,
        chunkSize: end === entry.size ? 0 : chunkSize,
      }
      if (offset === 0) Object.assign(entries.at(-1) ?? {}, facts)
      else entries.push({ name, type: 'chunk', ...facts })
    }
  }
  const members = cuts.map((start, at) => gzipSync(tar.subarray(start, cuts[at + 1])))
  const starts = members.map((_member, at) => members.slice(0, at).reduce((sum, { length }) => sum + length, 0))
  const listed = entries.map(({ cut, ...entry }) => ({
    ...entry,
    ...(cut === undefined ? {} : { offset: starts[Number(cut)] }),
  }))
  return { layer: Buffer.concat(members), toc: { version: 1, entries: listed } }
}

function fileAt(bootstrap: Uint8Array, path: string): RafsNode {
  let node = readTree(openBootstrap(bootstrap)).root
  for (const name of path.split('/'))
    node = node.children?.find((child) => Buffer.from(child.name).toString() === name) ?? assert.fail(path)
  return node
}

function contentIn(layer: Uint8Array, chunks: readonly RafsChunk[]): Buffer {
  return Buffer.concat(
    chunks.map(({ compressedOffset, compressedSize, uncompressedSize, digest }) => {
      const plain = Buffer.alloc(uncompressedSize)
      decompressor('gzip').decompress(layer.subarray(compressedOffset, compressedOffset + compressedSize), plain)
      assert.ok(createHash('sha256').update(plain).digest().equals(digest))
      return plain
    }),
  )
}

const pattern = (size: number, seed: number): Buffer =>
  Buffer.from(Array.from({ length: size }, (_unused, at) => (Math.imul(at + seed, 0x9e37_79b1) >>> 24) & 0xff))

test('every chunk of an eStargz layer is found and verified', async () => {
  const files = { 'a/one': pattern(1, 1), 'a/whole': pattern(0x4000, 2), 'a/more': pattern(0x4000 * 3 + 5, 3) }
  const tar = await tarOf([
    { path: 'a/', type: 'directory', mtimeSeconds: 5, uid: 7 },
    { path: 'a/empty' },
    ...Object.entries(files).map(([path, content]) => ({ path, content })),
    { path: 'a/same', content: files['a/whole'] },
    { path: 'a/hard', type: 'hardlink' as const, link: 'a/more' },
    { path: 'a/link', type: 'symlink' as const, link: 'one' },
  ])
  const { layer, toc } = await estargzOf(tar, 0x4000)
  const { bootstrap, blobs, blob, counts } = await build(toc, { chunkSize: 0x4000, blobSize: layer.length })
  for (const [path, content] of Object.entries(files))
    assert.deepEqual(contentIn(layer, fileAt(bootstrap, path).chunks), content, path)
  assert.deepEqual(fileAt(bootstrap, 'a/same').chunks, fileAt(bootstrap, 'a/whole').chunks)
  assert.deepEqual(fileAt(bootstrap, 'a/hard').chunks, fileAt(bootstrap, 'a/more').chunks)
  assert.equal(fileAt(bootstrap, 'a').mtime, 5)
  assert.equal(counts.duplicateChunks, 1)
  assert.deepEqual([...checkBootstrap(openBootstrap(bootstrap))], [])
  const [info] = blobs
  assert.deepEqual(
    [info?.id, info?.features, info?.compression, info?.chunkCount, info?.compressedSize],
    [ID, 0x4000_0011, 'gzip', 6, layer.length],
  )
  assert.equal(info?.metaBlobId, sha256(blob))
})

test('files about the layer are in no image, and end the chunk before them', async () => {
  const landmark = { name: '.no.prefetch.landmark', type: 'reg', size: 1, offset: 200, chunkDigest: FILE.chunkDigest }
  const { bootstrap, blobs } = await build(table(FILE, landmark))
  assert.deepEqual(
    readTree(openBootstrap(bootstrap)).root.children?.map(({ name }) => Buffer.from(name).toString()),
    [FILE.name],
  )
  assert.equal(blobs[0]?.chunkCount, 1)
  assert.deepEqual(
    fileAt(bootstrap, FILE.name).chunks.map(({ compressedOffset, compressedSize }) => [
      compressedOffset,
      compressedSize,
    ]),
    [[FILE.offset, landmark.offset - FILE.offset]],
  )
})

test('the same table gives the same bytes in pieces of any size', async () => {
  const tar = await tarOf([{ path: 'file', content: pattern(9000, 1) }])
  const { toc } = await estargzOf(tar, 0x1000)
  const whole = await build(toc, { chunkSize: 0x1000 })
  for (const size of [1, 7, 64]) {
    const { bootstrap, blob } = await build(toc, { chunkSize: 0x1000 }, size)
    assert.ok(Buffer.from(bootstrap).equals(whole.bootstrap) && blob.equals(whole.blob), String(size))
  }
})

test('the layer of the large set shows its tree, as far as a table of contents can tell it', {
  skip: noShared,
}, async () => {
  const toc = readFileSync(sharedPath('sources/lower.estargz.toc.json'))
  const { bootstrap } = await build(toc, { blobSize: statSync(sharedPath('sources/lower.estargz.tar.gz')).size })
  // JSON has no bytes that are no UTF-8, and its writer rounded times.
  const isTold = (line: string): boolean => !/%|nonutf8|\/mtimes\/|"\/names"/.test(line)
  const wanted = treeLines(readFileSync(sharedPath('trees/lower.tar.v6.jsonl'), 'utf8')).filter(isTold)
  const found = shownLines(bootstrap).filter(isTold)
  assertSameLines(found, wanted, 'entries')
  assert.ok(found.length > 800)
})

const FILE = {
  name: 'f',
  type: 'reg',
  size: 10,
  offset: 50,
  chunkDigest: `sha256:${'0f'.repeat(32)}`,
}
const table = (...entries: unknown[]): unknown => ({ version: 1, entries })

const ACCEPTED: ReadonlyArray<readonly [string, unknown]> = [
  ['nothing', table()],
  ['a file without content and digest', table({ name: 'e', type: 'reg' })],
  ['a root with an empty name', table({ name: '', type: 'dir', mode: 0o711 })],
  ['a digest of the whole file only', table({ ...FILE, chunkDigest: undefined, digest: FILE.chunkDigest })],
  ['a link before its target', table({ name: 'l', type: 'hardlink', linkName: 'f' }, FILE)],
  ['members before and behind', `{"x": [1, {"y": "]"}], "version": 1, "entries": [], "z": "}"}\n `],
  ['a file twice', table(FILE, { ...FILE, offset: 90, chunkDigest: `sha256:${'aa'.repeat(32)}` })],
  ['null for what is absent', table({ ...FILE, xattrs: null, uid: null, modtime: null })],
]
for (const [name, toc] of ACCEPTED)
  test(`takes ${name}`, async () => {
    assert.deepEqual([...checkBootstrap(openBootstrap((await build(toc)).bootstrap))], [])
  })

const REFUSED: ReadonlyArray<readonly [string, unknown, RegExp]> = [
  ['nothing at all', '', /"\{" is missing/],
  ['half of a table', JSON.stringify(table(FILE)).slice(0, 40), /ends in mid-value|is missing/],
  ['another version', { version: 2, entries: [] }, /unsupported index version 2/],
  ['no version', { entries: [] }, /no "version"/],
  ['no entries', { version: 1 }, /no "entries"/],
  ['entries that are no list', { version: 1, entries: {} }, /"\[" is missing/],
  ['two lists of entries', '{"version":1,"entries":[],"entries":[]}', /not a table of contents/],
  ['something behind the end', '{"version":1,"entries":[]}{}', /more after its end/],
  ['bytes that are no UTF-8', Buffer.from('7b2276ff223a317d', 'hex'), /not UTF-8/],
  ['values in values in values', `{"version":${'['.repeat(100_000)}`, /deep in each other/],
  ['a value without end', `{"version":"${'x'.repeat(5_000_000)}`, /a value of more than/],
  ['a number as entry', table(7), /an entry is 7/],
  ['an entry without name', table({ type: 'reg' }), /no name or no type/],
  ['an unknown type', table({ name: 'a', type: 'socket' }), /has the type "socket"/],
  ['a type that objects have a member of', table({ name: 'a', type: 'constructor' }), /has the type "constructor"/],
  ['a way out', table({ ...FILE, name: 'a/../../b' }), /"\.\." in its path/],
  ['a name of 256 bytes', table({ name: 'a'.repeat(256), type: 'dir' }), /256 bytes/],
  ['a NUL in a name', table({ name: 'a\0b', type: 'dir' }), /NUL/],
  ['a link to nothing', table({ name: 'l', type: 'hardlink', linkName: 'nowhere' }), /which the archive does not have/],
  [
    'links in a circle',
    table({ name: 'a', type: 'hardlink', linkName: 'b' }, { name: 'b', type: 'hardlink', linkName: 'a' }),
    /does not have/,
  ],
  ['a symlink without target', table({ name: 'l', type: 'symlink' }), /no "linkName"/],
  ['a file below a file', table(FILE, { ...FILE, name: 'f/g' }), /no directory/],
  ['a negative size', table({ ...FILE, size: -1 }), /"size" is -1/],
  ['a size that is no integer', table({ ...FILE, size: 1.5 }), /"size" is 1\.5/],
  ['a size as text', table({ ...FILE, size: '10' }), /"size" is "10"/],
  ['an owner beyond 32 bits', table({ ...FILE, uid: 2 ** 32 }), /"uid" is 4294967296/],
  ['a huge size in one chunk', table({ ...FILE, size: 2 ** 52 }), /chunks; --chunk-size|in 1 chunks/],
  ['data behind the layer', table({ ...FILE, offset: 100_000 }), /at byte 100000 of a layer of 100000/],
  [
    'members too short for gzip',
    table({ ...FILE, size: 1 }, { ...FILE, name: 'g', size: 2, offset: 51, chunkDigest: `sha256:${'aa'.repeat(32)}` }),
    /the gzip member at byte 50 would have 1 bytes, none has fewer than 18/,
  ],
  ['a last member too short for gzip', table({ ...FILE, offset: 99_983 }), /at byte 99983 would have 17 bytes/],
  ['content without an offset', table({ ...FILE, offset: 0 }), /no "offset"/],
  ['content without a digest', table({ ...FILE, chunkDigest: '' }), /no "chunkDigest"/],
  ['a digest that is none', table({ ...FILE, chunkDigest: 'sha256:00' }), /no sha256 digest/],
  ['content in mid-member', table({ ...FILE, innerOffset: 5 }), /innerOffset/],
  ['a chunk without its file', table({ ...FILE, type: 'chunk', chunkOffset: 5 }), /does not follow the file/],
  ['a chunk of another file', table(FILE, { ...FILE, name: 'g', type: 'chunk', chunkOffset: 5 }), /does not follow/],
  ['one chunk too many', table(FILE, { ...FILE, type: 'chunk', chunkOffset: 5 }), /in 2 chunks/],
  ['chunks of another size', table({ ...FILE, chunkSize: 4 }), /bytes 0 to 4, wanted are 0 to 10/],
  ['one digest for two contents', table(FILE, { ...FILE, name: 'g', size: 11 }), /another size has the same digest/],
  ['a time that is none', table({ ...FILE, modtime: 'yesterday' }), /"modtime" is "yesterday"/],
  ['attributes that are a list', table({ ...FILE, xattrs: [] }), /"xattrs" is no table/],
  ['an attribute that is not base64', table({ ...FILE, xattrs: { 'user.a': '*' } }), /not base64/],
  ['an attribute of no known kind', table({ ...FILE, xattrs: { foo: '' } }), /cannot keep the extended attribute/],
  ['a device beyond the format', table({ name: 'd', type: 'char', devMajor: 5000 }), /has the number 5000:0/],
]
for (const [name, toc, message] of REFUSED)
  test(`refuses ${name}`, async () => {
    const before = process.memoryUsage()
    await assert.rejects(
      build(toc),
      (error: unknown) => error instanceof BuilderError && error.code === 'BAD_SOURCE' && message.test(error.message),
    )
    const after = process.memoryUsage()
    assert.ok(after.heapUsed + after.external - before.heapUsed - before.external < 64 * 1024 * 1024)
  })

test('a layer larger than the format can name is refused', async () => {
  await assert.rejects(
    build(table(FILE), { blobSize: 2 ** 41 }),
    (error: unknown) => error instanceof BuilderError && error.code === 'TOO_LARGE',
  )
})
