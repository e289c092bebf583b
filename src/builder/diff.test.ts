import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import * as fc from 'fast-check'
import { type BlobInfo, BLOB_FEATURES } from '../blob/index.ts'
import {
  emptyDirectory,
  openBootstrap,
  RafsError,
  type RafsChunk,
  type RafsNode,
  writeBootstrapV5,
  writeBootstrapV6,
} from '../rafs/index.ts'
import { type DiffSummary, diffImages, type PathDifference } from './diff.ts'
import type { NamedImage } from './fetch-cost.ts'

const CHUNK = 4096
const IMAGES = join(import.meta.dirname, '../rafs/testdata')
const SHARED = join(import.meta.dirname, '../../../shared/fixtures/images')
const noShared = existsSync(SHARED) ? false : 'no ../shared/fixtures beside the repository'

function blob(id: string, chunkCount = 64): BlobInfo {
  return {
    index: 0,
    id: id.repeat(64).slice(0, 64),
    features: BLOB_FEATURES.ALIGNED | BLOB_FEATURES.HAS_TAR_HEADER,
    chunkSize: CHUNK,
    chunkCount,
    compression: 'zstd',
    digest: 'blake3',
    compressedSize: chunkCount * 100,
    uncompressedSize: chunkCount * CHUNK,
    prefetchSize: 0,
    metaOffset: chunkCount * 100,
    metaCompressedSize: chunkCount * 16,
    metaUncompressedSize: chunkCount * 16,
    metaCompression: 'none',
    tocSize: 0,
    tocDigest: undefined,
  }
}

/** Chunk `index` of the blob in that place of the table: 100 bytes stored, its content told by `content`. */
function chunk(index: number, content: number, blobIndex = 0): RafsChunk {
  const digest = new Uint8Array(32)
  new DataView(digest.buffer).setUint32(0, content + 1)
  return {
    blobIndex,
    index,
    digest,
    compressedOffset: index * 100,
    compressedSize: 100,
    uncompressedOffset: index * CHUNK,
    uncompressedSize: CHUNK,
    compressed: true,
    encrypted: false,
    crc32c: undefined,
  }
}

function node(name: string, members: Partial<RafsNode> = {}): RafsNode {
  return { ...emptyDirectory(Buffer.from(name)), mode: 0o100644, children: undefined, ...members }
}

function file(name: string, chunks: readonly RafsChunk[], members: Partial<RafsNode> = {}): RafsNode {
  return node(name, { chunks, size: chunks.length * CHUNK, ...members })
}

function directory(name: string, children: RafsNode[]): RafsNode {
  return { ...emptyDirectory(Buffer.from(name)), children }
}

function image(
  name: string,
  children: RafsNode[],
  { version = 6, blobs = [blob('a')], owners = true, chunkSize = CHUNK } = {},
): NamedImage {
  const tree = { root: directory('', children), blobs: blobs.map((one, index) => ({ ...one, index, chunkSize })) }
  const options = { chunkSize, compression: 'zstd', digest: 'blake3', explicitOwners: owners } as const
  const bytes =
    version === 5
      ? writeBootstrapV5(tree, { ...options, source: 'archive', prefetch: [] })
      : writeBootstrapV6(tree, { ...options, alwaysXattrs: false, prefetch: [] })
  return { name, image: openBootstrap(bytes) }
}

function compared(a: NamedImage, b: NamedImage): { readonly told: string[]; readonly summary: DiffSummary } {
  const found: PathDifference[] = []
  const walk = diffImages(a, b)
  let next = walk.next()
  for (; next.done !== true; next = walk.next()) if (next.value !== undefined) found.push(next.value)
  return { told: found.map(({ path, change, parts }) => [change, path, ...parts].join(' ')), summary: next.value }
}

