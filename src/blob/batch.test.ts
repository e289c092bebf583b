import assert from 'node:assert/strict'
import { createCipheriv } from 'node:crypto'
import { describe, test } from 'node:test'
import * as fc from 'fast-check'
import { compressor } from '../codec/index.ts'
import { openBatchLayout } from './batch.ts'
import { BLOB_FEATURES, type BlobInfo } from './blob-info.ts'
import type { BlobLayout } from './blob-layout.ts'
import { encodeMetaFile, encodeMetaHeader, openBlobLayout } from './blob-meta.ts'
import { ChunkInfo } from './chunk-info.ts'
import { decodeInfo, encodeInfoV2 } from './chunk-infos.ts'
import { ChunkDecoder } from './decode-chunk.ts'
import { decrypt, encryptedSize } from './encryption.ts'
import { BlobError } from './errors.ts'

const KEY = { key: Uint8Array.from({ length: 32 }, (_, i) => i), iv: Uint8Array.from({ length: 16 }, (_, i) => 7 * i) }

/** As the original does it. */
function encrypt(plain: Uint8Array): Uint8Array {
  let padded = plain
  if (plain.length < 16) {
    const padding = 16 - plain.length
    padded = Uint8Array.from([...plain, ...Array<number>(padding).fill(padding), 0x78, 0x90])
  }
  return createCipheriv('aes-128-xts', KEY.key, KEY.iv).update(padded)
}

interface Context {
  readonly stored: number
  readonly plain: number
}
const BATCH_AT = 4096 * 3
const FEATURES = BLOB_FEATURES.ALIGNED | BLOB_FEATURES.CHUNK_INFO_V2 | BLOB_FEATURES.BATCH

/** A blob of two chunks of 100 bytes in one batch, and what a test makes of it. */
function crafted(
  with_: Partial<{
    contexts: Context[]
    number: number
    offset: number
    header: (header: DataView) => void
    size: number
  }>,
): {
  open: () => BlobLayout
  blob: BlobInfo
  metaFile: Uint8Array
} {
  const { contexts = [{ stored: 150, plain: 200 }], number = 0, offset = 100, size = 100 } = with_
  const infos = Buffer.alloc(2 * 24 + contexts.length * 40)
  for (const [index, at] of [0, offset].entries()) {
    infos.writeUInt32LE(index, index * 24)
    infos.writeUInt32LE(size - 1 + 0x0500_0000, index * 24 + 4)
    infos.writeUInt32LE(BATCH_AT, index * 24 + 8)
    infos.writeUInt32LE(at, index * 24 + 16)
    infos.writeUInt32LE(number, index * 24 + 20)
  }
  for (const [index, { stored, plain }] of contexts.entries()) {
    infos.writeUInt32LE(stored, 48 + index * 40)
    infos.writeUInt32LE(plain, 48 + index * 40 + 4)
  }
  const blob: BlobInfo = {
    index: 0,
    id: 'b'.repeat(64),
    features: FEATURES,
    chunkSize: 4096,
    chunkCount: 2,
    compression: 'zstd',
    digest: 'sha256',
    compressedSize: 20_000,
    uncompressedSize: 8192,
    prefetchSize: 0,
    metaOffset: 20_000,
    metaCompressedSize: infos.length,
    metaUncompressedSize: infos.length,
    metaCompression: 'none',
    tocSize: 0,
    tocDigest: undefined,
  }
  const header = encodeMetaHeader({
    features: FEATURES,
    compression: 'none',
    entries: 2,
    offset: 20_000,
    compressedSize: infos.length,
    uncompressedSize: infos.length,
  })
  const view = new DataView(header.buffer, header.byteOffset, header.length)
  view.setBigUint64(40, 48n, true)
  view.setBigUint64(48, BigInt(contexts.length * 40), true)
  view.setUint32(56, contexts.length, true)
  with_.header?.(view)
  const records: BlobLayout = {
    chunkCount: 2,
    uncompressedSize: 8192,
    has: (index) => index === 0 || index === 1,
    next: (index) => index,
    chunk: (index, into) => {
      into.index = index
      into.uncompressedOffset = index * 4096
      into.uncompressedSize = 100
      into.encrypted = false
    },
  }
  const metaFile = encodeMetaFile(infos, header)
  return { blob, metaFile, open: () => openBatchLayout(records, metaFile, blob) }
}

const isBadMeta = (error: unknown): boolean => error instanceof BlobError && error.code === 'BAD_META'

test('chunks of a batch lie where the batch does', () => {
  const layout = crafted({}).open()
  const info = new ChunkInfo()
  layout.chunk(1, info)
  const { compressedOffset, compressedSize, batchOffset, batchSize, uncompressedOffset } = info
  assert.deepEqual([compressedOffset, compressedSize, batchOffset, batchSize], [BATCH_AT, 150, 100, 200])
  assert.equal(uncompressedOffset, 4096)
})

