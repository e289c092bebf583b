/** References to layers that are not compressed. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { zstdCompressSync } from 'node:zlib'
import { openBootstrap } from '../rafs/index.ts'
import { BuilderError, checkBootstrap, type LayerOptions } from './index.ts'
import {
  type ArchiveEntry,
  assertSameMeaning,
  buildTar,
  contentOf,
  noShared,
  sha256,
  sharedPath,
  sourceOf,
  tarOf,
  temporary,
} from './testing.ts'

const REFERENCE: Partial<LayerOptions> = { reference: true, digest: 'sha256' }
const pattern = (size: number, seed: number): Buffer =>
  Buffer.from(Array.from({ length: size }, (_unused, at) => (Math.imul(at + seed, 0x9e37_79b1) >>> 24) & 0xff))
const FILES: Readonly<Record<string, Buffer>> = {
  one: pattern(1, 1),
  block: pattern(512, 2),
  large: pattern(30_000, 3),
  zeros: Buffer.alloc(20_000),
  more: pattern(0x4000, 4),
}

async function archive(): Promise<Buffer> {
  const files = Object.entries(FILES).map(([path, content]): ArchiveEntry => ({ path, content }))
  const again: ArchiveEntry = { path: 'again', content: FILES['large'] ?? Buffer.alloc(0) }
  return await tarOf([
    { path: 'd/', type: 'directory' },
    ...files,
    again,
    { path: 'hard', type: 'hardlink', link: 'more' },
  ])
}

test('files lie in the layer as they are; a chunk that comes again is the first one', async () => {
  const tar = Buffer.concat([await archive(), Buffer.from('behind the archive')])
  const { bootstrap, blobs, counts } = await buildTar(tar, { ...REFERENCE, chunkSize: 0x1000 })
  const image = openBootstrap(bootstrap)
  for (const [path, content] of Object.entries({ ...FILES, again: FILES['large'], hard: FILES['more'] }))
    assert.ok(contentOf(image, [tar], path).equals(content ?? Buffer.alloc(0)), path)
  assert.deepEqual([...checkBootstrap(image)], [])
  assert.ok(counts.duplicateChunks >= 8)
  const [blob] = blobs
  assert.deepEqual(
    [blob?.id, blob?.features, blob?.compression, blob?.compressedSize],
    [sha256(tar), 0x4000_0015, 'gzip', tar.length],
  )
})

test('the bootstrap may lie in the blob that tells where the chunks are', async () => {
  const tar = await archive()
  const built = await buildTar(tar, { ...REFERENCE, inlineBootstrap: true, blobToc: true })
  const image = openBootstrap(built.bootstrap, { inlinedBlobId: built.blobId })
  assert.ok(contentOf(image, [tar], 'large').equals(FILES['large'] ?? Buffer.alloc(0)))
  assert.equal(image.blobs[0]?.features, 0x7000_0037)
})

test('the image of the large set comes out, and the blob with the very bytes of the original', {
  skip: noShared,
}, async (t) => {
  const tar = readFileSync(sourceOf('sources/mini.tar', temporary(t)))
  const built = await buildTar(tar, REFERENCE)
  const wanted = openBootstrap(readFileSync(sharedPath('images/v6-tar-ref/bootstrap')))
  assertSameMeaning(openBootstrap(built.bootstrap), wanted)
  const theirs = readFileSync(sharedPath('blobs/ba1a1bd5cb79551c16996b531fa88abd49e6dd55f2c35df9e549ce3608767c35'))
  // Infos are compressed, with whatever zstd is here; their header is not.
  assert.equal(built.blob.length - built.blob.indexOf(theirs.subarray(-4096, -4000)), 4096)
})

test('what cannot be referred to is refused', async () => {
  const tar = await archive()
  for (const [bytes, code] of [
    [zstdCompressSync(tar), 'UNSUPPORTED'],
    [tar.subarray(0, 10_000), 'BAD_SOURCE'],
    [Buffer.alloc(2048, 1), 'BAD_SOURCE'],
    [readFileSync(new URL('testdata/gnu-sparse.tar', import.meta.url)), 'UNSUPPORTED'],
  ] as const)
    await assert.rejects(
      buildTar(bytes, REFERENCE),
      (error: unknown) => error instanceof BuilderError && error.code === code,
    )
})
