import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import * as fc from 'fast-check'
import {
  Attributes,
  dumpBootstrap,
  emptyDirectory,
  openBootstrap,
  putChild,
  RafsError,
  readTree,
  walkBootstrap,
  writeBootstrapV6,
} from './index.ts'
import { type Fixture, ownFixtures } from './testing.ts'

/** Uses all of an image as a mount would. Gives the code of the RafsError, 'fine' without one; every other exception gets out. */
function exercise(bytes: Uint8Array): string {
  try {
    const image = openBootstrap(bytes)
    image.prefetch()
    for (const index of image.blobs.keys()) image.layout(index)
    const attributes = new Attributes()
    for (const { ino } of walkBootstrap(image)) {
      image.attributes(ino, attributes)
      image.xattrs(ino)
      if ((attributes.mode & 0o170000) === 0o040000) {
        image.parent(ino)
        image.lookup(ino, Buffer.from('etc'))
      }
    }
    for (const _line of dumpBootstrap(image));
    readTree(image)
    return 'fine'
  } catch (error) {
    if (error instanceof RafsError) return error.code
    throw error
  }
}

const SMALL = ownFixtures().filter(({ bootstrap }) => readFileSync(bootstrap).length < 44_000)
/** Values that overflow, wrap, point nowhere, or at the wrong thing. */
const BAD_VALUES: readonly bigint[] = [
  0n,
  1n,
  7n,
  0x7fn,
  0xffn,
  0x1000n,
  0x1001n,
  0x7fff_ffffn,
  0x8000_0000n,
  0xffff_ffffn,
  0x1_0000_0000n,
  0x001f_ffff_ffff_ffffn,
  0x0020_0000_0000_0000n,
  0x7fff_ffff_ffff_ffffn,
  0xffff_ffff_ffff_ffffn,
]

/** Writes a value of `width` bytes over a copy. */
function withValue(bytes: Uint8Array, at: number, width: number, value: bigint): Uint8Array {
  const copy = Uint8Array.from(bytes)
  for (let index = 0; index < width && at + index < copy.length; index++)
    copy[at + index] = Number((value >> BigInt(index * 8)) & 0xffn)
  return copy
}

/** Where headers and tables of an image lie: superblocks, device slots, the first two entries of each table. */
function headerRanges(fixture: Fixture, bytes: Buffer): Array<readonly [number, number]> {
  if (fixture.id.startsWith('v5-')) {
    const tables = [32, 40, 48, 72].map((field) => Number(bytes.readBigUInt64LE(field)))
    return [[0, 88], ...tables.filter((at) => at > 0).map((at) => [at, at + 64] as const)]
  }
  const tables = [8, 24, 40].map((field) => Number(bytes.readBigUInt64LE(1152 + field)))
  const meta = bytes.readUInt32LE(1024 + 40) * 4096
  const root = meta + bytes.readUInt16LE(1024 + 14) * 32
  return [
    [1024, 1208],
    [1408, 1536],
    ...tables.filter((at) => at > 0).map((at) => [at, at + 256] as const),
    [root, root + 128],
  ]
}

for (const fixture of SMALL) {
  test(`${fixture.id} with any header field changed: refused with a code, or still a tree`, (t) => {
    const bytes = readFileSync(fixture.bootstrap)
    const seen = new Map<string, number>()
    for (const [start, end] of headerRanges(fixture, bytes)) {
      for (let at = start; at < end; at += 2) {
        for (const [width, value] of BAD_VALUES.flatMap(
          (value) =>
            [
              [2, value],
              [4, value],
              [8, value],
            ] as const,
        )) {
          if (value >> BigInt(width * 8) !== 0n && value !== 0xffff_ffff_ffff_ffffn) continue
          const outcome = exercise(withValue(bytes, at, width, value))
          seen.set(outcome, (seen.get(outcome) ?? 0) + 1)
        }
      }
    }
    t.diagnostic(JSON.stringify(Object.fromEntries(seen)))
    assert.ok(seen.size > 1)
  })

  test(`${fixture.id} cut off anywhere: refused with a code`, () => {
    const bytes = readFileSync(fixture.bootstrap)
    for (let length = 0; length < bytes.length; length += length < 2048 ? 1 : 61) {
      const outcome = exercise(bytes.subarray(0, length))
      // The last bytes may be padding that nothing refers to.
      if (length < bytes.length - 4096) assert.notEqual(outcome, 'fine', `${length} of ${bytes.length} bytes`)
    }
  })
}

test('bytes changed anywhere give a tree or a RafsError, nothing else', () => {
  const images = ownFixtures()
    .filter(({ id }) => !id.includes('merge'))
    .map(({ bootstrap }) => readFileSync(bootstrap))
  const change = fc.record({
    at: fc.nat(),
    width: fc.constantFrom(1, 2, 4, 8),
    value: fc.oneof(fc.constantFrom(...BAD_VALUES), fc.bigInt({ min: 0n, max: 0xffff_ffff_ffff_ffffn })),
  })
  fc.assert(
    fc.property(fc.nat(images.length - 1), fc.array(change, { minLength: 1, maxLength: 12 }), (which, changes) => {
      const image = images[which] ?? Buffer.alloc(0)
      let bytes: Uint8Array = image
      for (const { at, width, value } of changes) {
        // Mostly where something is: the empty areas of an image are large.
        const used = at % 3 === 0 ? at % image.length : nextUsed(image, at % image.length)
        bytes = withValue(bytes, used, width, value)
      }
      exercise(bytes)
    }),
    { numRuns: 3000 },
  )
})