const one = [chunk(0, 0)]
const CHANGES: ReadonlyArray<readonly [string, RafsNode[], RafsNode[], string[]]> = [
  ['nothing', [file('f', one)], [file('f', one)], []],
  ['a new path', [], [file('f', one)], ['added /f']],
  ['a lost directory', [directory('d', [file('f', one)])], [], ['removed /d', 'removed /d/f']],
  ['content of one size', [file('f', one)], [file('f', [chunk(1, 1)])], ['changed /f content']],
  ['equal content in another place', [file('f', one)], [file('f', [chunk(1, 0)])], []],
  ['a size', [file('f', one)], [file('f', one, { size: 9 })], ['changed /f content']],
  ['a type', [file('f', one)], [directory('f', [])], ['changed /f type mode']],
  ['a mode', [node('f')], [node('f', { mode: 0o104755 })], ['changed /f mode']],
  ['an owner', [node('f')], [node('f', { gid: 7 })], ['changed /f owner']],
  ['nanoseconds', [node('f')], [node('f', { mtimeNsec: 1 })], ['changed /f mtime']],
  [
    'an xattr',
    [node('f', { xattrs: [{ name: Buffer.from('user.a'), value: Buffer.from('1') }] })],
    [node('f', { xattrs: [{ name: Buffer.from('user.a'), value: Buffer.from('2') }] })],
    ['changed /f xattrs'],
  ],
  [
    'a target',
    [node('l', { mode: 0o120777, target: Buffer.from('x') })],
    [node('l', { mode: 0o120777, target: Buffer.from('y') })],
    ['changed /l target'],
  ],
  [
    'a device',
    [node('c', { mode: 0o020600, rdev: 1 })],
    [node('c', { mode: 0o020600, rdev: 2 })],
    ['changed /c device'],
  ],
  [
    'names beside directories of a like name',
    [file('a.b', one), directory('a', [file('b', one)])].reverse(),
    [directory('a', [file('b', one)])],
    ['removed /a.b'],
  ],
]

describe('a comparison of images finds', () => {
  for (const [what, a, b, wanted] of CHANGES) {
    for (const versions of [
      [6, 6],
      [5, 5],
      [5, 6],
    ] as const) {
      test(`${what}, v${versions[0]} against v${versions[1]}`, () => {
        const { told, summary } = compared(
          image('a', a, { version: versions[0] }),
          image('b', b, { version: versions[1] }),
        )
        assert.deepEqual(told, wanted)
        assert.equal(summary.paths.added + summary.paths.removed + summary.paths.changed, wanted.length)
      })
    }
  }

  test('hard links that became files of their own', () => {
    const link = { id: 1 }
    const linked = [file('f', one, { link }), file('g', one, { link })]
    const { told } = compared(image('a', linked), image('b', [file('f', one), file('g', one)]))
    assert.deepEqual(told, ['changed /f links', 'changed /g links'])
  })

  test('no owners where one image has none', () => {
    const { told } = compared(image('a', [node('f', { uid: 3 })]), image('b', [node('f')], { owners: false }))
    assert.deepEqual(told, [])
  })

  test('that files cut into chunks of other sizes cannot be compared, but those of one chunk can', () => {
    const small = { ...chunk(0, 0), uncompressedSize: 9 }
    const cut = [file('long', [chunk(1, 1), chunk(2, 2)]), file('short', [small], { size: 9 })]
    const whole = [
      file('long', [{ ...chunk(1, 9), uncompressedSize: 2 * CHUNK }], { size: 2 * CHUNK }),
      file('short', [small], { size: 9 }),
    ]
    const { told } = compared(image('a', cut), image('b', whole, { chunkSize: 2 * CHUNK }))
    assert.deepEqual(told, ['changed /long content_unknown'])
  })
})

