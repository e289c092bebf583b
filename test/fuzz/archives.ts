/** Archives: tar headers, layers as they are downloaded, slices of gzip. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { constants, deflateRawSync, gzipSync, zstdCompressSync } from 'node:zlib'
import { BuilderError } from '../../src/builder/index.ts'
import { readTarLayer } from '../../src/builder/sources/tar.ts'
import { CodecError, inflateSlice } from '../../src/codec/index.ts'
import { FileTree, NO_CHUNKS } from '../../src/rafs/index.ts'
import { TarError, TarReader, TarWriter } from '../../src/tar/index.ts'
import type { Seed, Target } from './target.ts'

const BLOCK = 512
const testdata = join(import.meta.dirname, '../../src/builder/testdata')
/** Where a header has its fields. */
const HEADER_FIELDS = [
  0, 1, 99, 100, 108, 116, 124, 125, 135, 136, 147, 156, 157, 257, 263, 329, 337, 345, 386, 482, 483,
]

/** Real archives of all dialects, and one with everything that our writer knows. */
async function archives(): Promise<Seed[]> {
  const files = readdirSync(testdata).filter((name) => name.endsWith('.tar'))
  const all = [...files.map((name) => readFileSync(join(testdata, name))), await written()]
  return all.map((bytes) => ({ bytes, fields: headerFields(bytes) }))
}

function headerFields(bytes: Uint8Array): number[] {
  const starts: number[] = []
  for (let at = 0; at + BLOCK <= bytes.length; at += BLOCK) if (isHeader(bytes, at)) starts.push(at)
  return starts.flatMap((start) => [
    ...HEADER_FIELDS.map((field) => start + field),
    // Records of PAX headers lie in the block behind.
    ...[0, 1, 2, 3, 8, 20].map((field) => start + BLOCK + field),
  ])
}

function isHeader(bytes: Uint8Array, at: number): boolean {
  return Buffer.from(bytes.buffer, bytes.byteOffset + at, BLOCK).toString('latin1', 257, 262) === 'ustar'
}

async function written(): Promise<Buffer> {
  const parts: Uint8Array[] = []
  const writer = new TarWriter((bytes) => void parts.push(Uint8Array.from(bytes)))
  const name = (text: string): Uint8Array => Buffer.from(text)
  await writer.add({ path: name('d/'), type: 'directory', mode: 0o755 })
  const xattrs = [{ name: name('user.a'), value: name('b') }]
  await writer.add({ path: name('d/f'), type: 'file', size: 700, xattrs }, [Buffer.alloc(700, 1)])
  await writer.add({
    path: name(`d/${'n'.repeat(200)}/${'m'.repeat(99)}`),
    type: 'symlink',
    link: name('../'.repeat(99)),
  })
  await writer.add({ path: name('d/h'), type: 'hardlink', link: name('d/f'), mtimeSeconds: -5 })
  await writer.add({ path: name('d/c'), type: 'char', devMajor: 4, devMinor: 1_000_000 })
  await writer.finish()
  return Buffer.concat(parts)
}

/** Headers get the check sum that fits them: else nothing behind it would ever be looked at. */
function seal(bytes: Uint8Array): void {
  for (let at = 0; at + BLOCK <= bytes.length; at += BLOCK) {
    if (!isHeader(bytes, at)) continue
    const header = Buffer.from(bytes.buffer, bytes.byteOffset + at, BLOCK)
    header.fill(0x20, 148, 156)
    let sum = 0
    for (const byte of header) sum += byte
    header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1')
  }
}

async function* onePiece(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes
}

async function readTar(bytes: Uint8Array): Promise<string> {
  const reader = new TarReader(onePiece(bytes))
  const into = new Uint8Array(4096)
  let [entries, content] = [0, 0]
  try {
    for (;;) {
      const entry = await reader.next()
      if (entry === undefined) return `${entries} ${content}`
      entries += 1
      content += await reader.read(into)
    }
  } finally {
    await reader.close()
  }
}

