import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import * as fc from 'fast-check'
import { Attributes, dumpBootstrap, dumpEntries, openBootstrap } from '../rafs/index.ts'
import { BuilderError, checkBootstrap, compareWithImage, mergeImages, readSourceTree } from './index.ts'
import { type ArchiveEntry, buildTar, contentOf, DEFAULTS, inPieces, tarOf } from './testing.ts'

const MiB = 1024 * 1024
const file = (path: string, content: Uint8Array | string, more: Partial<ArchiveEntry> = {}): ArchiveEntry => ({
  path,
  content: Buffer.from(content),
  ...more,
})
const directory = (path: string, more: Partial<ArchiveEntry> = {}): ArchiveEntry => ({
  path,
  type: 'directory',
  ...more,
})
const hasCode =
  (code: string) =>
  (error: unknown): boolean =>
    error instanceof BuilderError && error.code === code

test('an empty archive is an image with nothing but its root', async () => {
  const built = await buildTar(new Uint8Array(1024))
  assert.equal(built.blobSize, 0)
  assert.equal(built.blobMeta, undefined)
  assert.deepEqual(built.blobs, [])
  assert.equal([...dumpBootstrap(openBootstrap(built.bootstrap))].length, 1)
})

test('plain, gzip and zstd archives give the same bytes, in any pieces', async () => {
  const archive = await tarOf([
    directory('a'),
    file('a/random', randomBytes(3 * MiB)),
    file('a/text', 'text '.repeat(MiB)),
    file('b', 'b'),
  ])
  const plain = await buildTar(archive)
  for (const compressed of [
    gzipSync(archive),
    zstdCompressSync(archive),
    Buffer.concat([gzipSync(archive.subarray(0, 1000)), gzipSync(archive.subarray(1000))]),
  ]) {
    const built = await buildTar(compressed)
    assert.ok(built.blob.equals(plain.blob))
    assert.deepEqual(built.bootstrap, plain.bootstrap)
  }
})

test('files that share content are stored once, in one layer and across layers', async () => {
  const shared = randomBytes(2 * MiB + 5)
  const first = await buildTar(await tarOf([file('a', shared), file('b', shared)]))
  assert.equal(first.counts.storedBytes, shared.length)
  assert.equal(first.counts.duplicateChunks, 3)
  const lower = openBootstrap(first.bootstrap)
  const second = await buildTar(await tarOf([file('c', shared), file('d', 'own')]), { parent: lower })
  assert.equal(second.counts.storedBytes, 3)
  const image = openBootstrap(second.bootstrap)
  assert.deepEqual(
    image.blobs.map(({ id }) => id),
    [lower.blobs[0]?.id, second.blobId],
  )
  for (const path of ['a', 'b', 'c']) assert.ok(contentOf(image, [first.blob, second.blob], path).equals(shared), path)
  assert.equal(contentOf(image, [first.blob, second.blob], 'd').toString(), 'own')
})

test('a layer over a parent: whiteouts, opaque directories, replaced types', async () => {
  const lower = await buildTar(
    await tarOf([
      directory('d'),
      file('d/gone', '1'),
      file('d/kept', '2'),
      directory('o'),
      file('o/hidden', '3'),
      directory('t'),
      file('t/x', '4'),
      file('u', '5'),
    ]),
  )
  const upper = await tarOf([
    file('d/.wh.gone', ''),
    directory('o'),
    file('o/.wh..wh..opq', ''),
    file('o/new', '6'),
    file('t', 'now a file'),
    directory('u'),
    file('u/y', '7'),
  ])
  const built = await buildTar(upper, { parent: openBootstrap(lower.bootstrap) })
  const image = openBootstrap(built.bootstrap)
  const paths = [...dumpBootstrap(image)].map((line) => (JSON.parse(line) as { path: string }).path).sort()
  assert.deepEqual(paths, ['/', '/d', '/d/kept', '/o', '/o/new', '/t', '/u', '/u/y'])
  assert.equal(contentOf(image, [lower.blob, built.blob], 't').toString(), 'now a file')
  assert.deepEqual([...checkBootstrap(image)], [])
})

