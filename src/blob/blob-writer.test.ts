import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import * as fc from 'fast-check'
import { compressor, decompressor, digester } from '../codec/index.ts'
import { type Bootstrap, INLINED_BLOB_ID, openBootstrap } from '../rafs/index.ts'
import { openBlobLayout } from './blob-meta.ts'
import { type AppendedChunk, BlobError, type BlobInfo, BlobWriter, type BlobWriterOptions, ChunkInfo } from './index.ts'
import { decodeToc, PARTS, type TocEntry } from './toc.ts'

const shared = join(import.meta.dirname, '../../../shared/fixtures')
const noShared = existsSync(join(shared, 'manifest.json')) ? false : 'no ../shared/fixtures beside the repository'

type Options = Omit<BlobWriterOptions, 'sink'>
const PLAIN: Options = {
  chunkSize: 0x10_0000,
  compression: 'none',
  digest: 'sha256',
  inlineBootstrap: false,
  toc: false,
  rafsVersion: 6,
  alignedChunks: false,
  batches: false,
  cipher: undefined,
  offset: 0,
}

function collect(options: Partial<Options>): { writer: BlobWriter; bytes: () => Buffer } {
  const parts: Buffer[] = []
  const writer = new BlobWriter({ ...PLAIN, ...options, sink: (bytes) => void parts.push(Buffer.from(bytes)) })
  return { writer, bytes: () => Buffer.concat(parts) }
}

function chunkOf(plain: Uint8Array): AppendedChunk {
  const digest = new Uint8Array(32)
  digester('sha256').digest(plain, digest)
  return {
    digest,
    uncompressedSize: plain.length,
    index: 0,
    compressedOffset: 0,
    compressedSize: 0,
    uncompressedOffset: 0,
    compressed: false,
    encrypted: false,
    crc32c: undefined,
  }
}

/** Chunks of an image's own blob as the original stored them, in order. */
function* storedChunks(image: Bootstrap, blob: Buffer): Generator<{ chunk: AppendedChunk; stored: Buffer }> {
  const layout = image.layout(0)
  for (let index = 0; index < layout.chunkCount; index += 1) {
    const info = new ChunkInfo()
    layout.chunk(index, info)
    yield {
      chunk: { ...chunkOf(new Uint8Array(0)), digest: info.digest, uncompressedSize: info.uncompressedSize },
      stored: blob.subarray(info.compressedOffset, info.compressedOffset + info.compressedSize),
    }
  }
}

interface Manifest {
  readonly images: ReadonlyArray<{ id: string; command: string; exit: number; bootstrap: string }>
}

/** Blobs whose table or metadata ours must reproduce: given the original's chunks, all that follows them has the same bytes, but for what zstd's release compresses otherwise. */
test("writes the original's blobs again from their chunks", { skip: noShared }, async () => {
  const { images } = JSON.parse(readFileSync(join(shared, 'manifest.json'), 'utf8')) as Manifest
  let equal = 0
  for (const { id, command, exit, bootstrap: bootstrapPath } of images) {
    const { new_blobs } = JSON.parse(readFileSync(join(shared, 'images', id, 'image.json'), 'utf8')) as {
      new_blobs?: string[]
    }
    const [blobId] = new_blobs ?? []
    if (
      !id.startsWith('v6-') ||
      exit !== 0 ||
      blobId === undefined ||
      !command.includes(' create ') ||
      /-ref |tarfs|encrypt|batch|external|-cache|dict/.test(command) ||
      /parent/.test(id)
    )
      continue
    const blob = readFileSync(join(shared, 'blobs', blobId))
    const bootstrap = readFileSync(join(shared, bootstrapPath))
    const image = openBootstrap(bootstrap)
    const info = image.blobs[0] ?? assert.fail(id)
    // A chunk of an entry that a later one replaced is in the blob, but no bootstrap tells of it.
    if (Array.from({ length: info.chunkCount }, (_unused, index) => image.layout(0).has(index)).includes(false))
      continue
    const inlineBootstrap = command.includes('--blob-inline-meta')
    const toc = command.includes('blob-toc')
    const { chunkSize, compression, digest } = info
    const { writer, bytes } = collect({ chunkSize, compression, digest, inlineBootstrap, toc })
    for (const { chunk, stored } of storedChunks(image, blob)) await writer.append(chunk, stored)
    await writer.finishData()
    const compressedSize = writer.size
    if (inlineBootstrap) await writer.addBootstrap(bootstrap)
    const finished = await writer.finish()
    const ours = bytes()
    if (ours.equals(blob)) {
      equal += 1
      assert.equal(finished.id, blobId, id)
      const place = inlineBootstrap
        ? { compressedSize, tocSize: 0, tocDigest: undefined }
        : { ...finished, compressedSize: finished.size }
      const told = writer.info({
        index: 0,
        id: info.id,
        compressedSize: place.compressedSize,
        tocSize: place.tocSize,
        tocDigest: place.tocDigest,
      })
      assert.deepEqual(asText(told), asText(info), id)
    } else {
      assert.equal(compression, 'zstd', `${id} has no zstd that could differ`)
      assert.deepEqual(plainParts(ours, toc), plainParts(blob, toc), id)
    }
  }
  assert.ok(equal >= 12, `${equal} equal`)
})