describe('what a node fetches anew', () => {
  test('is what A does not use of the blob that both have, and all of other blobs', () => {
    const a = image('a', [file('f', [chunk(0, 0), chunk(1, 1)])])
    const files = [file('f', [chunk(0, 0), chunk(2, 2)]), file('g', [chunk(0, 1, 1), chunk(1, 8, 1), chunk(0, 1, 1)])]
    const { summary } = compared(a, image('b', files, { blobs: [blob('a'), blob('b')] }))
    assert.deepEqual(summary.fetch, {
      total: { chunks: 4, storedBytes: 400, plainBytes: 4 * CHUNK },
      missing: { chunks: 3, storedBytes: 300, plainBytes: 3 * CHUNK },
      elsewhere: { chunks: 1, storedBytes: 100, plainBytes: CHUNK },
    })
    assert.deepEqual(summary.blobs, { shared: [blob('a').id], onlyA: [], onlyB: [blob('b').id] })
  })

  test('equals a count by sets, whatever files share', () => {
    const chunks = fc.array(fc.tuple(fc.nat(1), fc.nat(15)), { maxLength: 40 })
    fc.assert(
      fc.property(chunks, chunks, (inA, inB) => {
        const files = (used: Array<[number, number]>): RafsNode[] => [
          file(
            'f',
            used.map(([place, index]) => chunk(index, place * 7 + index, place)),
          ),
        ]
        const blobs = [blob('a'), blob('b')]
        const { summary } = compared(image('a', files(inA), { blobs }), image('b', files(inB), { blobs }))
        const [known, wanted] = [inA, inB].map((used) => new Set(used.map(String)))
        assert.equal(summary.fetch.total.chunks, wanted?.size)
        assert.equal(summary.fetch.missing.chunks, [...(wanted ?? [])].filter((one) => known?.has(one) !== true).length)
        assert.equal(summary.fetch.missing.storedBytes, summary.fetch.missing.chunks * 100)
      }),
      { numRuns: 200 },
    )
  })

  test('of parts of a gzip stream that overlap counts their bytes once', () => {
    const parts = [0, 1, 2].map((index) => ({ ...chunk(index, index), compressedOffset: index * 40 }))
    assert.equal(compared(image('a', []), image('b', [file('f', parts)])).summary.fetch.missing.storedBytes, 180)
  })
})

test('an image compared with itself is the same, and nothing is to be fetched', () => {
  for (const name of readdirSync(IMAGES).filter((one) => one.endsWith('.bootstrap'))) {
    const bytes = readFileSync(join(IMAGES, name))
    const [a, b] = ['a', 'b'].map((side) => ({ name: side, image: openBootstrap(bytes) }))
    assert.ok(a !== undefined && b !== undefined)
    const { told, summary } = compared(a, b)
    assert.deepEqual([told, summary.fetch.missing.chunks], [[], 0], name)
  }
})

describe('images of the original', { skip: noShared }, () => {
  const open = (name: string): NamedImage => ({
    name,
    image: openBootstrap(readFileSync(join(SHARED, name, 'bootstrap'))),
  })

  for (const [a, b, wanted] of [
    ['v6-tar-zstd', 'v5-tar-zstd', []],
    ['v6-tar-zstd', 'v6-tar-zstd-batch', []],
    ['v5-tar-zstd', 'v6-merge1', []],
    // Other chunks, other digests, or none at all; and a long target of which the original lost a part.
    ['v6-tar-lz4-sha256', 'v5-tar-none-c64k', ['content_unknown']],
    ['v6-tar-none-c64k', 'v5-tar-lz4-aligned', ['content_unknown']],
    ['v6-tar-zstd', 'v6-zran-gzip', ['content_unknown']],
    ['v6-tar-zstd', 'v6-tarfs-lower', ['content_unknown', 'target']],
  ] as const) {
    test(`of one tree differ in nothing that can be known: ${a} and ${b}`, () => {
      const { summary } = compared(open(a), open(b))
      const parts = Object.entries(summary.parts).filter(([, count]) => count > 0)
      assert.deepEqual(
        parts.map(([part]) => part),
        wanted,
      )
      assert.equal(summary.paths.added + summary.paths.removed, 0)
    })
  }

  test('with batches: their bytes are told from the places where they begin', () => {
    const batched = open('v6-tar-zstd-batch')
    const { summary } = compared(open('v6-empty'), batched)
    assert.equal(summary.fetch.missing.storedBytes, batched.image.blobs[0]?.compressedSize)
  })
})

test('damaged images end in a coded error that names the image', () => {
  const bytes = readFileSync(join(IMAGES, 'v6-upper-tar.bootstrap'))
  const good = { name: 'good', image: openBootstrap(bytes) }
  let refused = 0
  for (let at = 1024; at < bytes.length; at += 64) {
    const damaged = Buffer.from(bytes)
    damaged[at] = (damaged[at] ?? 0) ^ 0x80
    let bad: NamedImage
    try {
      bad = { name: 'bad', image: openBootstrap(damaged) }
    } catch (error) {
      assert.ok(error instanceof RafsError)
      continue
    }
    for (const pair of [
      [good, bad],
      [bad, good],
    ] as const) {
      try {
        compared(pair[0], pair[1])
      } catch (error) {
        assert.ok(error instanceof RafsError && error.message.startsWith('bad: '), String(error))
        refused += 1
      }
    }
  }
  assert.ok(refused > 20, `${refused}`)
})
