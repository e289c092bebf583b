import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import { test } from 'node:test'
import { openBootstrap, type RafsNode, readTree } from '../rafs/index.ts'
import { buildTarfsLayer, type TarfsOptions } from './build-tarfs.ts'
import type { BuiltLayer } from './built-layer.ts'
import { checkBootstrap } from './check.ts'
import { BuilderError, type BuilderErrorCode } from './errors.ts'
import {
  type ArchiveEntry,
  assertSameLines,
  DEFAULTS,
  inPieces,
  noShared,
  sha256,
  sharedPath,
  shownLines,
  sourceOf,
  tarOf,
  temporary,
  treeLines,
} from './testing.ts'
import { mergeImages } from './merge.ts'

async function build(tar: Uint8Array, options: Partial<TarfsOptions> = {}, pieceBytes?: number): Promise<BuiltLayer> {
  const { signal } = new AbortController()
  return await buildTarfsLayer(inPieces(tar, pieceBytes), { ...DEFAULTS, ...options, signal })
}

function refused(code: BuilderErrorCode, message: RegExp): (error: unknown) => boolean {
  return (error) => error instanceof BuilderError && error.code === code && message.test(error.message)
}

/** A file's bytes, read out of the tar at the places that the image tells. */
function contentIn(tar: Uint8Array, node: RafsNode): Buffer {
  return Buffer.concat(
    node.chunks.map(({ uncompressedOffset: at, uncompressedSize: size }) => tar.subarray(at, at + size)),
  )
}

function fileAt(bootstrap: Uint8Array, path: string): RafsNode {
  let node = readTree(openBootstrap(bootstrap)).root
  for (const name of path.split('/'))
    node = node.children?.find((child) => Buffer.from(child.name).toString() === name) ?? assert.fail(path)
  return node
}

const content = (size: number): Buffer =>
  Buffer.from(Array.from({ length: size }, (_unused, at) => (at * 7 + (at >> 8)) & 0xff))

const ENTRIES: readonly ArchiveEntry[] = [
  { path: 'dir/', type: 'directory' },
  { path: 'dir/empty' },
  { path: 'dir/one', content: content(1) },
  { path: 'dir/block', content: content(512) },
  { path: 'dir/whole', content: content(0x2000) },
  { path: 'dir/more', content: content(0x2001), xattrs: [{ name: Buffer.from('user.a'), value: Buffer.from('b') }] },
  { path: 'dir/link', type: 'symlink', link: 'x'.repeat(700) },
  { path: 'dir/hard', type: 'hardlink', link: 'dir/more' },
  { path: 'implied/parent/file', content: content(600) },
]

test('files lie in the tar where the image says, the last chunk in its own size', async () => {
  const tar = await tarOf(ENTRIES)
  const { bootstrap, blobs, blobSize } = await build(tar, { chunkSize: 0x1000 })
  for (const { path, content: bytes } of ENTRIES)
    if (bytes !== undefined) assert.deepEqual(contentIn(tar, fileAt(bootstrap, String(path))), bytes, String(path))
  assert.deepEqual(
    fileAt(bootstrap, 'dir/whole').chunks.map(({ uncompressedSize }) => uncompressedSize),
    [0x1000, 0x1000],
  )
  assert.equal(Buffer.from(fileAt(bootstrap, 'dir/link').target ?? []).toString(), 'x'.repeat(700))
  assert.equal(fileAt(bootstrap, 'dir/hard').chunks[0]?.index, fileAt(bootstrap, 'dir/more').chunks[0]?.index)
  assert.deepEqual(
    blobs.map(({ id, features, chunkCount, compressedSize }) => ({ id, features, chunkCount, compressedSize })),
    [{ id: sha256(tar), features: 0x4000_0040, chunkCount: 1 + 1 + 2 + 3 + 1, compressedSize: tar.length }],
  )
  assert.equal(blobSize, tar.length)
  const image = openBootstrap(bootstrap)
  assert.ok(image.isTarfs)
  assert.deepEqual([...checkBootstrap(image)], [])
})

