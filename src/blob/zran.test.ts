import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BLOB_FEATURES, type BlobInfo } from './index.ts'
import { encodeMetaFile, encodeMetaHeader } from './blob-meta.ts'
import { ZranIndex, zranMetaFileSize } from './zran.ts'

const CHUNKS = 3
const CONTEXTS_AT = CHUNKS * 24
const WINDOW = 1000

interface Crafted {
  /** Of context 1. */
  readonly compressedOffset?: bigint
  readonly compressedSize?: number
  readonly windowAt?: bigint
  readonly window?: number
  /** Of chunk 2. */
  readonly context?: number
  readonly offset?: number
  readonly isZran?: boolean
  /** Of the header. */
  readonly contexts?: number
  readonly contextsAt?: bigint
  readonly contextsSize?: bigint
}

/** Two slices of 5000 plain bytes; chunks 0 and 1 are in the first, chunk 2 in the second; 2000 bytes each. */
function metaOf(crafted: Crafted = {}): { bytes: Uint8Array; blob: BlobInfo } {
  const contextsSize = 2 * 40 + WINDOW
  const infos = Buffer.alloc(CONTEXTS_AT + contextsSize)
  for (let chunk = 0; chunk < CHUNKS; chunk += 1) {
    const isLast = chunk === 2
    infos.writeUInt32LE(chunk, chunk * 24)
    infos.writeUInt32LE(1999, chunk * 24 + 4)
    infos.writeUInt8(isLast && crafted.isZran === false ? 0 : 2, chunk * 24 + 7)
    infos.writeUInt32LE(isLast ? (crafted.offset ?? 0) : chunk * 2000, chunk * 24 + 16)
    infos.writeUInt32LE(isLast ? (crafted.context ?? 1) : 0, chunk * 24 + 20)
  }
  infos.writeUInt32LE(400, CONTEXTS_AT + 24)
  infos.writeUInt32LE(5000, CONTEXTS_AT + 28)
  const second = CONTEXTS_AT + 40
  infos.writeBigUInt64LE(crafted.compressedOffset ?? 400n, second)
  infos.writeBigUInt64LE(crafted.windowAt ?? 0n, second + 16)
  infos.writeUInt32LE(crafted.compressedSize ?? 600, second + 24)
  infos.writeUInt32LE(5000, second + 28)
  infos.writeUInt32LE(crafted.window ?? WINDOW, second + 32)
  infos.writeUInt8(0xa5, second + 36)
  infos.writeUInt8(3, second + 37)
  const features = BLOB_FEATURES.ZRAN | BLOB_FEATURES.CHUNK_INFO_V2 | BLOB_FEATURES.SEPARATE
  const blob: BlobInfo = {
    index: 0,
    id: 'layer',
    features,
    chunkSize: 0x1000,
    chunkCount: CHUNKS,
    compression: 'gzip',
    digest: 'sha256',
    compressedSize: 1000,
    uncompressedSize: 3 * 4096,
    prefetchSize: 0,
    metaOffset: 0,
    metaCompressedSize: infos.length,
    metaUncompressedSize: infos.length,
    metaCompression: 'none',
    tocSize: 0,
    tocDigest: undefined,
  }
  const header = Buffer.from(
    encodeMetaHeader({
      features,
      compression: 'none',
      entries: CHUNKS,
      offset: 0,
      compressedSize: infos.length,
      uncompressedSize: infos.length,
    }),
  )
  header.writeBigUInt64LE(crafted.contextsAt ?? BigInt(CONTEXTS_AT), 40)
  header.writeBigUInt64LE(crafted.contextsSize ?? BigInt(contextsSize), 48)
  header.writeUInt32LE(crafted.contexts ?? 2, 56)
  return { bytes: encodeMetaFile(infos, header), blob }
}

function open(crafted?: Crafted): ZranIndex {
  const { bytes, blob } = metaOf(crafted)
  return new ZranIndex(bytes, blob)
}

test('tells the slice of each chunk, and how to inflate it', () => {
  const index = open()
  assert.deepEqual(
    [0, 1, 2].map((chunk) => [index.contextOf(chunk), index.offsetOf(chunk, 2000)]),
    [
      [0, 0],
      [0, 2000],
      [1, 0],
    ],
  )
  const { dictionary, ...context } = index.context(1)
  assert.deepEqual(context, { compressedOffset: 400, compressedSize: 600, uncompressedSize: 5000, bits: 3, byte: 0xa5 })
  assert.equal(dictionary.length, WINDOW)
})

for (const [what, crafted] of [
  ['a slice beyond the blob', { compressedSize: 601 }],
  ['a slice at 2^63', { compressedOffset: 1n << 63n }],
  ['a slice of 300 MiB', { compressedOffset: 0n, compressedSize: 300 << 20 }],
  ['a window over 32 KiB', { window: 32_769 }],
  ['a window beyond the area', { windowAt: 1n }],
  ['a window at 2^63', { windowAt: 1n << 63n }],
  ['contexts elsewhere', { contextsAt: 0n }],
  ['contexts beyond the infos', { contextsSize: 1n << 40n }],
  ['more contexts than fit', { contexts: 0xffff_ffff }],
  ['more contexts than chunks', { contexts: 4, contextsSize: 1080n }],
] as const) {
  test(`refuses ${what}`, () => {
    assert.throws(() => open(crafted), { name: 'BlobError', code: 'BAD_META' })
  })
}

for (const [what, crafted, size] of [
  ['a chunk of a context that is not there', { context: 2 }, 2000],
  ['a chunk beyond the end of its slice', { offset: 3001 }, 2000],
  ['a chunk at 2^32 in its slice', { offset: 0xffff_ffff }, 2000],
  ['a chunk of no context', { isZran: false }, 2000],
  ['a chunk of another size than the bootstrap has', {}, 1999],
] as const) {
  test(`refuses ${what}, and only that`, () => {
    const index = open(crafted)
    assert.throws(() => index.offsetOf(2, size), { name: 'BlobError', code: 'BAD_META' })
    assert.equal(index.offsetOf(1, 2000), 2000)
  })
}

test('refuses chunks that are not there, files of another length, and contexts too large to read', () => {
  const { bytes, blob } = metaOf()
  for (const chunk of [-1, 3]) assert.throws(() => open().contextOf(chunk), { code: 'OUT_OF_RANGE' })
  assert.throws(() => new ZranIndex(bytes.subarray(1), blob), { code: 'BAD_META' })
  assert.throws(() => zranMetaFileSize({ ...blob, metaUncompressedSize: 2 ** 40 }), { code: 'BAD_META' })
})