function nextUsed(image: Uint8Array, from: number): number {
  for (let at = from; at < image.length; at++) if (image[at] !== 0) return at
  return from
}

test('random bytes behind a valid superblock', () => {
  const images = SMALL.map(({ bootstrap }) => readFileSync(bootstrap))
  fc.assert(
    fc.property(fc.nat(images.length - 1), fc.uint8Array({ minLength: 64, maxLength: 4096 }), (which, noise) => {
      const bytes = Uint8Array.from(images[which] ?? [])
      const start = bytes.length > 8500 && bytes[0] !== 0 ? 8192 : 4096
      for (let at = start; at < bytes.length; at++) bytes[at] = noise[at % noise.length] ?? 0
      exercise(bytes)
    }),
    { numRuns: 500 },
  )
})

test('a file that claims 2^53 bytes is refused when its chunks are asked for, without memory for them', () => {
  const fixture = SMALL.find(({ id }) => id === 'v6-upper-tar')
  assert.ok(fixture)
  const bytes = readFileSync(fixture.bootstrap)
  const image = openBootstrap(bytes)
  const attributes = new Attributes()
  const meta = bytes.readUInt32LE(1024 + 40) * 4096
  let changed = 0
  for (const { ino } of walkBootstrap(image)) {
    image.attributes(ino, attributes)
    if ((attributes.mode & 0o170000) !== 0o100000) continue
    const hostile = withValue(bytes, meta + ino * 32 + 8, 8, 0x1f_ffff_ffff_ffffn)
    const { heapUsed } = process.memoryUsage()
    assert.match(exercise(hostile), /^(BAD_CHUNK|OUT_OF_RANGE|BAD_INODE)$/)
    assert.ok(process.memoryUsage().heapUsed - heapUsed < 64 * 2 ** 20)
    changed++
  }
  assert.ok(changed > 0)
})

test('directories that share their entries do not multiply: the walk is bounded by the bytes', () => {
  // 300 directories whose dirents are all those of the first: 300 × 3000 paths in an image for 3300.
  const [first, root] = [emptyDirectory(Buffer.from('0')), emptyDirectory(new Uint8Array(0))]
  for (let index = 0; index < 3000; index++)
    putChild(first, { ...emptyDirectory(Buffer.from(`file ${index}`)), mode: 0o100644, children: undefined })
  putChild(root, first)
  for (let index = 1; index < 300; index++) putChild(root, emptyDirectory(Buffer.from(String(index))))
  const bytes = Buffer.from(
    writeBootstrapV6(
      { root, blobs: [] },
      {
        chunkSize: 4096,
        compression: 'none',
        digest: 'blake3',
        explicitOwners: true,
        alwaysXattrs: false,
        prefetch: [],
      },
    ),
  )
  const image = openBootstrap(bytes)
  assert.equal(exercise(bytes), 'fine')
  const large = (image.lookup(image.root, Buffer.from('0')) ?? 0) * 32
  for (let index = 1; index < 300; index++) {
    const at = (image.lookup(image.root, Buffer.from(String(index))) ?? 0) * 32
    bytes.copy(bytes, at, large, large + 20) // format, size and place of the data
  }
  assert.match(exercise(bytes), /^BAD_DIRECTORY|OUT_OF_RANGE$/)
  let paths = 0
  assert.throws(() => {
    for (const _entry of walkBootstrap(openBootstrap(bytes))) paths++
  }, RafsError)
  assert.ok(paths <= bytes.length / 13 + 1, `${paths} paths`)
})

test('a directory entry that says another type than its inode is refused', () => {
  const root = emptyDirectory(new Uint8Array(0))
  putChild(root, emptyDirectory(Buffer.from('d')))
  const bytes = Buffer.from(
    writeBootstrapV6(
      { root, blobs: [] },
      {
        chunkSize: 4096,
        compression: 'none',
        digest: 'blake3',
        explicitOwners: true,
        alwaysXattrs: false,
        prefetch: [],
      },
    ),
  )
  const dirents = 4096 + 64
  assert.equal(bytes[dirents + 2 * 12 + 10], 2)
  assert.equal(exercise(withValue(bytes, dirents + 2 * 12 + 10, 1, 1n)), 'BAD_DIRECTORY')
})

test('a chain of directories deeper than any path is refused', () => {
  const root = emptyDirectory(new Uint8Array(0))
  let at = root
  for (let depth = 0; depth < 300; depth++) {
    const next = emptyDirectory(Buffer.alloc(255, 'd'))
    putChild(at, next)
    at = next
  }
  const bytes = writeBootstrapV6(
    { root, blobs: [] },
    { chunkSize: 4096, compression: 'none', digest: 'blake3', explicitOwners: true, alwaysXattrs: false, prefetch: [] },
  )
  assert.equal(exercise(bytes), 'BAD_DIRECTORY')
})
