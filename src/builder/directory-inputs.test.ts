/** Directories as people have them: what is in them is in the image, in both versions of RAFS. */
import assert from 'node:assert/strict'
import { closeSync, mkdirSync, openSync, readFileSync, symlinkSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { ChunkDecoder, ChunkInfo } from '../blob/index.ts'
import { changeOwner, makeNode, setTimes, setXattr } from '../kernel/index.ts'
import { Attributes, type Bootstrap, type ChunkSpan, dumpEntries, openBootstrap } from '../rafs/index.ts'
import { buildImage, type BuiltImage, checkBootstrap, type ImageSource } from './index.ts'
import { contentOf, DEFAULTS, tarOf, temporary } from './testing.ts'

const noRoot = process.getuid?.() === 0 ? false : 'only root gives files away'
const anyBytes = Buffer.from(Array.from({ length: 255 }, (_unused, at) => (at + 1 === 0x2f ? 0x41 : at + 1)))
const GIB = 2 ** 30

interface Built {
  readonly built: BuiltImage
  readonly image: Bootstrap
  readonly blob: Buffer
}

async function build(t: TestContext, source: ImageSource, version: 5 | 6): Promise<Built> {
  const place = { kind: 'directory', path: temporary(t) } as const
  const built = await buildImage(
    source,
    { blob: place, bootstrap: place },
    { ...DEFAULTS, version },
    { signal: t.signal, onBytes: () => undefined },
  )
  const blob = built.blobPath === undefined ? Buffer.alloc(0) : readFileSync(built.blobPath)
  return { built, image: openBootstrap(readFileSync(built.bootstrapPath ?? '')), blob }
}

function tree(t: TestContext): string {
  const path = join(temporary(t), 'tree')
  mkdirSync(path)
  return path
}

/** Bytes of a file's part, out of the chunks that it lies in. */
function rangeOf({ image, blob }: Built, path: string, offset: number, length: number): Buffer {
  const ino = image.lookup(image.root, Buffer.from(path)) ?? assert.fail(`${path} is not there`)
  const spans: ChunkSpan[] = []
  const count = image.chunks(ino, offset, length, spans)
  const info = new ChunkInfo()
  const parts = spans.slice(0, count).map(({ chunkIndex, offsetInChunk, length: part }) => {
    image.layout(0).chunk(chunkIndex, info)
    const plain = Buffer.alloc(info.uncompressedSize)
    const { compressedOffset, compressedSize } = info
    const stored = blob.subarray(compressedOffset, compressedOffset + compressedSize)
    new ChunkDecoder(image.blobs[0]?.compression ?? 'none', undefined).decode(stored, compressedOffset, info, plain)
    return plain.subarray(offsetInChunk, offsetInChunk + part)
  })
  return Buffer.concat(parts)
}

for (const version of [5, 6] as const) {
  test(`RAFS v${version}: a socket, a FIFO and a device of a directory stay what they are`, {
    skip: noRoot,
  }, async (t) => {
    const path = tree(t)
    makeNode(join(path, 'socket'), 0o140640, 0)
    makeNode(join(path, 'fifo'), 0o010600, 0)
    makeNode(join(path, 'device'), 0o020644, 0x0103)
    const { image } = await build(t, { kind: 'directory', path }, version)
    const attributes = new Attributes()
    const found = ['socket', 'fifo', 'device'].map((name) => {
      image.attributes(image.lookup(image.root, Buffer.from(name)) ?? assert.fail(name), attributes)
      return [attributes.mode, attributes.rdev]
    })
    assert.deepEqual(found, [
      [0o140640, 0],
      [0o010600, 0],
      [0o020644, 0x0103],
    ])
    assert.deepEqual([...checkBootstrap(image)], [])
  })

  test(`RAFS v${version}: owners over 65,535, times before 1970 and after 2106, in a directory`, {
    skip: noRoot,
  }, async (t) => {
    const path = tree(t)
    for (const [name, time] of [
      ['old', -86_400],
      ['late', 2 ** 33],
    ] as const) {
      writeFileSync(join(path, name), name)
      changeOwner(join(path, name), 4_294_967_294, 70_000)
      setTimes(join(path, name), time, 500)
    }
    const { image } = await build(t, { kind: 'directory', path }, version)
    const entries = new Map([...dumpEntries(image)].map((entry) => [entry.path, entry]))
    const shown = ['/old', '/late'].map((at) => {
      const { mtime, uid, gid } = entries.get(at) ?? assert.fail(at)
      return [mtime, uid, gid]
    })
    assert.deepEqual(shown, [
      [-86_400, 4_294_967_294, 70_000],
      [2 ** 33, 4_294_967_294, 70_000],
    ])
  })

  test(`RAFS v${version}: a name of 255 bytes of any value, the longest target, an xattr, in a directory`, async (t) => {
    const path = tree(t)
    writeFileSync(Buffer.concat([Buffer.from(`${path}/`), anyBytes]), 'content')
    symlinkSync('x'.repeat(4095), join(path, 'link'))
    writeFileSync(join(path, 'marked'), '')
    const value = Buffer.alloc(3000, 7)
    setXattr(join(path, 'marked'), `user.${'n'.repeat(250)}`, value)
    const { image } = await build(t, { kind: 'directory', path }, version)
    assert.ok(image.lookup(image.root, anyBytes) !== undefined)
    assert.equal(image.readlink(image.lookup(image.root, Buffer.from('link')) ?? assert.fail('link')).length, 4095)
    const [xattr] = image.xattrs(image.lookup(image.root, Buffer.from('marked')) ?? assert.fail('marked'))
    assert.equal(Buffer.from(xattr?.name ?? []).toString(), `user.${'n'.repeat(250)}`)
    assert.ok(value.equals(xattr?.value ?? Buffer.alloc(0)))
  })

  test(`RAFS v${version}: an empty directory, and 1,000 directories in each other`, async (t) => {
    const empty = await build(t, { kind: 'directory', path: tree(t) }, version)
    assert.deepEqual([empty.image.inodeCount, empty.built.blobPath], [1, undefined])
    const path = tree(t)
    const deep = Array.from({ length: 1000 }, () => 'd').join('/')
    mkdirSync(join(path, deep), { recursive: true })
    writeFileSync(join(path, deep, 'leaf'), 'content')
    const { image, blob } = await build(t, { kind: 'directory', path }, version)
    assert.equal(contentOf(image, [blob], `${deep}/leaf`).toString(), 'content')
  })

  test(`RAFS v${version}: a file of 5 GB reads back at both ends and around 4 GiB`, async (t) => {
    const path = tree(t)
    const size = 5_000_000_001
    const marks = [0, 4 * GIB - 5, 4 * GIB, size - 11].map(
      (at) => [at, Buffer.from(`at ${at}`.padEnd(11).slice(0, 11))] as const,
    )
    const file = openSync(join(path, 'large'), 'w')
    for (const [at, mark] of marks) writeSync(file, mark, 0, mark.length, at)
    closeSync(file)
    const built = await build(t, { kind: 'directory', path }, version)
    const { image } = built
    assert.deepEqual([...checkBootstrap(image)], [])
    const attributes = new Attributes()
    image.attributes(image.lookup(image.root, Buffer.from('large')) ?? assert.fail('large'), attributes)
    assert.equal(attributes.size, size)
    const [start, before, behind, end] = marks
    assert.ok(start !== undefined && before !== undefined && behind !== undefined && end !== undefined)
    assert.ok(rangeOf(built, 'large', 0, 12).equals(Buffer.concat([start[1], Buffer.alloc(1)])))
    const across = Buffer.concat([Buffer.alloc(1), before[1].subarray(0, 5), behind[1], Buffer.alloc(1)])
    assert.ok(rangeOf(built, 'large', 4 * GIB - 6, across.length).equals(across))
    assert.ok(rangeOf(built, 'large', size - 12, 12).equals(Buffer.concat([Buffer.alloc(1), end[1]])))
    assert.ok(rangeOf(built, 'large', 3 * GIB, 100).equals(Buffer.alloc(100)))
    assert.ok(built.blob.length < 64 * 1024)
  })
}

test('attributes that images cannot hold are left out, and one warning names the first', async (t) => {
  const tar = join(temporary(t), 'layer.tar')
  const xattr = (name: string, size = 4): { name: Buffer; value: Buffer } => ({
    name: Buffer.from(name),
    value: Buffer.alloc(size, 1),
  })
  writeFileSync(
    tar,
    await tarOf([
      { path: 'a', content: Buffer.from('a'), xattrs: [xattr('com.apple.provenance'), xattr('user.kept')] },
      { path: 'b', content: Buffer.from('b'), xattrs: [xattr('user.large', 65_536)] },
      { path: 'c', content: Buffer.from('c'), xattrs: [xattr('system.nfs4_acl')] },
      { path: 'd', content: Buffer.from('d'), xattrs: [xattr(`user.${'n'.repeat(251)}`), xattr('user.\0')] },
    ]),
  )
  const { built, image } = await build(t, { kind: 'tar', path: tar }, 6)
  assert.deepEqual(built.warnings, [
    'the image cannot hold all of its source; left out: the extended attribute "com.apple.provenance" of "a" (images hold user.*, trusted.*, security.* and POSIX ACLs), and 4 more of such',
  ])
  const names = ['a', 'b', 'c', 'd'].map((path) =>
    image
      .xattrs(image.lookup(image.root, Buffer.from(path)) ?? assert.fail(path))
      .map(({ name }) => Buffer.from(name).toString()),
  )
  assert.deepEqual(names, [['user.kept'], [], [], []])
})

test('a source that is a symlink, or a file, is told before anything is written', async (t) => {
  const path = tree(t)
  const [link, file] = [`${path}-link`, `${path}-file`]
  symlinkSync(path, link)
  writeFileSync(file, 'content')
  const refused = { code: 'BAD_SOURCE', message: /tree-link" is no directory but a symlink; name what it points to$/ }
  await assert.rejects(build(t, { kind: 'directory', path: link }, 6), refused)
  await assert.rejects(build(t, { kind: 'directory', path: file }, 6), { message: /tree-file" is no directory$/ })
  const { image } = await build(t, { kind: 'directory', path: `${link}/` }, 6)
  assert.deepEqual([...dumpEntries(image)].length, 1)
})
