import assert from 'node:assert/strict'
import { test } from 'node:test'
import { gzipSync } from 'node:zlib'
import { GzipCursor, inflateSlice } from '../codec/index.ts'
import { BlobError } from './errors.ts'
import { CONTEXT } from './zran.ts'
import { type SliceLimits, type ZranPlace, ZranSlicer } from './zran-slicer.ts'

/** Bytes that compress to about half, the same in each run. */
function content(size: number, seed = 1): Buffer {
  const bytes = Buffer.alloc(size)
  let state = seed
  for (let at = 0; at < size; at += 1) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0
    bytes[at] = (state >>> 24) & 0x0f
  }
  return bytes
}

interface Placed extends ZranPlace {
  readonly from: number
  readonly to: number
}

interface Sliced {
  readonly chunks: Placed[]
  readonly slicer: ZranSlicer
  readonly contexts: Buffer
  readonly dictionaries: Buffer
}

/** Reads a file: gaps and chunks in turn, of these lengths. */
function slice(file: Uint8Array, lengths: readonly number[], limits?: SliceLimits): Sliced {
  const cursor = GzipCursor.open() ?? assert.fail('zlib is here')
  const slicer = new ZranSlicer(cursor, 0x10_0000, limits)
  let fed = 0
  const feed = (): boolean => {
    if (fed >= file.length) return false
    cursor.feed(file.subarray(fed, fed + 65_536))
    fed += 65_536
    return true
  }
  const pass = (length: number): number => {
    const into = new Uint8Array(length)
    let filled = 0
    do filled += cursor.read(into.subarray(filled))
    while (filled < length && feed())
    return filled
  }
  const chunks: Placed[] = []
  let at = 0
  for (const [index, length] of lengths.entries()) {
    if (index % 2 === 1) {
      while (!slicer.begin()) if (!cursor.enterMember()) assert.ok(feed())
      assert.equal(pass(length), length)
      chunks.push({ ...slicer.end(), from: at, to: at + length })
    } else pass(length)
    at += length
  }
  while (pass(1 << 20) > 0);
  slicer.finish()
  const bytes = Buffer.concat(Array.from(slicer.encode(), (piece) => Buffer.from(piece)))
  assert.equal(bytes.length, slicer.byteLength)
  cursor.close()
  const end = slicer.contextCount * CONTEXT.size
  return { chunks, slicer, contexts: bytes.subarray(0, end), dictionaries: bytes.subarray(end) }
}

interface Context {
  readonly from: number
  readonly length: number
  readonly plainFrom: number
  readonly plainLength: number
  readonly bits: number
  readonly byte: number
  readonly dictionary: Buffer
}

function contextsOf({ contexts, dictionaries }: Sliced): Context[] {
  return Array.from({ length: contexts.length / CONTEXT.size }, (_unused, index) => {
    const at = index * CONTEXT.size
    const start = Number(contexts.readBigUInt64LE(at + CONTEXT.dictionaryOffset))
    return {
      from: Number(contexts.readBigUInt64LE(at + CONTEXT.compressedOffset)),
      length: contexts.readUInt32LE(at + CONTEXT.compressedSize),
      plainFrom: Number(contexts.readBigUInt64LE(at + CONTEXT.uncompressedOffset)),
      plainLength: contexts.readUInt32LE(at + CONTEXT.uncompressedSize),
      bits: contexts.readUInt8(at + CONTEXT.bits),
      byte: contexts.readUInt8(at + CONTEXT.byte),
      dictionary: dictionaries.subarray(start, start + contexts.readUInt32LE(at + CONTEXT.dictionarySize)),
    }
  })
}

/** Every chunk out of its slice, and of the slice no byte but those that its context names. */
function assertReadable(file: Uint8Array, plain: Buffer, sliced: Sliced): void {
  const inflated = contextsOf(sliced).map((context) => {
    assert.ok(context.from + context.length <= file.length)
    const into = Buffer.alloc(context.plainLength)
    const stored = file.subarray(context.from, context.from + context.length)
    inflateSlice(stored, context, into.length, (part, at) => into.set(part, at))
    return into
  })
  for (const { from, to, context, offset } of sliced.chunks) {
    const found = inflated[context]?.subarray(offset, offset + to - from)
    assert.ok(found?.equals(plain.subarray(from, to)) === true, `chunk at ${from}`)
  }
}

/** Small gaps, as headers are, between chunks of all sizes. */
function lengthsFor(size: number, seed: number): number[] {
  const lengths: number[] = []
  let state = seed
  for (let at = 0; ; ) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0
    const length = lengths.length % 2 === 0 ? 512 : ([1, 511, 5000, 70_000, 300_000, 1 << 20][(state >>> 16) % 6] ?? 1)
    if (at + length > size) return lengths
    lengths.push(length)
    at += length
  }
}

