/** Layers whose chunks are stored in batches, encrypted, or both. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { describe, test } from 'node:test'
import * as fc from 'fast-check'
import { BLOB_FEATURES, ChunkInfo, createCipher } from '../blob/index.ts'
import { type Bootstrap, openBootstrap } from '../rafs/index.ts'
import { ChunkDictionary, type KnownChunk } from './dictionary.ts'
import { BuilderError, type LayerOptions, mergeImages } from './index.ts'
import { buildTar, type BuiltForTest, contentOf, DEFAULTS, tarOf } from './testing.ts'

const CIPHER = {
  key: Uint8Array.from({ length: 32 }, (_, i) => i),
  iv: Uint8Array.from({ length: 16 }, (_, i) => 7 * i),
}

/** Bytes of that size that no two sizes share, compressible or not. */
function contentOfSize(size: number, seed: number): Buffer {
  if (seed % 2 === 0) return Buffer.alloc(size, `${seed} ${size} `)
  const blocks = Array.from({ length: Math.ceil(size / 32) }, (_, i) =>
    createHash('sha256').update(`${seed} ${size} ${i}`).digest(),
  )
  return Buffer.concat(blocks).subarray(0, size)
}

async function layerOf(
  sizes: readonly number[],
  options: Partial<LayerOptions>,
): Promise<{ built: BuiltForTest; files: Buffer[] }> {
  const files = sizes.map((size, at) => contentOfSize(size, at))
  const archive = await tarOf(files.map((content, at) => ({ path: `file-${at}`, content })))
  return { built: await buildTar(archive, options), files }
}

function assertFiles(image: Bootstrap, blobs: readonly Uint8Array[], files: readonly Buffer[]): void {
  for (const [at, content] of files.entries())
    assert.ok(contentOf(image, blobs, `/file-${at}`).equals(content), `/file-${at} of ${content.length} bytes`)
}

/** Around all borders: half a batch, a batch, a chunk, and what is padded for AES-XTS. */
const SIZES = [0, 1, 2, 15, 16, 17, 18, 19, 31, 100, 2047, 2048, 2049, 4095, 4096, 4097, 8191, 8192, 8193, 20_000]

const randomSizes = fc.array(fc.oneof(fc.constantFrom(...SIZES), fc.nat(9000)), { maxLength: 40 })
const randomOptions = fc.record({
  compression: fc.constantFrom('none' as const, 'lz4_block' as const, 'zstd' as const),
  digest: fc.constantFrom('blake3' as const, 'sha256' as const),
  chunkSize: fc.constantFrom(4096, 8192),
  batchSize: fc.constantFrom(0, 4096),
  cipher: fc.constantFrom(undefined, CIPHER),
  inlineBootstrap: fc.boolean(),
  blobToc: fc.boolean(),
  blobOffset: fc.constantFrom(0, 1, 5000),
})

test('whatever is stored in whatever way reads back', async () => {
  await fc.assert(
    fc.asyncProperty(randomSizes, randomOptions, async (sizes, options) => {
      const { built, files } = await layerOf(sizes, options)
      const file = Buffer.concat([Buffer.alloc(options.blobOffset), built.blob])
      assertFiles(openBootstrap(built.bootstrap), [file], files)
    }),
    { numRuns: 100 },
  )
})

test('twice the same bytes, also of layers that threads work on', async () => {
  const sizes = Array.from({ length: 1500 }, (_, at) => (at % 97 === 0 ? 300_000 : (at * 37) % 3000))
  const options = { batchSize: 0x1_0000, chunkSize: 0x2_0000, cipher: CIPHER, compression: 'lz4_block' } as const
  const [one, two] = [await layerOf(sizes, options), await layerOf(sizes, options)]
  assert.ok(one.built.blob.equals(two.built.blob))
  assert.deepEqual(one.built.bootstrap, two.built.bootstrap)
  assertFiles(openBootstrap(one.built.bootstrap), [one.built.blob], one.files.slice(0, 200))
})

describe('which chunks share a batch', () => {
  /** Numbers of batches by file; a number is that of the stored offset. */
  async function batchesOf(
    sizes: readonly number[],
    batchSize = 4096,
  ): Promise<ReadonlyArray<readonly [number, number]>> {
    const { built } = await layerOf(sizes, { batchSize, chunkSize: 4096, compression: 'none' })
    const infos = new DataView(built.blobMeta?.buffer ?? new ArrayBuffer(0))
    return sizes.map((_, at) => [infos.getUint32(at * 24 + 8, true), infos.getUint32(at * 24 + 16, true)] as const)
  }

  test('files smaller than half of one, until it would be full', async () => {
    assert.deepEqual(await batchesOf([2000, 2000, 95, 1000]), [
      [0, 0],
      [0, 2000],
      [0, 4000],
      [4095, 0],
    ])
    assert.deepEqual((await batchesOf([2000, 2000, 96])).at(-1), [4000, 0])
  })
  test('a chunk that is stored alone ends the batch before it', async () => {
    const places = await batchesOf([100, 2048, 200])
    assert.deepEqual(
      places.map(([stored]) => stored),
      [0, 100, 2148],
    )
    assert.equal(places[2]?.[1], 0)
  })
})

