import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ChunkInfo } from '../blob/index.ts'
import { openBootstrap } from '../rafs/index.ts'
import { checkBootstrap } from './index.ts'
import { buildTar, tarOf } from './testing.ts'

/** Source: docs/formats/rafs-v6.md, superblock and extended inode. */
const META_BLOCK_AT = 1024 + 40
const NLINK_AT = 44
/** In the 80-byte record. Source: docs/formats/rafs-v5.md, "Chunk record". */
const RECORD_INDEX_AT = 72

test('a check counts the names of a file, also of one that says it has one', async () => {
  const archive = await tarOf([
    { path: 'a', type: 'file', mode: 0o644, content: Buffer.from('text') },
    { path: 'b', type: 'hardlink', link: 'a' },
    { path: 'c', type: 'file', mode: 0o644, content: Buffer.from('other') },
  ])
  const { bootstrap } = await buildTar(archive)
  const image = openBootstrap(bootstrap)
  assert.deepEqual([...checkBootstrap(image)], [])
  const view = new DataView(bootstrap.buffer, bootstrap.byteOffset)
  const nlinkOf = (name: string): number =>
    view.getUint32(META_BLOCK_AT, true) * 4096 + (image.lookup(image.root, Buffer.from(name)) ?? 0) * 32 + NLINK_AT
  for (const [name, claimed, found] of [
    ['a', 1, 2],
    ['a', 3, 2],
    ['c', 0, 1],
    ['c', 2, 1],
  ] as const) {
    const before = view.getUint32(nlinkOf(name), true)
    view.setUint32(nlinkOf(name), claimed, true)
    assert.deepEqual(
      [...checkBootstrap(image)].map(({ message }) => message),
      [`it says it has ${claimed} links; ${found} were found`],
    )
    view.setUint32(nlinkOf(name), before, true)
  }
})

test('a check tells of a chunk that the image has no record of, which no reader could get', async () => {
  const archive = await tarOf(['a', 'b'].map((path) => ({ path, content: Buffer.alloc(5000, path) })))
  const { bootstrap } = await buildTar(archive)
  const image = openBootstrap(bootstrap)
  const info = new ChunkInfo()
  image.layout(0).chunk(1, info)
  const record = Buffer.from(bootstrap.buffer, bootstrap.byteOffset, bootstrap.length).indexOf(info.digest)
  assert.ok(record > 0)
  new DataView(bootstrap.buffer, bootstrap.byteOffset).setUint32(record + RECORD_INDEX_AT, 0, true)
  const findings = [...checkBootstrap(openBootstrap(bootstrap))]
  const about = findings.filter(({ message }) => message.includes('of which the image has no record'))
  assert.deepEqual(
    about.map(({ part, object }) => [part, object]),
    [['chunks', '"/b"']],
  )
  assert.match(
    about[0]?.message ?? '',
    new RegExp(`^chunk 0 is number 1 of blob ${image.blobs[0]?.id}, .* build or optimize`),
  )
})