describe('a crafted batch context is refused:', () => {
  const cases: ReadonlyArray<readonly [string, Parameters<typeof crafted>[0]]> = [
    ['a chunk of a batch that is not there', { number: 1 }],
    ['a chunk that ends behind its batch', { offset: 101 }],
    ['an offset of 32 bits', { offset: 0xffff_ffff }],
    ['a batch larger than a chunk may be', { contexts: [{ stored: 150, plain: 4097 }] }],
    ['a batch of 4 GiB', { contexts: [{ stored: 150, plain: 0xffff_ffff }] }],
    ['a batch that is stored in more bytes than it has', { contexts: [{ stored: 201, plain: 200 }] }],
    ['a batch that is stored in none', { contexts: [{ stored: 0, plain: 200 }] }],
    ['a chunk of another size than in the bootstrap', { size: 99 }],
    ['contexts behind the infos', { header: (header) => header.setBigUint64(40, 49n, true) }],
    ['contexts over the infos', { header: (header) => header.setBigUint64(40, 24n, true) }],
    ['contexts at 2^63', { header: (header) => header.setBigUint64(40, 2n ** 63n, true) }],
    ['more contexts than fit', { header: (header) => header.setUint32(56, 2, true) }],
  ]
  for (const [name, how] of cases) {
    test(name, () => assert.throws(() => crafted(how).open().chunk(1, new ChunkInfo()), isBadMeta))
  }
})

test('a batch behind the end of the blob is refused', () => {
  const { open, blob } = crafted({})
  assert.doesNotThrow(() => open().chunk(1, new ChunkInfo()))
  Object.assign(blob, { compressedSize: BATCH_AT + 149 })
  assert.throws(() => open().chunk(1, new ChunkInfo()), isBadMeta)
})

test('infos that are larger than all chunks and batches need are refused before they take memory', () => {
  const { blob } = crafted({})
  const huge = { ...blob, metaUncompressedSize: 2 ** 31 }
  assert.throws(() => openBatchLayout({} as BlobLayout, new Uint8Array(0), huge), isBadMeta)
})

test('whatever bytes contexts have, chunks are told inside bounds or refused', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 88, maxLength: 88 }), (bytes) => {
      const { blob } = crafted({})
      const header = encodeMetaHeader({
        features: FEATURES,
        compression: 'none',
        entries: 2,
        offset: 20_000,
        compressedSize: 88,
        uncompressedSize: 88,
      })
      header.set(bytes.subarray(0, 20), 40)
      const records: BlobLayout = {
        chunkCount: 2,
        uncompressedSize: 8192,
        has: () => true,
        next: (index) => index,
        chunk: () => {},
      }
      const info = new ChunkInfo()
      info.uncompressedSize = 1
      try {
        openBatchLayout(records, encodeMetaFile(bytes, header), blob).chunk(1, info)
      } catch (error) {
        assert.ok(isBadMeta(error), String(error))
        return
      }
      assert.ok(info.batchSize <= blob.chunkSize && info.batchOffset + 1 <= Math.max(1, info.batchSize))
    }),
  )
})

test('a batch that unpacks to more than it says is refused', () => {
  const bomb = new Uint8Array(1 << 20)
  const stored = new Uint8Array(1 << 20)
  const size = compressor('zstd').compress(bomb, stored)
  const decoder = new ChunkDecoder('zstd', undefined)
  const chunk = {
    index: 0,
    compressed: false,
    encrypted: false,
    uncompressedSize: 10,
    batchOffset: 0,
    batchSize: 4096,
  }
  assert.throws(() => decoder.decode(stored.subarray(0, size), 0, chunk, new Uint8Array(10)), { name: 'CodecError' })
})

test('what was encrypted is decrypted, at every length', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 1, maxLength: 100 }), (plain) => {
      const stored = encrypt(plain)
      assert.equal(stored.length, encryptedSize(plain.length))
      assert.deepEqual(Uint8Array.from(decrypt(stored, KEY, plain.length)), plain)
    }),
  )
})

test('18 bytes that look like a padded unit come back whole when their size is known', () => {
  const plain = Uint8Array.from([...Array<number>(15).fill(3), 1, 0x78, 0x90])
  assert.deepEqual(Uint8Array.from(decrypt(encrypt(plain), KEY, 18)), plain)
})

test('a stump of an encrypted unit is refused', () => {
  assert.throws(() => decrypt(new Uint8Array(15), KEY, 15), { code: 'BAD_DIGEST' })
})

