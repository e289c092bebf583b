/** Layers that refer to a gzip file: what is built, read back; what cannot be referred to. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import { BLOB_FEATURES, type BlobInfo, ChunkInfo, readZranMeta, type ZranContext, ZranIndex } from '../blob/index.ts'
import { digester, inflateSlice } from '../codec/index.ts'
import {
  Attributes,
  type Bootstrap,
  type ChunkSpan,
  isType,
  MODE,
  openBootstrap,
  walkBootstrap,
} from '../rafs/index.ts'
import { ChunkDictionary, type KnownChunk } from './dictionary.ts'
import { checkBootstrap, mergeImages, type LayerOptions } from './index.ts'
import { type ArchiveEntry, type BuiltForTest, buildTar, sha256, tarOf } from './testing.ts'

const REFERENCE: Partial<LayerOptions> = { reference: true, digest: 'sha256' }

/** Bytes of four bits, so that gzip halves them. */
function content(seed: number, size: number): Buffer {
  const bytes = Buffer.alloc(size)
  let state = seed * 2_654_435_761 + 1
  for (let at = 0; at < size; at += 1) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0
    bytes[at] = (state >>> 24) & 0x0f
  }
  return bytes
}

const FILES: ReadonlyArray<readonly [string, Buffer]> = [
  ['empty', Buffer.alloc(0)],
  ['one', content(1, 1)],
  ['block', content(2, 512)],
  ['large', content(3, 3_300_000)],
  ['same', content(3, 3_300_000)],
  ['zeros', Buffer.alloc(2_500_000)],
  ...Array.from({ length: 40 }, (_unused, at) => [`small-${at}`, content(at + 10, 100 + at * 1713)] as const),
  ['last', content(4, 1_048_576)],
]

const archive = await tarOf([
  { path: 'd/', type: 'directory' },
  ...FILES.map(([name, bytes]): ArchiveEntry => ({ path: `d/${name}`, content: bytes })),
  { path: 'hard', type: 'hardlink', link: 'd/large' },
  { path: 'link', type: 'symlink', link: 'd/one' },
])

/** Each header and each content in a member of its own, as eStargz has it; contents end where members do. */
function inMembers(tar: Buffer): Buffer {
  const members: Buffer[] = []
  for (let at = 0; at < tar.length; ) {
    const size = Number.parseInt(tar.toString('latin1', at + 124, at + 135), 8) || 0
    const padded = Math.ceil(size / 512) * 512
    for (const part of [
      tar.subarray(at, at + 512),
      tar.subarray(at + 512, at + 512 + size),
      Buffer.alloc(padded - size),
    ])
      if (part.length > 0) members.push(gzipSync(part))
    at += 512 + padded
  }
  return Buffer.concat(members)
}

/** Every file's bytes through the compression context, each chunk's digest compared. */
async function filesOf(image: Bootstrap, index: number, stored: Buffer, layer: Buffer): Promise<Map<string, Buffer>> {
  const blob = image.blobs[index] ?? assert.fail('no such blob')
  const contexts = new ZranIndex(
    await readZranMeta(blob, async (offset, into) => into.set(stored.subarray(offset, offset + into.length))),
    blob,
  )
  const [attributes, info, spans] = [new Attributes(), new ChunkInfo(), [] as ChunkSpan[]]
  const files = new Map<string, Buffer>()
  const slices = Array.from({ length: contexts.contextCount }, (_unused, at) => inflated(contexts.context(at), layer))
  for (const { path, ino } of walkBootstrap(image)) {
    image.attributes(ino, attributes)
    if (!isType(attributes.mode, MODE.FILE)) continue
    const count = image.chunks(ino, 0, attributes.size, spans)
    const own = spans.slice(0, count).filter(({ blobIndex }) => blobIndex === index)
    const parts = own.map(({ chunkIndex }) => {
      image.layout(index).chunk(chunkIndex, info)
      const at = contexts.offsetOf(info.index, info.uncompressedSize)
      const slice = slices[contexts.contextOf(info.index)] ?? assert.fail('no such slice')
      return verified(slice.subarray(at, at + info.uncompressedSize), info)
    })
    if (own.length === count) files.set(Buffer.from(path).toString(), Buffer.concat(parts))
  }
  return files
}

function inflated(
  { compressedOffset, compressedSize, uncompressedSize, ...start }: ZranContext,
  layer: Buffer,
): Buffer {
  const plain = Buffer.alloc(uncompressedSize)
  const slice = new Uint8Array(layer.subarray(compressedOffset, compressedOffset + compressedSize))
  inflateSlice(slice, start, plain.length, (part, offset) => plain.set(part, offset))
  return plain
}

function verified(chunk: Buffer, info: ChunkInfo): Buffer {
  const found = new Uint8Array(32)
  digester('sha256').digest(chunk, found)
  assert.deepEqual(found, info.digest)
  return chunk
}

async function assertHolds(built: BuiltForTest, layer: Buffer): Promise<BlobInfo> {
  const image = openBootstrap(built.bootstrap, { inlinedBlobId: built.blobId })
  assert.deepEqual([...checkBootstrap(image)], [])
  const files = await filesOf(image, 0, built.blob, layer)
  for (const [name, bytes] of FILES) assert.ok(files.get(`/d/${name}`)?.equals(bytes) === true, name)
  assert.ok(files.get('/hard')?.equals(content(3, 3_300_000)))
  return image.blobs[0] ?? assert.fail('no blob')
}

