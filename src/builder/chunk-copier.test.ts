import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { localfsBackend } from '../backend/index.ts'
import { BlobWriter, type BlobWriterOptions } from '../blob/index.ts'
import type { CompressionName } from '../codec/index.ts'
import { openBootstrap, type RafsChunk, readTree } from '../rafs/index.ts'
import { ChunkCopier } from './chunk-copier.ts'
import { buildTar, tarOf, temporary } from './testing.ts'

const CHUNK_SIZE = 0x10_0000
/** Three chunks. */
const CONTENT = Buffer.alloc(2.5 * CHUNK_SIZE, 'some text ')

interface Copied {
  readonly chunks: readonly RafsChunk[]
  readonly stored: Buffer
}

/** Copies the chunks of an image with plain chunks, whose first blob byte is changed by `flipped`. */
async function copy(
  t: TestContext,
  compression: CompressionName,
  { flipped = 0, ...options }: Partial<BlobWriterOptions> & { readonly flipped?: number } = {},
): Promise<Copied> {
  const archive = await tarOf([{ path: 'file', content: CONTENT }])
  const { bootstrap, blob } = await buildTar(archive, { chunkSize: CHUNK_SIZE, compression: 'none' })
  const image = openBootstrap(bootstrap)
  blob[0] = (blob[0] ?? 0) ^ flipped
  const folder = temporary(t)
  writeFileSync(join(folder, image.blobs[0]?.id ?? ''), blob)
  const backend = localfsBackend({ dir: folder })
  const copier = new ChunkCopier({
    image,
    backend,
    data: {
      read: async (spans, count, into) => {
        for (const { chunkOffset, length } of spans.slice(0, count))
          into.set(blob.subarray(chunkOffset, chunkOffset + length))
      },
    },
    signal: t.signal,
    onBytes: () => undefined,
  })
  const parts: Buffer[] = []
  const digest = image.blobs[0]?.digest ?? 'blake3'
  const writer = new BlobWriter({
    chunkSize: CHUNK_SIZE,
    compression,
    digest,
    inlineBootstrap: false,
    toc: false,
    rafsVersion: 6,
    alignedChunks: false,
    batches: false,
    cipher: undefined,
    offset: 0,
    sink: (bytes) => void parts.push(Buffer.from(bytes)),
    ...options,
  })
  try {
    const [file] = readTree(image).root.children ?? []
    const chunks = await copier.copy(file?.chunks ?? [], {
      writer,
      blobIndex: 0,
      compression,
      digest,
      cipher: undefined,
    })
    await writer.finishData()
    await writer.finish()
    return { chunks, stored: Buffer.concat(parts) }
  } finally {
    await copier.close()
    await backend.close()
  }
}

test('chunks are copied as they are stored, or stored anew where the new blob stores them in another way', async (t) => {
  const plain = await copy(t, 'none')
  assert.ok(plain.stored.subarray(0, CONTENT.length).equals(CONTENT))
  const { chunks } = await copy(t, 'zstd')
  assert.deepEqual(
    [plain, { chunks }].map((copied) => copied.chunks.map(({ compressed }) => compressed)),
    [
      [false, false, false],
      [true, true, true],
    ],
  )
})

for (const compression of ['none', 'zstd'] as const) {
  test(`a chunk that is damaged is the fault of the source, stored as ${compression}`, async (t) => {
    await assert.rejects(copy(t, compression, { flipped: 1 }), { code: 'BAD_SOURCE', message: /chunk 0 .* is damaged/ })
  })

  test(`what fails in writing is not told of the source, stored as ${compression}`, async (t) => {
    await assert.rejects(copy(t, compression, { offset: 2 ** 40 }), { code: 'TOO_LARGE', message: /split the layer/ })
  })
}

test('an output that cannot be written is not told of the source', async (t) => {
  const sink = (): Promise<void> => Promise.reject(new Error('no space'))
  await assert.rejects(copy(t, 'none', { sink }), { message: 'no space' })
})

test('a compression that nothing is written with is not told of the source', async (t) => {
  await assert.rejects(copy(t, 'gzip'), { name: 'CodecError', code: 'UNSUPPORTED' })
})