function asText(info: BlobInfo): unknown {
  const { metaBlobDigest: _digest, metaBlobSize: _size, tocDigest, ...rest } = info
  return { ...rest, tocDigest: tocDigest === undefined ? undefined : Buffer.from(tocDigest).toString('hex') }
}

/** What a blob's table of contents says of its parts, whatever zstd made of them. */
function plainParts(blob: Buffer, toc: boolean): unknown {
  if (!toc) return undefined
  return decodeToc(blob.subarray(-4096), blob.length).map(({ name, uncompressedSize, digest }) => ({
    name,
    uncompressedSize,
    // Header and data digests cover stored sizes.
    digest: name === PARTS.metaHeader || name === PARTS.data ? undefined : digest,
  }))
}

const contents = fc.array(
  fc.oneof(
    fc.uint8Array({ minLength: 1, maxLength: 3000 }),
    fc.tuple(fc.nat(255), fc.integer({ min: 1, max: 9000 })).map(([byte, n]) => new Uint8Array(n).fill(byte)),
  ),
  { minLength: 1, maxLength: 12 },
)

test('what is written reads back, in each layout', async () => {
  await fc.assert(
    fc.asyncProperty(
      contents,
      fc.boolean(),
      fc.boolean(),
      fc.constantFrom('none', 'zstd', 'lz4_block'),
      async (plains, inlineBootstrap, toc, compression) => {
        const { writer, bytes } = collect({ inlineBootstrap, toc, compression })
        const chunks: AppendedChunk[] = []
        for (const plain of plains) {
          const chunk = chunkOf(plain)
          const into = new Uint8Array(plain.length)
          const size = compressor(compression).compress(plain, into)
          await writer.append(chunk, size < 0 ? plain : into.subarray(0, size))
          chunks.push(chunk)
        }
        await writer.finishData()
        const bootstrap = Buffer.from('a bootstrap '.repeat(100))
        if (inlineBootstrap) await writer.addBootstrap(bootstrap)
        const { size, id } = await writer.finish()
        const blob = bytes()
        assert.equal(size, blob.length)
        const info = writer.info({
          index: 0,
          id: INLINED_BLOB_ID,
          compressedSize: size,
          tocSize: 0,
          tocDigest: undefined,
        })
        const layout = openBlobLayout(
          writer.metaFile() ?? assert.fail(),
          info,
          new Uint8Array(Buffer.concat(chunks.map(({ digest }) => digest))),
        )
        const found = new ChunkInfo()
        for (const [index, plain] of plains.entries()) {
          layout.chunk(index, found)
          const into = new Uint8Array(found.uncompressedSize)
          decompressor(found.compressed ? compression : 'none').decompress(
            blob.subarray(found.compressedOffset, found.compressedOffset + found.compressedSize),
            into,
          )
          assert.deepEqual(into, plain)
          assert.equal(found.uncompressedOffset % 4096, 0)
        }
        if (toc) comparesParts(blob, id)
        else assert.equal(id, createHash('sha256').update(blob).digest('hex'))
      },
    ),
    { numRuns: 60 },
  )
})

