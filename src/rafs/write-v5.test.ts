import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import * as fc from 'fast-check'
import {
  emptyDirectory,
  type LinkGroup,
  openBootstrap,
  putChild,
  RafsError,
  readTree,
  writeBootstrapV5,
  type WriteOptionsV5,
} from './index.ts'
import { MODE } from './mode.ts'
import { ownFixtures, plainTree, randomTree } from './testing.ts'
import { INODE, INODE_FLAGS } from './v5/layout.ts'

const DEFAULTS: WriteOptionsV5 = {
  chunkSize: 0x10_0000,
  compression: 'zstd',
  digest: 'blake3',
  explicitOwners: true,
  prefetch: [],
  source: 'archive',
}

for (const { id, bootstrap } of ownFixtures()) {
  if (!id.startsWith('v5-')) continue
  test(`writes ${id} again: every byte but the marks of hard links that lost their other names`, () => {
    const bytes = readFileSync(bootstrap)
    const image = openBootstrap(bytes)
    const flags = bytes.readUInt32LE(16)
    const again = writeBootstrapV5(readTree(image), {
      ...DEFAULTS,
      chunkSize: image.chunkSize,
      compression: (flags & 0x80) !== 0 ? 'zstd' : (flags & 0x2) !== 0 ? 'lz4_block' : 'none',
      digest: (flags & 0x8) !== 0 ? 'sha256' : 'blake3',
      explicitOwners: image.explicitOwners,
    })
    for (const copy of [bytes, again])
      for (let ino = 1; ino <= image.entryLimit; ino += 1) {
        const at = Buffer.from(copy.buffer, copy.byteOffset).readUInt32LE(8192 + (ino - 1) * 4) * 8
        copy[at + INODE.flags] &= ~INODE_FLAGS.HARDLINK
      }
    assert.equal(Buffer.compare(again, bytes), 0)
  })
}

test('what is written as v5 reads back', () => {
  fc.assert(
    fc.property(randomTree, fc.constantFrom('archive', 'directory'), ({ tree, chunkSize }, source) => {
      const digest = tree.blobs[0]?.digest ?? 'blake3'
      const bytes = writeBootstrapV5(tree, { ...DEFAULTS, chunkSize, digest, source })
      const read = openBootstrap(bytes)
      assert.deepEqual(plainTree(readTree(read)).root, plainTree(tree).root)
      assert.deepEqual(writeBootstrapV5(tree, { ...DEFAULTS, chunkSize, digest, source }), bytes)
    }),
    { numRuns: 100 },
  )
})

test('the prefetch table names the first path of a hard link', () => {
  const root = emptyDirectory(Buffer.from('/'))
  const link: LinkGroup = { id: 1 }
  const file = (name: string) => ({
    ...emptyDirectory(Buffer.from(name)),
    mode: MODE.FILE | 0o644,
    children: undefined,
    link,
  })
  const [first, second] = [file('a'), file('b')]
  putChild(root, first)
  putChild(root, second)
  const image = openBootstrap(writeBootstrapV5({ root, blobs: [] }, { ...DEFAULTS, prefetch: [second, root] }))
  assert.deepEqual(image.prefetch(), [2, 1])
  assert.equal(image.inodeCount, 2)
})

test('refuses a file whose chunks do not cover it, and names it', () => {
  const root = emptyDirectory(Buffer.from('/'))
  putChild(root, { ...emptyDirectory(Buffer.from('torn')), mode: MODE.FILE | 0o644, children: undefined, size: 5 })
  assert.throws(
    () => writeBootstrapV5({ root, blobs: [] }, DEFAULTS),
    (error: unknown) => error instanceof RafsError && error.code === 'BAD_CHUNK' && error.message.includes('torn'),
  )
})
