import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { gunzipSync } from 'node:zlib'
import * as fc from 'fast-check'
import { BoltFile, Bucket } from './bolt-file.ts'
import { readGoTime, readUvarint, readVarint, writeGoTime, writeUvarint, writeVarint } from './go-values.ts'
import { checksum, META, PAGE } from './layout.ts'
import { type BoltTree, boltBytes } from './write-bolt.ts'

const folder = mkdtempSync(join(tmpdir(), 'bolt-'))
after(() => rmSync(folder, { recursive: true }))
const ORIGINAL = gunzipSync(readFileSync(join(import.meta.dirname, '../testdata/metadata.db.gz')))

type Plain = { [key: string]: string | Plain }

function opened<T>(bytes: Uint8Array, use: (file: BoltFile) => T): T {
  const path = join(folder, 'file.db')
  writeFileSync(path, bytes)
  const file = new BoltFile(path)
  try {
    return use(file)
  } finally {
    file.close()
  }
}

function plain(bucket: Bucket): Plain {
  const entries = [...bucket.read()].map(([key, value]) => [
    key,
    value instanceof Bucket ? plain(value) : Buffer.from(value).toString('latin1'),
  ])
  return Object.fromEntries(entries) as Plain
}

function tree(content: Plain, sequence = 0): BoltTree {
  const bytes = (text: string) => Buffer.from(text, 'latin1')
  const entries = Object.entries(content).map(
    ([key, value]) => [bytes(key), typeof value === 'string' ? bytes(value) : tree(value)] as const,
  )
  return { entries, sequence }
}

test("the original's file is read", () => {
  const content = opened(ORIGINAL, (file) => plain(file.root()))
  const v1 = content['v1'] as Plain
  assert.deepEqual(Object.keys(v1), ['parents', 'snapshots'])
  assert.deepEqual(
    Object.keys(v1['snapshots'] as Plain).filter((key) => key.startsWith('k8s.io/')),
    ['k8s.io/4/sha256:5fcf259cfbc6021768837cd9639db2ab9c193452ef3ad9040b718b30d39d13fa', 'k8s.io/5/first'],
  )
})

test('what is written reads back, whatever the sizes of keys, values and buckets', () => {
  const key = fc.oneof(fc.string({ minLength: 1, maxLength: 20, unit: 'binary-ascii' }), fc.constant('k'.repeat(3000)))
  const value = fc.oneof(
    fc.string({ maxLength: 50, unit: 'binary-ascii' }),
    fc.nat(20_000).map((size) => 'v'.repeat(size)),
  )
  const { node } = fc.letrec<{ node: Plain }>((tie) => ({
    node: fc.dictionary(key, fc.oneof({ maxDepth: 3, withCrossShrink: true }, value, tie('node')), {
      maxKeys: 30,
      noNullPrototype: true,
    }),
  }))
  fc.assert(
    fc.property(node, fc.integer({ min: 1, max: 1000 }), (content, transaction) => {
      const bytes = boltBytes(tree(content), transaction)
      opened(bytes, (file) => {
        assert.equal(file.transaction, transaction)
        assert.deepEqual(plain(file.root()), content)
      })
    }),
    { numRuns: 100 },
  )
})

test('many entries make several levels of pages, in order', () => {
  const content = Object.fromEntries(
    Array.from({ length: 5000 }, (_, i) => [`key ${String(i).padStart(8, '0')}`, String(i)]),
  )
  const bytes = boltBytes({ entries: [[Buffer.from('many'), tree(content, 77)]] }, 3)
  opened(bytes, (file) => {
    const many = file.root().read().get('many')
    assert.ok(many instanceof Bucket)
    assert.equal(many.sequence, 77)
    assert.deepEqual(plain(many), content)
  })
})

test('of two heads the newer whole one counts', () => {
  const bytes = Buffer.from(ORIGINAL)
  const transaction = opened(bytes, (file) => file.transaction)
  const newer = (transaction % 2) * 4096 + PAGE.size
  bytes.writeUInt32LE(0, newer + META.version)
  assert.equal(
    opened(bytes, (file) => file.transaction),
    transaction - 1,
  )
  const first = Buffer.concat([Buffer.alloc(4096, 0xff), ORIGINAL.subarray(4096)])
  const second = Buffer.concat([ORIGINAL.subarray(0, 4096), Buffer.alloc(4096, 0xff), ORIGINAL.subarray(8192)])
  assert.deepEqual(
    [first, second].map((torn) => opened(torn, (file) => file.transaction)).sort((a, b) => a - b),
    [transaction - 1, transaction],
  )
})

