import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import {
  Attributes,
  type Bootstrap,
  ChunkSpan,
  INLINED_BLOB_ID,
  openBootstrap,
  RafsError,
  walkBootstrap,
} from './index.ts'
import { differenceFrom, type Fixture, noShared, ownFixtures, sharedFixtures } from './testing.ts'

/** Images whose bootstrap is wrong: the original's mount shows the wrong tree too, or does not mount. */
const WRONG_BY_THE_ORIGINAL: ReadonlyMap<string, string> = new Map([
  ['v5-src-implicit', 'parents that the archive does not mention: files land in the wrong directory'],
  ['v6-src-implicit', 'parents that the archive does not mention: files land in the wrong directory'],
  ['v6-tarfs-lower', 'a symlink target of 3000 bytes loses 448'],
  ['v6-merge-tarfs', 'a symlink target of 3000 bytes loses 448'],
  ['v6-optimize', 'chunk infos of the wrong version in its blob table: the original refuses it at mount'],
])

function open(fixture: Fixture): Bootstrap {
  return openBootstrap(readFileSync(fixture.bootstrap))
}

for (const fixture of ownFixtures()) {
  test(`opens ${fixture.id} and shows the tree that the original shows`, () => {
    assert.equal(differenceFrom(open(fixture), fixture.tree), undefined)
  })
}

test('opens every image of the large set; each shows its tree', { skip: noShared }, () => {
  const wrong: string[] = []
  for (const fixture of sharedFixtures()) {
    if (WRONG_BY_THE_ORIGINAL.has(fixture.id)) continue
    const difference = differenceFrom(open(fixture), fixture.tree)
    if (difference !== undefined) wrong.push(`${fixture.id}: ${difference}`)
  }
  assert.deepEqual(wrong, [])
  assert.ok(sharedFixtures().length > 100)
})

test('refuses the optimized image whose blob table contradicts itself', { skip: noShared }, () => {
  const fixture = sharedFixtures().find(({ id }) => id === 'v6-optimize')
  assert.ok(fixture)
  assert.throws(
    () => open(fixture),
    (error: unknown) => error instanceof RafsError && error.code === 'BAD_TABLE',
  )
})

for (const fixture of ownFixtures()) {
  test(`${fixture.id}: lookup, listing by cookie and parents agree with the walk`, () => {
    const image = open(fixture)
    const byPath = new Map<string, number>()
    const attributes = new Attributes()
    for (const { path, ino } of walkBootstrap(image)) {
      const text = Buffer.from(path).toString('latin1')
      byPath.set(text, ino)
      const slash = text.lastIndexOf('/')
      const directory = byPath.get(text.slice(0, slash) || '/')
      assert.ok(directory !== undefined)
      image.attributes(ino, attributes)
      if (ino === image.root) assert.equal(image.parent(ino), ino)
      else assert.equal(image.lookup(directory, path.subarray(slash + 1)), ino, text)
      if ((attributes.mode & 0o170000) !== 0o040000) continue
      if (ino !== image.root) assert.equal(image.parent(ino), directory)
      assert.deepEqual(listOneByOne(image, ino), listAtOnce(image, ino), text)
      for (const absent of ['', '.nothing', 'zzzz', '\u0001', '~~~']) {
        assert.equal(image.lookup(ino, Buffer.from(absent)), undefined)
      }
    }
  })
}

function listAtOnce(image: Bootstrap, directory: number): string[] {
  const found: string[] = []
  image.list(directory, 0, (name, ino, type) => found.push(`${Buffer.from(name).toString('hex')} ${ino} ${type}`) > 0)
  return found
}

function listOneByOne(image: Bootstrap, directory: number): string[] {
  const found: string[] = []
  for (let cookie: number | undefined = 0; cookie !== undefined; ) {
    const from: number = cookie
    cookie = undefined
    image.list(directory, from, (name, ino, type, next) => {
      found.push(`${Buffer.from(name).toString('hex')} ${ino} ${type}`)
      cookie = next
      return false
    })
  }
  return found
}

test('chunks of any part of a file are those of the whole', () => {
  for (const fixture of ownFixtures()) {
    const image = open(fixture)
    const attributes = new Attributes()
    const [whole, part]: [ChunkSpan[], ChunkSpan[]] = [[], []]
    for (const { ino } of walkBootstrap(image)) {
      image.attributes(ino, attributes)
      if ((attributes.mode & 0o170000) !== 0o100000) continue
      const { size } = attributes
      const count = image.chunks(ino, 0, size, whole)
      assert.equal(
        whole.slice(0, count).reduce((sum, span) => sum + span.length, 0),
        size,
      )
      assert.equal(image.chunks(ino, size, 10, part), 0)
      for (const [offset, length] of [
        [1, size],
        [Math.floor(size / 2), 5000],
        [size - 1, 1],
      ] as const) {
        if (offset < 0 || offset >= size) continue
        const found = image.chunks(ino, offset, length, part)
        assert.equal(
          part.slice(0, found).reduce((sum, span) => sum + span.length, 0),
          Math.min(length, size - offset),
        )
        const first = part[0]
        const same = whole.find((span) => span.chunkIndex === first?.chunkIndex && span.blobIndex === first.blobIndex)
        assert.ok(first && same)
        assert.equal(first.chunkOffset, same.chunkOffset)
        assert.equal(first.offsetInChunk, offset % image.chunkSize)
      }
    }
  }
})

test('an inlined bootstrap takes the name of the blob that it came out of', () => {
  const fixture = ownFixtures().find(({ id }) => id === 'v6-third-inline')
  assert.ok(fixture)
  const bytes = readFileSync(fixture.bootstrap)
  assert.equal(openBootstrap(bytes).blobs[0]?.id, INLINED_BLOB_ID)
  const inlinedBlobId = 'ab'.repeat(32)
  assert.equal(openBootstrap(bytes, { inlinedBlobId }).blobs[0]?.id, inlinedBlobId)
  assert.throws(() => openBootstrap(bytes, { inlinedBlobId: '../x' }), RafsError)
})

test('bytes that are no bootstrap are called that', () => {
  for (const bytes of [new Uint8Array(0), new Uint8Array(8192), Buffer.from('#!/bin/sh\n')]) {
    assert.throws(
      () => openBootstrap(bytes),
      (error: unknown) => error instanceof RafsError && error.code === 'NOT_RAFS',
    )
  }
})