test('hard links before their targets, and chains of them', async () => {
  const built = await buildTar(
    await tarOf([
      { path: 'a', type: 'hardlink', link: 'b' },
      { path: 'b', type: 'hardlink', link: 'd/c' },
      file('d/c', 'content'),
      { path: 'e', type: 'hardlink', link: 'a' },
    ]),
  )
  const image = openBootstrap(built.bootstrap)
  const attributes = new Attributes()
  for (const path of ['a', 'b', 'd/c', 'e']) assert.equal(contentOf(image, [built.blob], path).toString(), 'content')
  image.attributes(image.lookup(image.root, Buffer.from('a')) ?? 0, attributes)
  assert.equal(attributes.nlink, 4)
})

test('a tree 400 directories deep', async () => {
  const deep = Array.from({ length: 400 }, (_unused, depth) => `level-${depth}`).join('/')
  const built = await buildTar(await tarOf([file(`${deep}/leaf`, 'here')]))
  assert.equal(contentOf(openBootstrap(built.bootstrap), [built.blob], `${deep}/leaf`).toString(), 'here')
})

test('100,000 files in one directory', async () => {
  const one = (await tarOf([file('d/000000', 'x')])).subarray(0, 1024)
  const archive = Buffer.alloc(1024 * 100_000 + 1024)
  for (let i = 0; i < 100_000; i += 1) {
    one.copy(archive, i * 1024)
    archive.write(`d/${String(i).padStart(6, '0')}`, i * 1024, 'latin1')
    archive.fill(0x20, i * 1024 + 148, i * 1024 + 156)
    const sum = archive.subarray(i * 1024, i * 1024 + 512).reduce((total, byte) => total + byte, 0)
    archive.write(`${sum.toString(8).padStart(6, '0')}\0 `, i * 1024 + 148, 'latin1')
  }
  const built = await buildTar(archive)
  const image = openBootstrap(built.bootstrap)
  assert.equal(image.inodeCount, 100_002)
  assert.equal(built.counts.storedBytes, 1)
  assert.equal(contentOf(image, [built.blob], 'd/077777').toString(), 'x')
})

test('a sparse file of 5 GB costs its data, not its holes', async () => {
  // GNU's PAX form 1.0: the map is at the head of the content.
  const size = 5_000_000_000
  const map = Buffer.alloc(512)
  map.write(`1\n${size - 4}\n4\n`)
  const records = [
    'GNU.sparse.major=1',
    'GNU.sparse.minor=0',
    'GNU.sparse.name=big',
    `GNU.sparse.realsize=${size}`,
  ].map((record) => {
    const length = record.length + 2
    const digits = String(length + String(length).length).length
    return `${length + digits} ${record}\n`
  })
  const body = Buffer.from(records.join(''))
  const extension = (await tarOf([file('PaxHeader', body)])).subarray(0, -1024)
  extension[156] = 0x78
  extension.fill(0x20, 148, 156)
  extension.write(
    `${extension
      .subarray(0, 512)
      .reduce((total, byte) => total + byte, 0)
      .toString(8)
      .padStart(6, '0')}\0 `,
    148,
    'latin1',
  )
  const stored = await tarOf([file('GNUSparseFile.0/big', Buffer.concat([map, Buffer.from('tail')]))])
  const built = await buildTar(Buffer.concat([extension, stored]))
  const image = openBootstrap(built.bootstrap)
  const attributes = new Attributes()
  image.attributes(image.lookup(image.root, Buffer.from('big')) ?? assert.fail(), attributes)
  assert.equal(attributes.size, size)
  assert.ok(built.counts.storedBytes <= 2 * MiB)
})

/** Names and contents of one random archive; a path that comes twice is replaced. */
const entries = fc.array(
  fc.record({
    directory: fc.constantFrom('', 'a/', 'a/b/', 'c/', 'ä/', './a/'),
    name: fc.constantFrom('x', 'y', 'z', '-', 'ü'),
    kind: fc.constantFrom('file', 'file', 'file', 'symlink', 'fifo', 'char'),
    size: fc.oneof(fc.nat(20), fc.constantFrom(4095, 4096, 4097, 12_288, 20_000)),
    seed: fc.nat(5),
    mode: fc.nat(0o7777),
    uid: fc.nat(0xffff_ffff),
    mtimeSeconds: fc.integer({ min: -5, max: 2 ** 33 }),
    xattr: fc.option(fc.uint8Array({ maxLength: 40 }), { nil: undefined }),
  }),
  { maxLength: 25 },
)

