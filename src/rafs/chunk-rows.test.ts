import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BLOB_FEATURES } from '../blob/index.ts'
import {
  chunkWindows,
  type ChunkSpan,
  emptyDirectory,
  openBootstrap,
  type RafsChunk,
  writeBootstrapV6,
} from './index.ts'
import { someBlob, someChunk } from './testing.ts'

const DEFAULTS = {
  chunkSize: 4096,
  explicitOwners: true,
  compression: 'zstd',
  digest: 'blake3',
  prefetch: [],
  alwaysXattrs: false,
} as const
/** As many chunks as a blob may claim. */
const CLAIMED = 1 << 24

function chunk(blobIndex: number, index: number): RafsChunk {
  return { ...someChunk(blobIndex, index % 40, 4096), index }
}

test('a layout leads from one described chunk to the next, whatever the blob claims', () => {
  const file = { ...emptyDirectory(Buffer.from('f')), mode: 0o100644, children: undefined }
  for (const numbers of [[0, 1, 2, 5], [3], [7, 2000, 1_000_000, CLAIMED - 1]]) {
    const root = emptyDirectory(new Uint8Array(0))
    const chunks = numbers.map((index, i) => ({ ...someChunk(0, i, 4096), index }))
    root.children = [{ ...file, chunks, size: chunks.length * 4096 }]
    const blob = {
      ...someBlob(0, 4096, 40),
      chunkCount: CLAIMED,
      metaCompressedSize: 16,
      metaUncompressedSize: 16 * CLAIMED,
    }
    const layout = openBootstrap(writeBootstrapV6({ root, blobs: [blob] }, DEFAULTS)).layout(0)
    const found: number[] = []
    for (let index = layout.next(0); index < layout.chunkCount; index = layout.next(index + 1)) found.push(index)
    assert.deepEqual(found, numbers)
    assert.deepEqual(
      [...numbers, 4, 9, CLAIMED].map((index) => layout.has(index)),
      [...numbers.map(() => true), false, false, false],
    )
  }
})

test('a crafted dictionary of 254 blobs that claim 16,777,216 chunks each is listed by its records', () => {
  const root = emptyDirectory(new Uint8Array(0))
  const chunks = Array.from({ length: 254 }, (_unused, blob) => chunk(blob, CLAIMED - 1 - blob))
  root.children = [
    {
      ...emptyDirectory(Buffer.from('chunkdict')),
      mode: 0o100644,
      children: undefined,
      chunks,
      size: chunks.length * 4096,
    },
  ]
  const blobs = chunks.map((_chunk, index) => {
    const blob = someBlob(index, 4096, 40)
    return { ...blob, features: blob.features | BLOB_FEATURES.CHUNKDICT_GENERATED, chunkCount: CLAIMED }
  })
  const image = openBootstrap(writeBootstrapV6({ root, blobs }, DEFAULTS))
  const ino = image.lookup(image.root, Buffer.from('chunkdict')) ?? assert.fail()
  const spans: ChunkSpan[] = []
  assert.deepEqual([...chunkWindows(image, ino, chunks.length * 4096, spans)], [254])
  assert.deepEqual(
    spans.map(({ chunkIndex }) => chunkIndex),
    chunks.map(({ index }) => index),
  )
})
