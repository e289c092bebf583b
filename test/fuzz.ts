/**
 * Damages valid files at random, from a seed, and gives them to their readers: `sh scripts/node.sh test/fuzz.ts TARGET SECONDS [SEED]`.
 * A reader may refuse with its room's error or read something; any other exception, or an input that takes over a second, is a find: it is thrown with the seed that repeats it.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { encodeMetaFile, encodeMetaHeader, openBlobLayout } from '../src/blob/blob-meta.ts'
import { encodeInfoV1, INFO_V1_SIZE } from '../src/blob/chunk-infos.ts'
import { BLOB_FEATURES, BlobError, type BlobInfo, ChunkInfo, locateBootstrap } from '../src/blob/index.ts'
import { encodeToc, PARTS } from '../src/blob/toc.ts'
import { Attributes, dumpBootstrap, openBootstrap, RafsError, readTree, walkBootstrap } from '../src/rafs/index.ts'
import { TarError, TarReader, TarWriter } from '../src/tar/index.ts'
import { randomOf } from './random.ts'

interface Target {
  readonly seeds: () => Promise<readonly Uint8Array[]> | readonly Uint8Array[]
  readonly read: (bytes: Uint8Array) => Promise<void> | void
  readonly refusal: new (...args: never[]) => Error
}

const testdata = join(import.meta.dirname, '../src/rafs/testdata')
const SLOW_MS = 1_000
const BAD_BYTES = [0x00, 0x01, 0x2e, 0x2f, 0x7f, 0x80, 0xff]

export const TARGETS: Readonly<Record<string, Target>> = {
  v5: { seeds: () => bootstraps('v5-'), read: readBootstrap, refusal: RafsError },
  v6: { seeds: () => bootstraps('v6-'), read: readBootstrap, refusal: RafsError },
  meta: { seeds: () => [compressionContext()], read: readMeta, refusal: BlobError },
  toc: { seeds: () => [tableOfContents()], read: readToc, refusal: BlobError },
  tar: { seeds: archives, read: readArchive, refusal: TarError },
}

/** Runs for so long; gives the number of inputs. Throws the first find. */
export async function fuzz(name: string, seconds: number, seed = 1): Promise<number> {
  const target = TARGETS[name]
  if (target === undefined) throw new Error(`no target ${name}; give one of ${Object.keys(TARGETS).join(', ')}`)
  const seeds = await target.seeds()
  const end = performance.now() + seconds * 1000
  let count = 0
  for (; performance.now() < end; count++) {
    const random = randomOf(seed + count)
    const bytes = damaged(seeds[random(seeds.length)] ?? new Uint8Array(), random)
    const started = performance.now()
    try {
      await target.read(bytes)
    } catch (error) {
      if (!(error instanceof target.refusal)) throw new Error(`${name}, seed ${seed + count}`, { cause: error })
    }
    const took = performance.now() - started
    if (took > SLOW_MS) throw new Error(`${name}, seed ${seed + count}: took ${Math.round(took)} ms`)
  }
  return count
}

function damaged(seed: Uint8Array, random: (below: number) => number): Uint8Array {
  const bytes = Uint8Array.from(seed)
  for (let changes = 1 + random(12); changes > 0; changes--) {
    const at = random(random(2) === 0 ? Math.min(bytes.length, 4096) : bytes.length)
    const width = [1, 2, 4, 8][random(4)] ?? 1
    const byte = random(2) === 0 ? random(256) : (BAD_BYTES[random(BAD_BYTES.length)] ?? 0)
    bytes.fill(byte, at, at + width)
  }
  return random(8) === 0 ? bytes.subarray(0, random(bytes.length)) : bytes
}

function bootstraps(prefix: string): Uint8Array[] {
  const names = readdirSync(testdata).filter((name) => name.startsWith(prefix) && name.endsWith('.bootstrap'))
  return names.map((name) => readFileSync(join(testdata, name))).filter(({ length }) => length < 100_000)
}

function readBootstrap(bytes: Uint8Array): void {
  const image = openBootstrap(bytes)
  image.prefetch()
  for (const index of image.blobs.keys()) image.layout(index)
  const attributes = new Attributes()
  for (const { ino } of walkBootstrap(image)) {
    image.attributes(ino, attributes)
    image.xattrs(ino)
  }
  for (const _line of dumpBootstrap(image));
  readTree(image)
}

