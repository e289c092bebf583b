/** Damaged and crafted parts of blobs: a coded error, or what they say within their bounds. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import * as fc from 'fast-check'
import { encodeMetaFile, encodeMetaHeader, META_HEADER_SIZE, metaFileOf, openBlobLayout } from './blob-meta.ts'
import { decodeInfo, encodeInfoV1, INFO_V1_SIZE } from './chunk-infos.ts'
import { BLOB_FEATURES, BlobError, type BlobInfo, ChunkInfo, plainMetaFileSize, readPlainMeta } from './index.ts'
import { decodeTarHeader, encodeTarHeader, TAR_HEADER_SIZE } from './tar-header.ts'
import { decodeToc, encodeToc, PARTS } from './toc.ts'

const isCoded = (error: unknown): boolean => error instanceof BlobError
const hasCode =
  (code: string) =>
  (error: unknown): boolean =>
    error instanceof BlobError && error.code === code

const COUNT = 5
const SIZE = 4000
const BLOB: BlobInfo = {
  index: 0,
  id: 'b'.repeat(64),
  features: BLOB_FEATURES.ALIGNED | BLOB_FEATURES.CAP_TAR_TOC,
  chunkSize: 4096,
  chunkCount: COUNT,
  compression: 'none',
  digest: 'blake3',
  compressedSize: COUNT * SIZE,
  uncompressedSize: COUNT * 4096,
  prefetchSize: 0,
  metaOffset: COUNT * SIZE,
  metaCompressedSize: COUNT * INFO_V1_SIZE,
  metaUncompressedSize: COUNT * INFO_V1_SIZE,
  metaCompression: 'none',
  tocSize: 0,
  tocDigest: undefined,
}

function context(): { infos: Uint8Array; header: Uint8Array } {
  const infos = new Uint8Array(COUNT * INFO_V1_SIZE)
  for (let index = 0; index < COUNT; index += 1) {
    encodeInfoV1(
      {
        index,
        compressedOffset: index * SIZE,
        compressedSize: SIZE,
        uncompressedOffset: index * 4096,
        uncompressedSize: SIZE,
      },
      new DataView(infos.buffer),
      index * INFO_V1_SIZE,
    )
  }
  const header = encodeMetaHeader({
    features: BLOB.features,
    compression: 'none',
    entries: COUNT,
    offset: BLOB.metaOffset,
    compressedSize: infos.length,
    uncompressedSize: infos.length,
  })
  return { infos, header }
}

test('a chunk info of version 1 reads back, up to the limits', () => {
  const size = fc.integer({ min: 1, max: 2 ** 24 })
  const wide = { ...BLOB, chunkSize: 2 ** 24, compressedSize: 2 ** 41, uncompressedSize: 2 ** 45 }
  fc.assert(
    fc.property(
      fc.nat(2 ** 32 - 1),
      size,
      fc.nat(2 ** 40 - 1),
      size,
      (block, uncompressedSize, compressedOffset, compressedSize) => {
        const view = new DataView(new ArrayBuffer(INFO_V1_SIZE))
        const chunk = { index: 0, uncompressedOffset: block * 4096, uncompressedSize, compressedOffset, compressedSize }
        encodeInfoV1(chunk, view, 0)
        const found = new ChunkInfo()
        decodeInfo(view, 0, wide, found)
        assert.deepEqual(
          { ...chunk },
          {
            index: found.index,
            uncompressedOffset: found.uncompressedOffset,
            uncompressedSize: found.uncompressedSize,
            compressedOffset: found.compressedOffset,
            compressedSize: found.compressedSize,
          },
        )
        assert.equal(found.compressed, compressedSize !== uncompressedSize)
      },
    ),
  )
})

test('a compression context with any byte changed is refused, or stays in its bounds', () => {
  const { infos, header } = context()
  const whole = encodeMetaFile(infos, header)
  const digests = new Uint8Array(COUNT * 32)
  fc.assert(
    fc.property(fc.nat(whole.length - 1), fc.nat(255), (at, byte) => {
      const damaged = whole.slice()
      damaged[at] = byte
      try {
        const layout = openBlobLayout(damaged, BLOB, digests)
        const info = new ChunkInfo()
        for (let index = 0; index < COUNT; index += 1) {
          layout.chunk(index, info)
          assert.ok(
            info.compressedOffset + info.compressedSize <= BLOB.compressedSize &&
              info.uncompressedSize <= BLOB.chunkSize,
          )
          assert.ok(info.uncompressedOffset + info.uncompressedSize <= BLOB.uncompressedSize)
        }
      } catch (error) {
        assert.ok(isCoded(error), String(error))
      }
    }),
    { numRuns: 2000 },
  )
})

test('a compression context of another size, another blob or without its digests is refused', () => {
  const { infos, header } = context()
  const whole = encodeMetaFile(infos, header)
  const digests = new Uint8Array(COUNT * 32)
  for (const length of [0, 1, 4096, whole.length - 1])
    assert.throws(() => openBlobLayout(whole.subarray(0, length), BLOB, digests), hasCode('BAD_META'))
  assert.throws(() => openBlobLayout(whole, { ...BLOB, chunkCount: COUNT + 1 }, digests), hasCode('BAD_META'))
  assert.throws(() => openBlobLayout(whole, { ...BLOB, metaOffset: 1 }, digests), hasCode('BAD_META'))
  assert.throws(() => openBlobLayout(whole, BLOB, digests.subarray(1)), hasCode('BAD_META'))
  assert.throws(
    () => openBlobLayout(whole, { ...BLOB, features: BLOB.features | BLOB_FEATURES.ZRAN }, digests),
    hasCode('UNSUPPORTED'),
  )
  assert.throws(() => metaFileOf(Buffer.concat([infos, header, header]), BLOB), hasCode('BAD_META'))
  assert.equal(metaFileOf(Buffer.concat([infos, header]), BLOB).length, 4096 + META_HEADER_SIZE)
  const layout = openBlobLayout(whole, BLOB, digests)
  for (const index of [-1, COUNT, 0.5, Number.NaN])
    assert.throws(() => layout.chunk(index, new ChunkInfo()), hasCode('OUT_OF_RANGE'))
})

test('a table of contents with any byte changed is refused, or stays in its blob', () => {
  const entries = [PARTS.data, PARTS.meta, PARTS.metaHeader].map((name, at) => ({
    name,
    compression: 'none' as const,
    digest: new Uint8Array(32).fill(at + 1),
    compressedOffset: at * 100,
    compressedSize: 100,
    uncompressedSize: 100,
  }))
  const toc = encodeToc(entries)
  assert.deepEqual(decodeToc(Buffer.concat([Buffer.alloc(700), toc]), 2000), entries)
  fc.assert(
    fc.property(fc.nat(toc.length - 1), fc.nat(255), (at, byte) => {
      const damaged = toc.slice()
      damaged[at] = byte
      try {
        for (const { compressedOffset, compressedSize } of decodeToc(damaged, 2000))
          assert.ok(compressedOffset + compressedSize <= 2000)
      } catch (error) {
        assert.ok(isCoded(error), String(error))
      }
    }),
    { numRuns: 2000 },
  )
  for (const length of [0, 1, 511, 512, 600])
    assert.throws(() => decodeToc(toc.subarray(toc.length - length), 2000), isCoded, String(length))
})

test('tar headers of every size read back; other bytes are no header', () => {
  for (const size of [0, 1, 511, 8 ** 11 - 1, 8 ** 11, 2 ** 40])
    assert.deepEqual(decodeTarHeader(encodeTarHeader('image.blob', size)), { name: 'image.blob', size })
  fc.assert(
    fc.property(fc.uint8Array({ minLength: TAR_HEADER_SIZE, maxLength: TAR_HEADER_SIZE }), (bytes) => {
      assert.throws(() => decodeTarHeader(bytes), hasCode('BAD_TAR'))
    }),
  )
})

test('a context that is kept for others is fetched up to what memory is for, and as the bootstrap describes it', async () => {
  const { infos, header } = context()
  const stored = Buffer.concat([infos, header])
  const read = async (offset: number, into: Uint8Array): Promise<void> => {
    assert.equal(offset, BLOB.metaOffset)
    into.set(stored)
  }
  const file = await readPlainMeta(BLOB, read)
  assert.ok(Buffer.from(encodeMetaFile(infos, header)).equals(file))
  assert.equal(plainMetaFileSize(BLOB), file.length)
  for (const sizes of [{ metaUncompressedSize: 65 << 20 }, { metaCompressedSize: BLOB.metaUncompressedSize + 1 }])
    await assert.rejects(
      readPlainMeta({ ...BLOB, ...sizes }, () => assert.fail('nothing is fetched')),
      hasCode('BAD_META'),
    )
})