const KINDS: ReadonlyArray<readonly [string, (plain: Buffer) => Buffer]> = [
  ['one member', (plain) => gzipSync(plain)],
  ['stored blocks', (plain) => gzipSync(plain, { level: 0 })],
  [
    'two members',
    (plain) => Buffer.concat([gzipSync(plain.subarray(0, 1_500_001)), gzipSync(plain.subarray(1_500_001))]),
  ],
  ['a member every 64 KiB', (plain) => inMembers(plain, 65_536)],
  [
    'a member every 1000 bytes, and empty ones',
    (plain) => Buffer.concat([gzipSync(''), inMembers(plain, 1000), gzipSync('')]),
  ],
]

function inMembers(plain: Buffer, size: number): Buffer {
  const members: Buffer[] = []
  for (let at = 0; at < plain.length; at += size) members.push(gzipSync(plain.subarray(at, at + size), { level: 1 }))
  return Buffer.concat(members)
}

for (const [name, compress] of KINDS) {
  test(`chunks of any size come back out of their slices: ${name}`, () => {
    const plain = content(5_000_000)
    const file = new Uint8Array(compress(plain))
    for (const seed of [1, 2]) {
      const sliced = slice(file, lengthsFor(plain.length, seed))
      assert.ok(sliced.slicer.contextCount > 2)
      assertReadable(file, plain, sliced)
    }
  })
}

test('a slice that ends with a member goes on to the first byte of the next, and one that begins there begins with its blocks', () => {
  const plain = content(4_000_000)
  const size = 1_000_000
  const file = new Uint8Array(inMembers(plain, size))
  // Chunks end where members do.
  const sliced = slice(file, [0, size, 0, size, 0, size, 0, size])
  assertReadable(file, plain, sliced)
  const [first, second] = contextsOf(sliced)
  assert.deepEqual([first?.from, first?.dictionary.length, first?.bits], [10, 0, 0])
  assert.deepEqual([second?.dictionary.length, second?.bits, second?.plainFrom], [0, 0, size])
  assert.equal((first?.from ?? 0) + (first?.length ?? 0), (second?.from ?? 0) + 1)
})

test('a giant block is one slice: none can begin within it', () => {
  const bits = new Bits()
  // The last block, fixed codes (RFC 1951 §3.2.6): a literal, then matches of 258 bytes at distance 1, then the end.
  bits.add(0b011, 3)
  bits.addCode(0x30 + 0x61, 8)
  const matches = 20_000
  for (let i = 0; i < matches; i += 1) {
    bits.addCode(0b11000101, 8)
    bits.addCode(0, 5)
  }
  bits.addCode(0, 7)
  const plain = Buffer.alloc(1 + matches * 258, 'a')
  const file = new Uint8Array(Buffer.concat([gzipSync('').subarray(0, 10), bits.bytes(), gzipSync(plain).subarray(-8)]))
  const sliced = slice(file, [512, 1 << 20, 0, 1 << 20, 0, 1 << 20, 0, 1 << 20])
  assert.equal(sliced.slicer.contextCount, 1)
  assertReadable(file, plain, sliced)
})

test('a slice, or contexts, that no reader would take are refused; those of just that size are not', () => {
  const plain = content(4_000_000)
  const file = new Uint8Array(gzipSync(plain))
  const lengths = lengthsFor(plain.length, 1)
  const sliced = slice(file, lengths)
  const sliceBytes = Math.max(...contextsOf(sliced).map(({ length }) => length))
  const metaBytes = sliced.slicer.byteLength
  assert.equal(slice(file, lengths, { sliceBytes, metaBytes }).slicer.byteLength, metaBytes)
  assert.throws(
    () => slice(file, lengths, { sliceBytes: sliceBytes - 1, metaBytes }),
    (error) =>
      error instanceof BlobError &&
      error.code === 'TOO_LARGE' &&
      error.message.startsWith(`the gzip file has a deflate block of ${sliceBytes} bytes (`),
  )
  assert.throws(
    () => slice(file, lengths, { sliceBytes, metaBytes: metaBytes - 1 }),
    (error) =>
      error instanceof BlobError &&
      error.code === 'TOO_LARGE' &&
      error.message.includes(`have contexts of ${metaBytes} bytes; up to ${metaBytes - 1} are read`),
  )
})

/** A deflate stream, bit by bit. */
class Bits {
  readonly #bits: number[] = []

  /** Lowest bit first, as numbers are. */
  add(value: number, count: number): void {
    for (let i = 0; i < count; i += 1) this.#bits.push((value >>> i) & 1)
  }

  /** Highest bit first, as codes are. */
  addCode(code: number, length: number): void {
    for (let i = length - 1; i >= 0; i -= 1) this.#bits.push((code >>> i) & 1)
  }

  bytes(): Buffer {
    const bytes = Buffer.alloc(Math.ceil(this.#bits.length / 8))
    for (const [at, bit] of this.#bits.entries()) bytes[at >>> 3] = (bytes[at >>> 3] ?? 0) | (bit << (at & 7))
    return bytes
  }
}