test('no encrypted batch is stored in as many bytes as it has when it is compressed, or in more', async () => {
  for (const compression of ['none', 'lz4_block', 'zstd'] as const)
    for (let size = 1; size < 40; size += 1) {
      const { built } = await layerOf([size], { compression, batchSize: 4096, cipher: CIPHER })
      const contexts = new DataView(built.blobMeta?.buffer ?? new ArrayBuffer(0), 24)
      assert.ok(contexts.getUint32(0, true) <= contexts.getUint32(4, true), `${compression}, ${size} bytes`)
    }
})

test('an encrypted blob has none of its chunks in clear, and keys are never the same', async () => {
  const { built, files } = await layerOf([5000, 3000, 70, 20], { compression: 'none', cipher: createCipher() })
  for (const file of files) assert.equal(built.blob.indexOf(file.subarray(0, 20)), -1)
  assert.notDeepEqual(createCipher(), createCipher())
})

test('a layer refers to chunks of a batched and encrypted one, and a merge keeps all that reading them needs', async () => {
  const options = { batchSize: 4096, chunkSize: 4096, cipher: CIPHER, digest: 'sha256' } as const
  const lower = await layerOf([100, 200, 9000], options)
  const image = openBootstrap(lower.built.bootstrap)
  const info = new ChunkInfo()
  const known: KnownChunk[] = [0, 1, 2, 3, 4].map((index) => {
    image.layout(0).chunk(index, info)
    return Object.assign(new ChunkInfo(), info, { digest: info.digest.slice(), blobIndex: 0 })
  })
  for (const given of [{ dictionary: new ChunkDictionary(image.blobs, known) }, { parent: image }]) {
    const upper = await layerOf([100, 200, 9000, 300], { ...DEFAULTS, chunkSize: 4096, digest: 'sha256', ...given })
    const over = openBootstrap(upper.built.bootstrap)
    assert.equal(upper.built.counts.duplicateChunks, 5)
    assertFiles(over, [lower.built.blob, upper.built.blob], upper.files)
    const merged = mergeImages(
      [image, over].map((layer, at) => ({
        name: `layer ${at}`,
        image: layer,
        blobId: undefined,
        blobSize: undefined,
        tocDigest: undefined,
        tocSize: undefined,
      })),
      { parent: undefined, dictionary: image, whiteoutSpec: 'oci', prefetchPaths: [] },
    )
    const whole = openBootstrap(merged.bootstrap)
    assert.deepEqual(whole.blobs[0]?.cipher?.key, Buffer.from(CIPHER.key))
    assertFiles(whole, [lower.built.blob, upper.built.blob], upper.files)
  }
})

test('features tell how to read it', async () => {
  const { ALIGNED, CHUNK_INFO_V2, BATCH, ENCRYPTED, CAP_TAR_TOC } = BLOB_FEATURES
  const features = async (options: Partial<LayerOptions>): Promise<number | undefined> =>
    (await layerOf([100], options)).built.blobs[0]?.features
  assert.equal(await features({ batchSize: 4096 }), ALIGNED | CHUNK_INFO_V2 | BATCH | CAP_TAR_TOC)
  assert.equal(await features({ cipher: CIPHER }), ALIGNED | CHUNK_INFO_V2 | ENCRYPTED | CAP_TAR_TOC)
})

test('RAFS v5 is refused, which could not tell', async () => {
  for (const options of [{ batchSize: 4096 }, { cipher: CIPHER }, { blobToc: true }])
    await assert.rejects(
      layerOf([100], { ...options, version: 5 }),
      (error: unknown) =>
        error instanceof BuilderError && error.code === 'BAD_OPTION' && /build v6/.test(error.message),
    )
})

test('a chunk of 16 MiB that does not compress is refused: infos with flags have 24 bits for its size', async () => {
  const archive = await tarOf([{ path: 'large', content: Buffer.alloc(0x100_0000, 7) }])
  await assert.rejects(
    buildTar(archive, { chunkSize: 0x100_0000, compression: 'none', batchSize: 4096 }),
    (error: unknown) =>
      error instanceof BuilderError && error.code === 'TOO_LARGE' && /smaller chunk size/.test(error.message),
  )
})