test('random archives read back', async () => {
  await fc.assert(
    fc.asyncProperty(
      entries,
      fc.constantFrom('none', 'zstd', 'lz4_block'),
      fc.boolean(),
      async (list, compression, inlineBootstrap) => {
        const archive: ArchiveEntry[] = []
        const wanted = new Map<string, ArchiveEntry>()
        for (const { directory: prefix, name, kind, size, seed, xattr, ...rest } of list) {
          const xattrs = xattr === undefined ? [] : [{ name: Buffer.from('user.x'), value: xattr }]
          const base = { ...rest, path: `${prefix}${name}`, xattrs } satisfies ArchiveEntry
          const entry: ArchiveEntry =
            kind === 'file'
              ? { ...base, content: Buffer.alloc(size, `pattern ${seed} `) }
              : kind === 'symlink'
                ? { ...base, type: 'symlink', link: `to-${seed}` }
                : kind === 'fifo'
                  ? { ...base, type: 'fifo' }
                  : { ...base, type: 'char', devMajor: seed, devMinor: size }
          archive.push(entry)
          wanted.set(base.path.replace('./', ''), entry)
        }
        const built = await buildTar(await tarOf(archive), {
          compression,
          chunkSize: 4096,
          inlineBootstrap,
          blobToc: inlineBootstrap,
        })
        const image = openBootstrap(built.bootstrap)
        assert.deepEqual([...checkBootstrap(image)], [])
        const attributes = new Attributes()
        for (const [path, entry] of wanted) {
          let ino = image.root
          for (const name of path.split('/')) ino = image.lookup(ino, Buffer.from(name)) ?? assert.fail(path)
          image.attributes(ino, attributes)
          assert.deepEqual(
            [attributes.mode & 0o7777, attributes.uid, attributes.mtime],
            [entry.mode, entry.uid, entry.mtimeSeconds],
            path,
          )
          assert.deepEqual(
            image.xattrs(ino).map(({ value }) => [...value]),
            (entry.xattrs ?? []).map(({ value }) => [...value]),
            path,
          )
          if (entry.content !== undefined) assert.ok(contentOf(image, [built.blob], path).equals(entry.content), path)
          if (entry.link !== undefined) assert.equal(Buffer.from(image.readlink(ino)).toString(), entry.link)
        }
      },
    ),
    { numRuns: 80 },
  )
})

test('layers converted and merged equal their source; what differs is told', async () => {
  const layers = [
    await tarOf([
      directory('d'),
      file('d/a', 'a'.repeat(9000)),
      file('d/gone', 'x'),
      { path: 'd/link', type: 'hardlink', link: 'd/a' },
    ]),
    await tarOf([
      file('d/.wh.gone', ''),
      file('d/b', 'b', { xattrs: [{ name: Buffer.from('user.k'), value: Buffer.from('v') }] }),
    ]),
  ]
  const options = { chunkSize: 4096, whiteoutSpec: 'none', inlineBootstrap: true, blobToc: true } as const
  const built = await Promise.all(layers.map((layer) => buildTar(layer, options)))
  const merged = mergeImages(
    built.map(({ bootstrap, blobId }, at) => ({
      name: `layer ${at}`,
      image: openBootstrap(bootstrap, { inlinedBlobId: blobId }),
      blobId: undefined,
      blobSize: undefined,
      tocDigest: undefined,
      tocSize: undefined,
    })),
    { parent: undefined, dictionary: undefined, whiteoutSpec: 'oci', prefetchPaths: [] },
  )
  const image = openBootstrap(merged.bootstrap)
  const { signal } = new AbortController()
  const source = await readSourceTree(
    layers.map((layer) => () => inPieces(layer)),
    { chunkSize: 4096, digest: 'blake3', signal },
  )
  assert.deepEqual([...compareWithImage(source, image)], [])
  const other = await readSourceTree([() => inPieces(layers[0] ?? assert.fail())], {
    chunkSize: 4096,
    digest: 'blake3',
    signal,
  })
  assert.deepEqual(
    [...compareWithImage(other, image)]
      .map(({ object, message }) => `${object} ${message}`)
      .filter((line) => !line.includes('time')),
    ['"/d/gone" it is missing in the image', '"/d/b" the source does not have it'],
  )
})