/** As `create` reads it: decompressed, into a tree. */
async function readLayer(bytes: Uint8Array): Promise<string> {
  const files = new FileTree()
  const root = await readTarLayer(onePiece(bytes), {
    files,
    keepOwners: true,
    signal: new AbortController().signal,
    addContent: async (content) => {
      await content.read(new Uint8Array(Math.min(content.size, 4096)))
      return NO_CHUNKS
    },
  })
  return String([...files.hybridOrder(root)].length)
}

async function packedLayers(): Promise<Seed[]> {
  const all = await archives()
  return all.flatMap(({ bytes, fields }, index) => {
    const cut = bytes.length >> 1
    const members = [gzipSync(bytes.subarray(0, cut)), gzipSync(bytes.subarray(cut))]
    const frames = [zstdCompressSync(bytes.subarray(0, cut)), zstdCompressSync(bytes.subarray(cut))]
    const packed = [
      Buffer.concat(index % 2 === 0 ? members : frames),
      index % 2 === 0 ? zstdCompressSync(bytes) : gzipSync(bytes),
    ]
    return [
      { bytes, fields },
      ...packed.map((one) => ({ bytes: one, fields: Array.from({ length: 24 }, (_unused, at) => at) })),
    ]
  })
}

/** u8 bits, u8 byte, u16 bytes of the window, u32 plain bytes wanted; window; gzip. */
const SLICE = { bits: 0, byte: 1, window: 2, length: 4, size: 8 } as const
const MAX_SLICE_BYTES = 2 ** 20

function sliceSeeds(): Seed[] {
  const plain = Buffer.from(Array.from({ length: 3000 }, (_unused, at) => `line ${at * 7919}\n`).join(''))
  const window = plain.subarray(0, 32_768)
  const member = gzipSync(plain)
  const raw = deflateRawSync(plain.subarray(window.length), { finishFlush: constants.Z_FINISH, dictionary: window })
  const trailer = Buffer.alloc(8)
  const slice = (withWindow: Uint8Array, gzip: Uint8Array, length: number): Seed => {
    const head = Buffer.alloc(SLICE.size)
    head.writeUInt16LE(withWindow.length, SLICE.window)
    head.writeUInt32LE(length, SLICE.length)
    const start = SLICE.size + withWindow.length
    const fields = [
      ...Array.from({ length: 8 }, (_unused, at) => at),
      ...Array.from({ length: 40 }, (_unused, at) => start + at),
    ]
    return { bytes: Buffer.concat([head, withWindow, gzip]), fields }
  }
  const nothing = new Uint8Array(0)
  return [
    slice(window, Buffer.concat([raw, trailer]), plain.length - window.length),
    slice(window, Buffer.concat([raw, trailer, member]), 2 * plain.length - window.length),
    slice(nothing, member.subarray(10), plain.length),
    slice(nothing, Buffer.concat([trailer, member]), plain.length),
  ]
}

function readSlice(bytes: Uint8Array): string {
  const from = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
  if (from.length < SLICE.size) return 'short'
  const window = Math.min(from.readUInt16LE(SLICE.window), 32_768, from.length - SLICE.size)
  const start = { bits: (from[SLICE.bits] ?? 0) & 7, byte: from[SLICE.byte] ?? 0 }
  const dictionary = from.subarray(SLICE.size, SLICE.size + window)
  const length = from.readUInt32LE(SLICE.length) % MAX_SLICE_BYTES
  let [made, sum] = [0, 0]
  inflateSlice(from.subarray(SLICE.size + window), { ...start, dictionary }, length, (part, at) => {
    if (at !== made || at + part.length > length) throw new RangeError(`${part.length} bytes at ${at}, after ${made}`)
    made += part.length
    sum = (sum * 31 + (part[0] ?? 0) + (part.at(-1) ?? 0)) % 2 ** 31
  })
  if (made !== length) throw new RangeError(`${made} bytes for ${length}`)
  return String(sum)
}

export const ARCHIVES: Readonly<Record<string, Target>> = {
  tar: { seeds: archives, read: readTar, refusals: [TarError], repair: seal },
  layer: { seeds: packedLayers, read: readLayer, refusals: [TarError, BuilderError, CodecError], repair: seal },
  gzip: { seeds: sliceSeeds, read: readSlice, refusals: [CodecError] },
}