test('an encrypted chunk of an image without a key is refused', () => {
  const chunk = { index: 3, compressed: false, encrypted: true, uncompressedSize: 16, batchOffset: 0, batchSize: 0 }
  const decoder = new ChunkDecoder('none', undefined)
  assert.throws(() => decoder.decode(new Uint8Array(16), 0, chunk, new Uint8Array(16)), { code: 'BAD_META' })
})

const INFO_BLOB: BlobInfo = {
  ...crafted({}).blob,
  features: FEATURES | BLOB_FEATURES.ENCRYPTED,
  chunkCount: 1,
  chunkSize: 0x100_0000,
  compressedSize: 2 ** 40,
  uncompressedSize: 2 ** 44,
}

/** All of it but the digest, which infos do not have. */
function shownInfo(info: Omit<ChunkInfo, 'digest'>): unknown {
  return Object.entries({ ...info, digest: undefined }).sort(([a], [b]) => (a < b ? -1 : 1))
}

test('infos of version 2 read back as they were written', () => {
  const word = fc.integer({ min: 0, max: 0xffff_ffff })
  const chunks = fc.record({
    uncompressedOffset: fc.nat(2 ** 31 - 1).map((block) => block * 4096),
    uncompressedSize: fc.integer({ min: 1, max: 0x100_0000 }),
    compressedOffset: fc.integer({ min: 0, max: 2 ** 40 - 2 ** 25 }),
    stored: fc.integer({ min: 1, max: 0xff_ffff }),
    compressed: fc.boolean(),
    encrypted: fc.boolean(),
    crc32c: fc.option(word, { nil: undefined }),
    inBatch: fc.option(fc.record({ batch: word, offset: word }), { nil: undefined }),
  })
  fc.assert(
    fc.property(chunks, ({ inBatch, stored, ...chunk }) => {
      const isRaw = inBatch === undefined && !chunk.compressed && !chunk.encrypted
      if (isRaw && chunk.uncompressedSize === 0x100_0000) return // has no place for its size
      const compressedSize = inBatch !== undefined ? 0 : isRaw ? chunk.uncompressedSize : stored
      const view = new DataView(new ArrayBuffer(24))
      encodeInfoV2({ ...chunk, index: 0, compressedSize }, inBatch, view, 0)
      const info = new ChunkInfo()
      decodeInfo(view, 0, INFO_BLOB, info)
      const { uncompressedOffset, uncompressedSize, compressedOffset, encrypted } = chunk
      assert.deepEqual(
        shownInfo(info),
        shownInfo({
          index: 0,
          batchOffset: 0,
          batchSize: 0,
          uncompressedOffset,
          uncompressedSize,
          compressedOffset,
          compressedSize,
          encrypted,
          compressed: chunk.compressed || inBatch !== undefined,
          crc32c: inBatch !== undefined || chunk.crc32c === 0 ? undefined : chunk.crc32c,
        }),
      )
    }),
  )
})

test('whatever stands in the infos and contexts of a batch blob, no chunk lies outside of it', () => {
  const bytes = fc.uint8Array({ minLength: 24, maxLength: 24 })
  fc.assert(
    fc.property(bytes, bytes, (one, two) => {
      const { blob, metaFile: file } = crafted({})
      file.set(one, 0)
      file.set(two, 24)
      // Flags that are known, sizes that may fit: else nearly all is refused at once.
      for (const at of [0, 24]) file.set([0, 0, file[at + 7] & 0x1d], at + 5)
      const info = new ChunkInfo()
      for (const index of [0, 1])
        try {
          openBatchLayout(openBlobLayout(file, blob, new Uint8Array(64)), file, blob).chunk(index, info)
          assert.ok(info.compressedOffset + info.compressedSize <= blob.compressedSize)
          assert.ok(info.uncompressedSize <= blob.chunkSize && info.batchSize <= blob.chunkSize)
          assert.ok(info.batchSize === 0 || info.batchOffset + info.uncompressedSize <= info.batchSize)
        } catch (error) {
          if (!(error instanceof BlobError)) throw error
          assert.ok(['BAD_META', 'UNSUPPORTED'].includes(error.code))
        }
    }),
    { numRuns: 2000 },
  )
})

test('a chunk in a batch of a blob that says to have none is refused', () => {
  const view = new DataView(new ArrayBuffer(24))
  encodeInfoV2(Object.assign(new ChunkInfo(), { uncompressedSize: 10 }), { batch: 0, offset: 0 }, view, 0)
  const blob = { ...INFO_BLOB, features: FEATURES & ~BLOB_FEATURES.BATCH }
  assert.throws(() => decodeInfo(view, 0, blob, new ChunkInfo()), isBadMeta)
})