for (const [name, layer] of [
  ['one member', gzipSync(archive)],
  ['stored blocks', gzipSync(archive, { level: 0 })],
  ['a member for every header and content', inMembers(archive)],
] as const) {
  test(`files come back out of the layer: ${name}`, async () => {
    const built = await buildTar(layer, REFERENCE)
    const blob = await assertHolds(built, layer)
    assert.equal(blob.id, sha256(layer))
    assert.equal(blob.compressedSize, layer.length)
    assert.equal(blob.compression, 'gzip')
    const kind = BLOB_FEATURES.ZRAN | BLOB_FEATURES.SEPARATE | BLOB_FEATURES.CHUNK_INFO_V2
    assert.equal(blob.features, BLOB_FEATURES.CAP_TAR_TOC | BLOB_FEATURES.ALIGNED | kind)
    assert.deepEqual([blob.metaBlobId, blob.metaBlobSize], [built.blobId, built.blob.length])
    // 4 chunks twice and a chunk of zeros twice are there once.
    assert.equal(built.counts.duplicateChunks, 5)
    // Again, in other pieces.
    const again = await buildTar(Buffer.from(layer), REFERENCE)
    assert.ok(again.blob.equals(built.blob) && Buffer.from(again.bootstrap).equals(built.bootstrap))
  })
}

test('with the bootstrap inside and a table of contents', async () => {
  const layer = gzipSync(archive)
  const built = await buildTar(layer, { ...REFERENCE, inlineBootstrap: true, blobToc: true })
  const blob = await assertHolds(built, layer)
  assert.deepEqual([blob.id, blob.metaBlobId], [sha256(layer), built.blobId])
  assert.equal(blob.features, 0x7000_003f)
})

test('merges with other layers; every blob keeps its kind', async () => {
  const layer = gzipSync(archive)
  const reference = await buildTar(layer, { ...REFERENCE, inlineBootstrap: true, blobToc: true })
  const upper = await buildTar(await tarOf([{ path: 'd/one', content: content(77, 4000) }]), { digest: 'sha256' })
  const facts = { blobSize: undefined, tocDigest: undefined, tocSize: undefined }
  const merged = mergeImages(
    [
      {
        ...facts,
        name: 'lower',
        image: openBootstrap(reference.bootstrap, { inlinedBlobId: reference.blobId }),
        blobId: 'other',
      },
      { ...facts, name: 'upper', image: openBootstrap(upper.bootstrap), blobId: upper.blobId },
    ],
    { parent: undefined, dictionary: undefined, whiteoutSpec: 'oci', prefetchPaths: [] },
  )
  const image = openBootstrap(merged.bootstrap)
  const index = image.blobs.findIndex(({ id }) => id === sha256(layer))
  const blob = image.blobs[index] ?? assert.fail('the layer is not in the table')
  assert.deepEqual([blob.metaBlobId, blob.compressedSize], [reference.blobId, layer.length])
  const files = await filesOf(image, index, reference.blob, layer)
  for (const [name, bytes] of FILES) assert.equal(files.get(`/d/${name}`)?.equals(bytes) ?? false, name !== 'one', name)
})

test('chunks of a dictionary are not referred to again', async () => {
  const known = await buildTar(await tarOf([{ path: 'known', content: content(3, 3_300_000) }]), { digest: 'sha256' })
  const image = openBootstrap(known.bootstrap)
  const layout = image.layout(0)
  const chunks = Array.from({ length: layout.chunkCount }, (_unused, index): KnownChunk => {
    const chunk = new ChunkInfo()
    layout.chunk(index, chunk)
    return Object.assign(chunk, { blobIndex: 0 })
  })
  const layer = gzipSync(archive)
  const built = await buildTar(layer, { ...REFERENCE, dictionary: new ChunkDictionary(image.blobs, chunks) })
  assert.deepEqual(built.blobs.map(({ id }) => id).sort(), [known.blobId, sha256(layer)].sort())
  const own = openBootstrap(built.bootstrap)
  const files = await filesOf(
    own,
    built.blobs.findIndex(({ id }) => id === sha256(layer)),
    built.blob,
    layer,
  )
  assert.ok(files.get('/d/last')?.equals(content(4, 1_048_576)))
  assert.equal(files.has('/d/large'), false)
})

test('a layer without data has no blob, and is fine', async () => {
  const built = await buildTar(gzipSync(await tarOf([{ path: 'd/', type: 'directory' }])), REFERENCE)
  assert.deepEqual([built.blobs.length, built.blob.length], [0, 0])
  assert.deepEqual([...checkBootstrap(openBootstrap(built.bootstrap))], [])
})

test('what is damaged, or no gzip, is refused', async () => {
  const tar = await tarOf([{ path: 'file', content: content(5, 300_000) }])
  const layer = gzipSync(tar)
  const flipped = Buffer.from(layer)
  flipped[100_000] = (flipped[100_000] ?? 0) ^ 0x10
  for (const [bytes, code, message] of [
    [zstdCompressSync(tar), 'UNSUPPORTED', /compressed with zstd/],
    [flipped, 'BAD_SOURCE', /not a valid deflate stream|checksum|no tar|tar/],
    [layer.subarray(0, 100_000), 'BAD_SOURCE', /it ends within/],
    [layer.subarray(0, layer.length - 4), 'BAD_SOURCE', /it ends within a gzip member/],
    [layer.subarray(0, 5), 'BAD_SOURCE', /it ends within a gzip member/],
    [Buffer.concat([layer, Buffer.from('garbage')]), 'BAD_SOURCE', /not a valid deflate stream/],
    [Buffer.concat([layer, Buffer.alloc(1000)]), 'BAD_SOURCE', /not a valid deflate stream/],
  ] as const)
    await assert.rejects(buildTar(bytes, REFERENCE), { code, message })
  await assert.rejects(buildTar(layer, { ...REFERENCE, version: 5 }), { code: 'BAD_OPTION' })
  await assert.rejects(buildTar(layer, { ...REFERENCE, digest: 'blake3' }), { code: 'BAD_OPTION' })
})