/** Every part is where the table says, with the digest that it says; the blob's id leaves out the digest array. */
function comparesParts(blob: Buffer, id: string): void {
  const entries = decodeToc(blob.subarray(-4096), blob.length)
  const at = (name: string): TocEntry => entries.find((entry) => entry.name === name) ?? assert.fail(name)
  for (const { name, compression, compressedOffset, compressedSize, uncompressedSize, digest } of entries) {
    if (name === PARTS.data) continue
    const plain = new Uint8Array(uncompressedSize)
    decompressor(compression).decompress(blob.subarray(compressedOffset, compressedOffset + compressedSize), plain)
    assert.equal(createHash('sha256').update(plain).digest('hex'), Buffer.from(digest ?? []).toString('hex'), name)
  }
  const data = at(PARTS.data)
  assert.equal(
    createHash('sha256')
      .update(blob.subarray(0, data.compressedSize + 512))
      .digest('hex'),
    Buffer.from(data.digest ?? []).toString('hex'),
  )
  const digests = at(PARTS.digests)
  const withoutDigests = createHash('sha256')
    .update(blob.subarray(0, digests.compressedOffset))
    .update(blob.subarray(digests.compressedOffset + digests.compressedSize))
  assert.equal(id, withoutDigests.digest('hex'))
}

test('a blob without chunks is empty, or has its bootstrap only', async () => {
  const empty = collect({ toc: true })
  await empty.writer.finishData()
  assert.equal((await empty.writer.finish()).size, 0)
  assert.equal(empty.writer.metaFile(), undefined)
  const inlined = collect({ toc: true, inlineBootstrap: true })
  await inlined.writer.finishData()
  await inlined.writer.addBootstrap(Buffer.alloc(8192))
  await inlined.writer.finish()
  assert.deepEqual(
    decodeToc(inlined.bytes().subarray(-4096), inlined.bytes().length).map(({ name }) => name),
    [PARTS.bootstrap],
  )
})

test('the sink gets large pieces, and an error of it ends the writing', async () => {
  const sizes: number[] = []
  const writer = new BlobWriter({ ...PLAIN, sink: (bytes) => void sizes.push(bytes.length) })
  for (let i = 0; i < 3000; i += 1) await writer.append(chunkOf(new Uint8Array(1000)), new Uint8Array(1000))
  await writer.finishData()
  await writer.finish()
  assert.ok(sizes.length <= 5, `${sizes.length} calls`)
  const full = new BlobWriter({ ...PLAIN, sink: () => Promise.reject(new Error('disk full')) })
  await full.append(chunkOf(new Uint8Array(10)), new Uint8Array(10))
  await full.finishData()
  await assert.rejects(full.finish(), /disk full/)
})

test('chunks beyond the address space are refused', async () => {
  const { writer } = collect({})
  const chunk = chunkOf(new Uint8Array(1))
  const huge = { ...chunk, uncompressedSize: 2 ** 44 }
  await writer.append(huge, new Uint8Array(1))
  assert.throws(
    () => writer.append(chunk, new Uint8Array(1)),
    (error: unknown) => error instanceof BlobError && error.code === 'TOO_LARGE',
  )
})

test('a slow sink gets every byte, in order, though the next ones are gathered meanwhile', async () => {
  const parts: Buffer[] = []
  let under = 0
  const writer = new BlobWriter({
    ...PLAIN,
    sink: async (bytes) => {
      under += 1
      assert.equal(under, 1)
      await new Promise((resolve) => setTimeout(resolve, 5))
      // Only now: they are valid until the promise settles.
      parts.push(Buffer.from(bytes))
      under -= 1
    },
  })
  const chunks = Array.from({ length: 12 }, (_none, at) => Buffer.alloc(at === 5 ? 1 << 20 : 700_000, at + 1))
  for (const chunk of chunks) await writer.append(chunkOf(chunk), chunk)
  await writer.finishData()
  await writer.finish()
  const data = Buffer.concat(chunks)
  assert.equal(Buffer.compare(Buffer.concat(parts).subarray(0, data.length), data), 0)
})

test('what a sink fails with comes out, also when it failed last', async () => {
  const writer = new BlobWriter({ ...PLAIN, sink: () => Promise.reject(new Error('no space')) })
  const chunk = Buffer.alloc(100)
  await writer.append(chunkOf(chunk), chunk)
  await writer.finishData()
  await assert.rejects(writer.finish(), /no space/)
})