const BLOB: BlobInfo = {
  index: 0,
  id: 'b'.repeat(64),
  features: BLOB_FEATURES.ALIGNED | BLOB_FEATURES.CAP_TAR_TOC,
  chunkSize: 4096,
  chunkCount: 5,
  compression: 'none',
  digest: 'blake3',
  compressedSize: 20_000,
  uncompressedSize: 20_480,
  prefetchSize: 0,
  metaOffset: 20_000,
  metaCompressedSize: 80,
  metaUncompressedSize: 80,
  metaCompression: 'none',
  tocSize: 0,
  tocDigest: undefined,
}

function readMeta(bytes: Uint8Array): void {
  const layout = openBlobLayout(bytes, BLOB, new Uint8Array(BLOB.chunkCount * 32))
  for (let index = 0; index < BLOB.chunkCount; index++) layout.chunk(index, new ChunkInfo())
}

function tableOfContents(): Uint8Array {
  const part = { compression: 'none' as const, digest: new Uint8Array(32), compressedSize: 100, uncompressedSize: 100 }
  return encodeToc([PARTS.data, PARTS.bootstrap].map((name, at) => ({ ...part, name, compressedOffset: at * 100 })))
}

function readToc(bytes: Uint8Array): void {
  const part = locateBootstrap(bytes, 2000)
  if (part !== undefined && part.compressedOffset + part.compressedSize > 2000) throw new Error('it leaves the blob')
}

function compressionContext(): Uint8Array {
  const infos = new Uint8Array(BLOB.chunkCount * INFO_V1_SIZE)
  const size = 4000
  for (let index = 0; index < BLOB.chunkCount; index++) {
    const place = { compressedOffset: index * size, uncompressedOffset: index * 4096 }
    const info = { index, ...place, compressedSize: size, uncompressedSize: size }
    encodeInfoV1(info, new DataView(infos.buffer), index * INFO_V1_SIZE)
  }
  const sizes = { compressedSize: infos.length, uncompressedSize: infos.length }
  const { features, metaOffset: offset, chunkCount: entries } = BLOB
  return encodeMetaFile(infos, encodeMetaHeader({ features, compression: 'none', entries, offset, ...sizes }))
}

async function archives(): Promise<Uint8Array[]> {
  const parts: Uint8Array[] = []
  const writer = new TarWriter((bytes) => void parts.push(Uint8Array.from(bytes)))
  const name = (text: string): Uint8Array => Buffer.from(text)
  await writer.add({ path: name('d/'), type: 'directory', mode: 0o755 })
  const xattrs = [{ name: name('user.a'), value: name('b') }]
  await writer.add({ path: name('d/f'), type: 'file', size: 700, xattrs }, [Buffer.alloc(700, 1)])
  await writer.add({ path: name(`d/${'n'.repeat(300)}`), type: 'symlink', link: name('../'.repeat(99)) })
  await writer.add({ path: name('d/h'), type: 'hardlink', link: name('d/f'), mtimeSeconds: -5 })
  await writer.add({ path: name('d/c'), type: 'char', devMajor: 4, devMinor: 1_000_000 })
  await writer.finish()
  return [Buffer.concat(parts)]
}

async function readArchive(bytes: Uint8Array): Promise<void> {
  const archive = sealed(bytes)
  const reader = new TarReader(
    (async function* () {
      yield archive
    })(),
  )
  const into = new Uint8Array(4096)
  while ((await reader.next()) !== undefined) await reader.read(into)
  await reader.close()
}

/** Headers get the checksum that fits them: else nothing behind it would ever be looked at. */
function sealed(bytes: Uint8Array): Uint8Array {
  const copy = Buffer.from(bytes)
  for (let at = 0; at + 512 <= copy.length; at += 512) {
    const header = copy.subarray(at, at + 512)
    if (header.toString('latin1', 257, 262) !== 'ustar') continue
    header.fill(0x20, 148, 156)
    const sum = header.reduce((total, byte) => total + byte, 0)
    header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1')
  }
  return copy
}

if (import.meta.main) {
  const [target = '', seconds = '10', seed = '1'] = process.argv.slice(2)
  console.log(`${await fuzz(target, Number(seconds), Number(seed))} inputs, none got through`)
}
