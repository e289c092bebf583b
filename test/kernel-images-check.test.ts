import assert from 'node:assert/strict'
import {
  closeSync,
  copyFileSync,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import * as fc from 'fast-check'
import { ChunkInfo } from '../src/blob/index.ts'
import { CARRIED_BLOBS, carriedImage } from '../src/daemon/testing.ts'
import { whileAlone } from '../src/kernel/index.ts'
import { dumpEntries, openBootstrap } from '../src/rafs/index.ts'
import { checkImage, type CheckAnswer } from '../src/snapshotter/kernel-images/image-check.ts'

const IMAGE = carriedImage('v6-tar-none-c64k')
const [BLOB = ''] = IMAGE.blobs
/** Source: docs/formats/rafs-v6.md, "EROFS superblock" and "Inodes": of the superblock at 1024, the first block of the meta area; of an inode, the chunk format. */
const META_BLOCK_AT = 1024 + 40
const UNION_AT = 16

interface Place {
  readonly bootstrap: Buffer
  readonly cached: (suffix: string) => string
  readonly check: (bootstrap?: Uint8Array) => Promise<CheckAnswer>
  /** What would be mounted. */
  readonly written: () => Buffer
}

function place(t: TestContext): Place {
  const directory = mkdtempSync(join(tmpdir(), 'image-check-'))
  t.after(() => rmSync(directory, { recursive: true, force: true }))
  const cached = (suffix: string): string => join(directory, BLOB + suffix)
  for (const suffix of ['.blob.data', '.blob.data.chunk_map'])
    copyFileSync(join(CARRIED_BLOBS, BLOB + suffix), cached(suffix))
  const [bootstrap, output] = [join(directory, 'bootstrap'), join(directory, 'output')]
  const original = readFileSync(IMAGE.bootstrap)
  return {
    bootstrap: original,
    cached,
    check: async (bytes = original) => {
      writeFileSync(bootstrap, bytes)
      return await checkImage({ bootstrap, output, cacheDir: directory, mapping: undefined, uid: 0, gid: 0 })
    },
    written: () => readFileSync(output),
  }
}

/** All but how long the lists of directories are, which is for the one who writes them. */
const treeOf = (bytes: Uint8Array): unknown =>
  [...dumpEntries(openBootstrap(bytes))].map((entry) => (entry.type === 'dir' ? { ...entry, size: 0 } : entry))

test('metadata for the kernel is written anew, and tells the same tree', async (t) => {
  const { bootstrap, check, written } = place(t)
  const answer = await check()
  assert.equal(answer.kind, 'fit')
  assert.deepEqual(treeOf(written()), treeOf(bootstrap))
})

test('what only the kernel would read of an image does not reach it', async (t) => {
  const { bootstrap, check, written } = place(t)
  await check()
  const clean = written()
  const image = openBootstrap(bootstrap)
  const directory = image.lookup(image.root, Buffer.from('sizes')) ?? assert.fail()
  const file = image.lookup(directory, Buffer.from('65536')) ?? assert.fail()
  const crafted = Buffer.from(bootstrap)
  const at = bootstrap.readUInt32LE(META_BLOCK_AT) * 4096 + file * 32 + UNION_AT
  // One chunk of 8 TiB: the kernel would take what lies behind the file for more of it.
  crafted.writeUInt32LE(0x3f, at)
  assert.equal((await check(crafted)).kind, 'fit')
  assert.deepEqual(written(), clean)
})

test('bootstraps with bytes changed anywhere: refused, or shown as our reader reads them; pins never stay for one that is refused', async (t) => {
  const { bootstrap, cached, check, written } = place(t)
  const counts = { fit: 0, missing: 0, busy: 0, unfit: 0, damaged: 0 }
  const changes = fc.array(fc.tuple(fc.nat(bootstrap.length - 1), fc.integer({ min: 1, max: 255 })), {
    minLength: 1,
    maxLength: 6,
  })
  await fc.assert(
    fc.asyncProperty(changes, async (changed) => {
      const crafted = Buffer.from(bootstrap)
      for (const [at, bits] of changed) crafted[at] = (crafted[at] ?? 0) ^ bits
      const answer = await check(crafted)
      counts[answer.kind] += 1
      if (answer.kind !== 'fit') assert.equal(existsSync(cached('.blob.pins')), false)
      else {
        assert.deepEqual(treeOf(written()), treeOf(crafted))
        rmSync(cached('.blob.pins'))
      }
    }),
    { numRuns: 150 },
  )
  assert.ok(counts.unfit > 20 && counts.fit > 10, JSON.stringify(counts))
})

test('a data file of another length, none at all, and bytes behind a chunk are found', async (t) => {
  const { cached, check } = place(t)
  const data = readFileSync(cached('.blob.data'))
  truncateSync(cached('.blob.data'), data.length - 4096)
  assert.equal((await check()).kind, 'unfit')
  rmSync(cached('.blob.data'))
  assert.equal((await check()).kind, 'unfit')
  const image = openBootstrap(readFileSync(IMAGE.bootstrap))
  const layout = image.layout(0)
  const info = new ChunkInfo()
  let behind = -1
  for (let index = layout.next(0); index < layout.chunkCount && behind < 0; index = layout.next(index + 1)) {
    layout.chunk(index, info)
    if (info.uncompressedSize % 4096 !== 0) behind = info.uncompressedOffset + info.uncompressedSize
  }
  assert.ok(behind > 0)
  data[behind] = 1
  writeFileSync(cached('.blob.data'), data)
  const answer = await check()
  assert.match(answer.kind === 'damaged' ? answer.why : answer.kind, /there are bytes behind its end/)
  assert.equal(existsSync(cached('.blob.pins')), false)
})

test('a data file that somebody has alone, as who frees what it takes of the disk, is looked at again', async (t) => {
  const { cached, check } = place(t)
  const fd = openSync(cached('.blob.data'), 'r+')
  let answer: Promise<CheckAnswer> | undefined
  // It is opened before the check waits for anything.
  const isAlone = whileAlone(fd, () => {
    answer = check()
  })
  closeSync(fd)
  assert.equal(isAlone, true)
  assert.equal((await answer)?.kind, 'busy')
  assert.equal((await check()).kind, 'fit')
})

test('owners that mean nothing are those of the one who serves', async (t) => {
  const { bootstrap, check, written } = place(t)
  const crafted = Buffer.from(bootstrap)
  /** Source: docs/formats/rafs-v6.md, "RAFS superblock": flags, of which 0x10 says that owners are the image's own. */
  const flags = 1152
  assert.ok((crafted.readUInt32LE(flags) & 0x10) !== 0)
  crafted.writeUInt32LE(crafted.readUInt32LE(flags) & ~0x10, flags)
  assert.equal((await check(crafted)).kind, 'fit')
  const owners = [...dumpEntries(openBootstrap(written()))].map(({ uid, gid }) => `${uid}:${gid}`)
  assert.deepEqual([...new Set(owners)], ['0:0'])
})
