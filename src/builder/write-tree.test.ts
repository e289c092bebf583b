import assert from 'node:assert/strict'
import { test } from 'node:test'
import * as fc from 'fast-check'
import { FileTree, loadFiles, openBootstrap } from '../rafs/index.ts'
import { BuilderError, type LayerOptions, mergeImages, type MergeLayer } from './index.ts'
import { buildTar, shownLines, tarOf } from './testing.ts'
import { writeTree } from './write-tree.ts'

const isInconsistent = (error: unknown): boolean => error instanceof BuilderError && error.code === 'INCONSISTENT'

async function layer(name: string, options: Partial<LayerOptions>): Promise<MergeLayer> {
  const archive = await tarOf([{ path: name, content: Buffer.alloc(20_000, name) }])
  const { bootstrap, blobId } = await buildTar(archive, { version: 5, ...options })
  const image = openBootstrap(bootstrap, { inlinedBlobId: blobId })
  return { name, image, blobId, blobSize: undefined, tocDigest: undefined, tocSize: undefined }
}

const MERGE = { parent: undefined, dictionary: undefined, whiteoutSpec: 'oci', prefetchPaths: [] } as const

test('layers with two compressions do not become one v5 image, whose chunks nobody could read', async () => {
  const layers = [await layer('a', { compression: 'lz4_block' }), await layer('b', { compression: 'zstd' })]
  assert.throws(() => mergeImages(layers, MERGE), isInconsistent)
})

test('a layer that is stored plain fits to any in v5, below and above', async () => {
  const [plain, packed] = [await layer('a', { compression: 'none' }), await layer('b', { compression: 'lz4_block' })]
  for (const layers of [
    [plain, packed],
    [packed, plain],
  ]) {
    const { bootstrap } = mergeImages(layers, MERGE)
    assert.deepEqual(
      openBootstrap(bootstrap).blobs.map(({ compression }) => compression),
      ['lz4_block', 'lz4_block'],
    )
  }
})

test('layers with two digests do not become one v5 image', async () => {
  const layers = [await layer('a', { digest: 'sha256' }), await layer('b', { digest: 'blake3' })]
  assert.throws(() => mergeImages(layers, MERGE), isInconsistent)
})

test('layers of v5 and v6 do not become one image', async () => {
  const layers = [await layer('a', {}), await layer('b', { version: 6 })]
  assert.throws(() => mergeImages(layers, MERGE), isInconsistent)
})

test('an image of v6 in which two chunks of a blob have one digest is not written: one of them has no record', async () => {
  const archive = await tarOf(['a', 'b'].map((path) => ({ path, content: Buffer.alloc(5000, path) })))
  const { bootstrap } = await buildTar(archive, {})
  const image = openBootstrap(bootstrap)
  const files = new FileTree()
  const root = loadFiles(image, files, [0])
  const write = (): Uint8Array =>
    writeTree(
      { files, root, blobs: image.blobs },
      {
        version: 6,
        chunkSize: image.chunkSize,
        compression: 'zstd',
        digest: 'blake3',
        explicitOwners: true,
        alwaysXattrs: false,
        prefetch: [],
        source: 'archive',
      },
    )
  assert.ok(Buffer.from(write()).equals(bootstrap))
  const [first, second] = [files.chunks.at(1), files.chunks.at(2)]
  second.digest.set(first.digest)
  assert.throws(write, { name: 'BuilderError', code: 'READBACK', message: /record of chunk 0 of "?\/[ab]/ })
})

test('a v5 blob has no table of contents', async () => {
  await assert.rejects(
    layer('a', { blobToc: true }),
    (error: unknown) => error instanceof BuilderError && error.code === 'BAD_OPTION',
  )
})

test('v5 and v6 of one archive show the same tree, with any options', async () => {
  const sizes = fc.array(fc.integer({ min: 0, max: 20_000 }), { maxLength: 12 })
  const options = fc.record({
    chunkSize: fc.constantFrom(0x1000, 0x10_0000),
    compression: fc.constantFrom('none', 'lz4_block', 'zstd'),
    digest: fc.constantFrom('blake3', 'sha256'),
    alignedChunks: fc.boolean(),
    inlineBootstrap: fc.boolean(),
    keepOwners: fc.boolean(),
  })
  const withoutSizes = (bootstrap: Uint8Array): string[] =>
    shownLines(bootstrap).map((line) => line.replace(/\["size",\d+\],(\["type","dir"\])/, '$1'))
  await fc.assert(
    fc.asyncProperty(sizes, options, async (files, chosen) => {
      const archive = await tarOf(
        files.map((size, at) => ({ path: `d${at % 3}/f${at}`, content: Buffer.alloc(size, at), uid: at })),
      )
      const [five, again, six] = [
        await buildTar(archive, { ...chosen, version: 5 }),
        await buildTar(archive, { ...chosen, version: 5 }),
        await buildTar(archive, { ...chosen, version: 6 }),
      ]
      assert.ok(Buffer.compare(five.bootstrap, again.bootstrap) === 0 && five.blob.equals(again.blob))
      assert.deepEqual(withoutSizes(five.bootstrap), withoutSizes(six.bootstrap))
      const { chunkSize, alignedChunks } = chosen
      const [blob] = openBootstrap(five.bootstrap).blobs
      if (alignedChunks && blob !== undefined) assert.equal(blob.uncompressedSize % 4096, 0)
      assert.equal(openBootstrap(five.bootstrap).chunkSize, chunkSize)
    }),
    { numRuns: 40 },
  )
})