test('a signal ends a build with its reason', async () => {
  const archive = await tarOf([file('a', randomBytes(20 * MiB))])
  const abort = new AbortController()
  const stream = async function* (): AsyncGenerator<Uint8Array> {
    for await (const piece of inPieces(archive, MiB)) {
      yield piece
      abort.abort(new Error('enough'))
    }
  }
  const { buildLayer } = await import('./index.ts')
  await assert.rejects(buildLayer(stream(), { ...DEFAULTS, signal: abort.signal, sink: () => undefined }), /enough/)
})

test('an error of the sink ends the build', async () => {
  const { buildLayer } = await import('./index.ts')
  const archive = await tarOf([file('a', randomBytes(20 * MiB))])
  const sink = (): Promise<void> => Promise.reject(new Error('no space'))
  await assert.rejects(
    buildLayer(inPieces(archive), { ...DEFAULTS, signal: new AbortController().signal, sink }),
    /no space/,
  )
})

test('what no image can hold is refused with a code', async () => {
  const long = 'x'.repeat(256)
  const cases: ReadonlyArray<readonly [ArchiveEntry[], string]> = [
    [[file('../x', 'y')], 'BAD_SOURCE'],
    [[file('a/../../x', 'y')], 'BAD_SOURCE'],
    [[file(long, 'y')], 'BAD_SOURCE'],
    [[{ path: 'l', type: 'symlink', link: 'x'.repeat(4096) }], 'BAD_SOURCE'],
    [[{ path: 'h', type: 'hardlink', link: 'nowhere' }], 'BAD_SOURCE'],
    [[{ path: 'h', type: 'hardlink', link: 'h' }], 'BAD_SOURCE'],
    [[directory('d'), { path: 'h', type: 'hardlink', link: 'd' }], 'BAD_SOURCE'],
    [[file('f', 'x'), file('f/below', 'y')], 'BAD_SOURCE'],
    [[{ path: 'l', type: 'symlink', link: 'l' }, file('l/below', 'y')], 'BAD_SOURCE'],
    [[file('x', '', { xattrs: [{ name: Buffer.from('wrong.x'), value: Buffer.alloc(1) }] })], 'BAD_SOURCE'],
    [[{ path: 'c', type: 'char', devMajor: 5000 }], 'BAD_SOURCE'],
  ]
  for (const [list, code] of cases)
    await assert.rejects(buildTar(await tarOf(list)), hasCode(code), JSON.stringify(list[0]).slice(0, 100))
})

test('damaged archives are refused with a code, or build', async () => {
  const archive = await tarOf([
    directory('a'),
    file('a/b', randomBytes(5000)),
    { path: 'l', type: 'symlink', link: 'a/b' },
    file('z', 'end', { xattrs: [{ name: Buffer.from('user.x'), value: Buffer.alloc(9) }] }),
  ])
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(archive, gzipSync(archive), zstdCompressSync(archive)),
      fc.nat(),
      fc.nat(255),
      fc.boolean(),
      async (whole, at, byte, cut) => {
        const bytes = Buffer.from(cut ? whole.subarray(0, at % whole.length) : whole)
        if (!cut) bytes[at % bytes.length] = byte
        try {
          await buildTar(bytes, { chunkSize: 4096 })
        } catch (error) {
          assert.ok(error instanceof BuilderError, String(error))
        }
      },
    ),
    { numRuns: 300 },
  )
})

for (const version of [5, 6] as const) {
  test(`hard links of devices and FIFOs are one inode in RAFS v${version}`, async () => {
    const archive = await tarOf([
      { path: 'disk', type: 'block', devMajor: 8, devMinor: 1 },
      { path: 'disk-again', type: 'hardlink', link: 'disk' },
      { path: 'pipe', type: 'fifo' },
      { path: 'pipe-again', type: 'hardlink', link: 'pipe' },
    ])
    const { bootstrap } = await buildTar(archive, { version })
    const links = [...dumpEntries(openBootstrap(bootstrap))].map(({ path, nlink, hardlink }) => [path, nlink, hardlink])
    assert.deepEqual(links.slice(1), [
      ['/disk', 2, '/disk'],
      ['/disk-again', 2, '/disk'],
      ['/pipe', 2, '/pipe'],
      ['/pipe-again', 2, '/pipe'],
    ])
  })
}