/** The file with another root page. */
function rooted(change: (bytes: Buffer, root: number) => void): Buffer {
  const bytes = Buffer.from(boltBytes(tree({ a: { x: 'y'.repeat(3000) }, b: { x: 'y'.repeat(3000) } }), 2))
  const root = Number(bytes.readBigUInt64LE(PAGE.size + META.root))
  change(bytes, root)
  for (const at of [PAGE.size, 4096 + PAGE.size])
    bytes.writeBigUInt64LE(checksum(bytes.subarray(at, at + META.checksum)), at + META.checksum)
  return bytes
}

/** Changes both heads. */
function head(field: keyof typeof META, value: bigint): Buffer {
  return rooted((bytes) => {
    for (const at of [0, 4096]) bytes.writeBigUInt64LE(value, at + PAGE.size + META[field])
  })
}

test('damaged files are refused with what is wrong and what to do', () => {
  const at = (page: number, offset: number) => page * 4096 + offset
  const cases: [string, Buffer, RegExp][] = [
    ['empty', Buffer.alloc(0), /neither of its two heads/],
    ['text', Buffer.from('not a database'.repeat(1000)), /neither of its two heads/],
    ['cut', ORIGINAL.subarray(0, 9000), /it ends at 9000/],
    ['root far away', head('root', 1n << 40n), /page 1099511627776 is not between/],
    ['root beyond numbers', head('root', (1n << 64n) - 1n), /has the number 18446744073709551615/],
    ['no pages', head('highWater', 2n), /is not between 2 and 2/],
    [
      'two buckets, one page',
      rooted((bytes, root) => {
        const value = at(root, PAGE.size + 2 * 16 + 1)
        bytes.copyWithin(at(root, PAGE.size + 2 * 16 + 1 + 16 + 1), value, value + 16)
      }),
      /reached twice/,
    ],
    [
      'a bucket in itself',
      rooted((bytes, root) => bytes.writeBigUInt64LE(BigInt(root), at(root, PAGE.size + 33))),
      /reached twice/,
    ],
    ['too many entries', rooted((bytes, root) => bytes.writeUInt16LE(65_535, at(root, PAGE.count))), /more than fit/],
    [
      'entry past the end',
      rooted((bytes, root) => bytes.writeUInt32LE(0xffff_fff0, at(root, PAGE.size + 4))),
      /past the end/,
    ],
    [
      'overflow past the end',
      rooted((bytes, root) => bytes.writeUInt32LE(0xffff_ffff, at(root, PAGE.overflow))),
      /past the last page/,
    ],
    ['another page', rooted((bytes, root) => bytes.writeBigUInt64LE(9n, at(root, PAGE.id))), /says it is another/],
    ['no leaf', rooted((bytes, root) => bytes.writeUInt16LE(4, at(root, PAGE.flags))), /neither a leaf nor a branch/],
    [
      'a branch to itself',
      rooted((bytes, root) => {
        bytes.writeUInt16LE(1, at(root, PAGE.flags))
        bytes.writeUInt16LE(1, at(root, PAGE.count))
        bytes.writeBigUInt64LE(BigInt(root), at(root, PAGE.size + 8))
      }),
      /reached twice/,
    ],
  ]
  for (const [name, bytes, message] of cases)
    assert.throws(() => opened(bytes, (file) => plain(file.root())), { code: 'BAD_STATE', message }, name)
})

test('a file that somebody has open is refused at once', () => {
  opened(ORIGINAL, () => {
    assert.throws(() => new BoltFile(join(folder, 'file.db')), { code: 'LOCKED', message: /another snapshotter has/ })
  })
})

test('numbers and times of Go are read and written', () => {
  fc.assert(fc.property(fc.maxSafeNat(), (value) => assert.equal(readUvarint(writeUvarint(value)), value)))
  fc.assert(fc.property(fc.maxSafeInteger(), (value) => assert.equal(readVarint(writeVarint(value)), value)))
  const time = fc.bigInt({ min: -(2n ** 62n), max: 2n ** 63n - 1n })
  fc.assert(fc.property(time, (value) => assert.equal(readGoTime(writeGoTime(value)), value)))
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 20 }), (bytes) => {
      for (const read of [readUvarint, readVarint, readGoTime]) read(bytes)
    }),
  )
  // 2022-11-24T10:00:00.5+01:00, as `time.Time.MarshalBinary` has it
  assert.equal(readGoTime(Buffer.from('010000000edb1129901dcd6500003c', 'hex')), 1669280400500000000n)
  assert.deepEqual(writeVarint(-1), Buffer.of(1))
  assert.deepEqual(writeUvarint(300), Buffer.of(0xac, 2))
})