test('the same tar gives the same bytes in pieces of any size', async () => {
  const tar = await tarOf(ENTRIES)
  const whole = await build(tar)
  for (const size of [1, 511, 513, 4096])
    assert.ok(Buffer.from((await build(tar, {}, size)).bootstrap).equals(whole.bootstrap), String(size))
})

test('what follows the last entry belongs to the blob, also when it is no tar and ends within a block', async () => {
  const tar = Buffer.concat([await tarOf(ENTRIES), Buffer.from('garbage at the end')])
  const { blobs } = await build(tar)
  assert.equal(blobs[0]?.id, sha256(tar))
  assert.equal(blobs[0]?.compressedSize, tar.length)
  assert.equal((blobs[0]?.uncompressedSize ?? 0) % 512, 0)
})

test('an id that is given is used, and a tar without content is no blob', async () => {
  const { blobs } = await build(await tarOf(ENTRIES), { blobId: 'f00d' })
  assert.equal(blobs[0]?.id, 'f00d')
  const empty = await build(await tarOf([{ path: 'empty/', type: 'directory' }]))
  assert.deepEqual([empty.blobs, empty.blobSize], [[], 0])
  assert.ok(openBootstrap(empty.bootstrap).isTarfs)
})

test('tars that cannot be read in place are refused', async () => {
  const tar = await tarOf(ENTRIES)
  await assert.rejects(build(gzipSync(tar)), refused('BAD_SOURCE', /compressed with gzip.*decompress/))
  await assert.rejects(build(zstdCompressSync(tar)), refused('BAD_SOURCE', /compressed with zstd/))
  await assert.rejects(build(Buffer.alloc(1024, 7)), refused('BAD_SOURCE', /checksum/))
  await assert.rejects(build(tar.subarray(0, 512 * 9 + 100)), refused('BAD_SOURCE', /ends within/))
})

test('a file that is announced with 8 TiB and is not there takes no memory to refuse', async () => {
  const tar = await tarOf([{ path: 'huge', content: content(100) }])
  const header = tar.subarray(0, 512)
  header.fill(0, 124, 136)
  header.set([0x80, 0, 0, 0, 0, 0, 0x08, 0, 0, 0, 0, 0], 124) // base 256: 2^43
  header.fill(0x20, 148, 156)
  const sum = header.reduce((total, byte) => total + byte, 0)
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1')
  const before = process.memoryUsage().heapUsed
  await assert.rejects(build(tar, { chunkSize: 0x1000 }), refused('BAD_SOURCE', /ends within the content/))
  assert.ok(process.memoryUsage().heapUsed - before < 32 * 1024 * 1024)
})

test('a sparse file is refused by name: its holes are not in the tar', { skip: noShared }, async () => {
  await assert.rejects(
    build(readFileSync(sharedPath('sources/gnu-sparse.tar'))),
    refused('UNSUPPORTED', /is a sparse file.*tar-rafs/),
  )
})

test('layers of the large set show their trees, alone and merged', { skip: noShared }, async (t) => {
  const folder = temporary(t)
  const layers: BuiltLayer[] = []
  for (const name of ['lower', 'upper', 'third']) {
    const tar = readFileSync(sourceOf(`sources/${name}.tar`, folder))
    const built = await build(tar)
    layers.push(built)
    const wanted = treeLines(readFileSync(sharedPath(`trees/${name}.tarfs.v6.jsonl`), 'utf8'))
    assertSameLines(shownLines(built.bootstrap), wanted, name)
  }
  const { bootstrap, blobs } = mergeImages(
    layers.map(({ bootstrap: bytes }, at) => ({
      name: String(at),
      image: openBootstrap(bytes),
      blobId: undefined,
      blobSize: undefined,
      tocDigest: undefined,
      tocSize: undefined,
    })),
    { parent: undefined, dictionary: undefined, whiteoutSpec: 'oci', prefetchPaths: [] },
  )
  const wanted = treeLines(readFileSync(sharedPath('trees/merged3.tarfs.v6.jsonl'), 'utf8'))
  assertSameLines(shownLines(bootstrap), wanted, 'merged')
  assert.deepEqual(new Set(blobs.map(({ id }) => id)), new Set(layers.map(({ blobs: [blob] }) => blob?.id)))
  assert.deepEqual([...checkBootstrap(openBootstrap(bootstrap))], [])
})
