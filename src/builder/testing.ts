/** For this room's tests: sources and images of the original, built again with ours. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import {
  BLOB_FEATURES,
  type BlobLayout,
  ChunkDecoder,
  ChunkInfo,
  META_HEADER_SIZE,
  metaFileOf,
  openBatchLayout,
} from '../blob/index.ts'
import { digester } from '../codec/index.ts'
import { makeNode, setTimes } from '../kernel/index.ts'
import {
  Attributes,
  type Bootstrap,
  type ChunkSpan,
  dumpEntries,
  isType,
  MODE,
  openBootstrap,
  walkBootstrap,
} from '../rafs/index.ts'
import { type TarHeader, TarWriter } from '../tar/index.ts'
import { buildLayer, type BuiltLayer, type LayerOptions } from './index.ts'

const shared = join(import.meta.dirname, '../../../shared/fixtures')

/** Why the large set of the original's files is not used, or false. */
export const noShared: string | false = existsSync(join(shared, 'manifest.json'))
  ? false
  : 'no ../shared/fixtures beside the repository'

export const DEFAULTS: LayerOptions = {
  chunkSize: 0x10_0000,
  compression: 'zstd',
  digest: 'blake3',
  batchSize: 0,
  cipher: undefined,
  blobOffset: 0,
  keepOwners: true,
  inlineBootstrap: false,
  blobToc: false,
  version: 6,
  alignedChunks: false,
  blobId: undefined,
  whiteoutSpec: 'oci',
  prefetch: { policy: 'none', paths: [] },
  dictionary: undefined,
  parent: undefined,
}

/** One image of the large set. */
export interface SharedImage {
  readonly id: string
  readonly command: string
  readonly exit: number
  readonly reproducible?: boolean
  readonly stdin?: string
  readonly tree?: string
}

export function sharedImages(): SharedImage[] {
  return (JSON.parse(readFileSync(join(shared, 'manifest.json'), 'utf8')) as { images: SharedImage[] }).images
}

/** The path of a file of the large set. */
export function sharedPath(...parts: string[]): string {
  return join(shared, ...parts)
}

/** A folder that is gone after the test. */
export function temporary(t: { after(done: () => void): void }): string {
  const path = mkdtempSync(join(tmpdir(), 'nydus-builder-'))
  t.after(() => rmSync(path, { recursive: true, force: true }))
  return path
}

export function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}

/** A source of the large set, as the commands name it: unpacked into `folder` when it is not there yet. */
export function sourceOf(name: string, folder: string): string {
  const plain = join(shared, name)
  if (existsSync(plain)) return plain
  const path = join(folder, name.replace('/', '-'))
  if (existsSync(path)) return path
  if (name.startsWith('dirs/')) unpackDirectory(name.slice(5), path)
  else writeFileSync(path, gunzipSync(readFileSync(`${plain}.gz`)))
  return path
}

/** Trees that have a socket, which no archive can hold. */
const WITH_SOCKET: ReadonlySet<string> = new Set(['lower', 'core', 'mini'])
const socketTime = (tree: string): number => (tree === 'mini' ? 1_700_000_041 : 1_700_000_047)
const linkedTime = (tree: string): number => (tree === 'mini' ? 1_700_000_024 : 1_700_000_030)

function unpackDirectory(name: string, at: string): void {
  mkdirSync(at)
  execFileSync('tar', [
    '--xattrs',
    '--xattrs-include=*',
    '--numeric-owner',
    '--warning=no-timestamp',
    '-xpf',
    join(shared, 'sources', `${name}.dir.tar.gz`),
    '-C',
    at,
  ])
  // GNU tar makes hard links late, after it has set the time of the folder that they are in.
  const linked = join(at, 'hard/sub')
  if (existsSync(linked) && WITH_SOCKET.has(name)) setTimes(linked, linkedTime(name), 0)
  if (!WITH_SOCKET.has(name)) return
  const { atime, mtime } = statSync(join(at, 'dev'))
  makeNode(join(at, 'dev/socket'), 0o140755, 0)
  setTimes(join(at, 'dev/socket'), socketTime(name), 0)
  utimesSync(join(at, 'dev'), atime, mtime)
}

/** The sink's bytes in one piece. */
export class CollectedBlob {
  readonly #parts: Buffer[] = []
  readonly sink = (bytes: Uint8Array): void => {
    this.#parts.push(Buffer.from(bytes))
  }

  get bytes(): Buffer {
    return Buffer.concat(this.#parts)
  }
}

export async function* inPieces(bytes: Uint8Array, size = 65_536): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}

export interface BuiltForTest extends BuiltLayer {
  readonly blob: Buffer
}

/** Builds a layer from the bytes of an archive. */
export async function buildTar(
  archive: Uint8Array,
  options: Partial<LayerOptions> = {},
  signal = new AbortController().signal,
): Promise<BuiltForTest> {
  const collected = new CollectedBlob()
  const built = await buildLayer(inPieces(archive), { ...DEFAULTS, ...options, signal, sink: collected.sink })
  return { ...built, blob: collected.bytes }
}

function byName([a]: readonly [string, unknown], [b]: readonly [string, unknown]): number {
  return a < b ? -1 : 1
}

/** All that an image says, without blob ids and stored sizes: these depend on the release of the compression library. */
export function meaningOf(image: Bootstrap): unknown {
  const spans: ChunkSpan[] = []
  const attributes = new Attributes()
  const places = [...walkBootstrap(image)].flatMap(({ path, ino }) => {
    image.attributes(ino, attributes)
    if (!isType(attributes.mode, MODE.FILE)) return []
    const count = image.chunks(ino, 0, attributes.size, spans)
    return [
      `${Buffer.from(path).toString('latin1')} ${spans
        .slice(0, count)
        .map((span) => `${span.blobIndex}:${span.chunkIndex}@${span.chunkOffset}`)
        .join(' ')}`,
    ]
  })
  return {
    entries: [...dumpEntries(image)].map((entry) =>
      JSON.stringify({ ...entry, xattrs: Object.entries(entry.xattrs ?? {}).sort(byName) }),
    ),
    places,
    chunks: image.blobs.map(({ index }) => chunksOf(image, index)),
    blobs: image.blobs.map(
      ({ features, chunkCount, chunkSize, compression, digest, uncompressedSize, metaUncompressedSize }) => ({
        features,
        chunkCount,
        chunkSize,
        compression,
        digest,
        uncompressedSize,
        metaUncompressedSize,
      }),
    ),
    prefetch: image.prefetch(),
    inodeCount: image.inodeCount,
    flags: [image.explicitOwners, image.hasXattrs],
  }
}

function chunksOf(image: Bootstrap, blobIndex: number): string[] {
  const layout = image.layout(blobIndex)
  const info = new ChunkInfo()
  const found: string[] = []
  for (let index = 0; index < layout.chunkCount; index += 1) {
    if (!layout.has(index)) continue
    layout.chunk(index, info)
    found.push(
      `${index} ${Buffer.from(info.digest).toString('hex')} ${info.uncompressedOffset}+${info.uncompressedSize} ${info.compressed} ${info.crc32c}`,
    )
  }
  return found
}

/** Fails at the first difference, and shows only that. */
export function assertSameMeaning(found: Bootstrap, wanted: Bootstrap): void {
  const [a, b] = [meaningOf(found), meaningOf(wanted)] as [Record<string, unknown>, Record<string, unknown>]
  for (const key of Object.keys(b)) assertSameLines(linesOf(a[key]), linesOf(b[key]), key)
}

function linesOf(value: unknown): string[] {
  return (Array.isArray(value) ? value : [value]).map((one) => (typeof one === 'string' ? one : JSON.stringify(one)))
}

export function assertSameLines(found: readonly string[], wanted: readonly string[], what: string): void {
  for (let at = 0; at < Math.max(found.length, wanted.length); at += 1) {
    if (found[at] !== wanted[at])
      assert.fail(`${what}: ${found[at]?.slice(0, 600)}\n  wanted: ${wanted[at]?.slice(0, 600)}`)
  }
}

/** Files of a folder, for tests that nothing is left behind. */
export function filesIn(path: string): string[] {
  return readdirSync(path).sort()
}

/** An archive as a list of entries; content as bytes. */
export type ArchiveEntry = Partial<Omit<TarHeader, 'path' | 'link'>> & {
  readonly path: string | Uint8Array
  readonly link?: string
  readonly content?: Uint8Array
}

export async function tarOf(entries: readonly ArchiveEntry[]): Promise<Buffer> {
  const parts: Buffer[] = []
  const writer = new TarWriter((bytes) => void parts.push(Buffer.from(bytes)))
  for (const { path, content, link, ...header } of entries) {
    const type = header.type ?? 'file'
    const linked = link === undefined ? {} : { link: Buffer.from(link) }
    await writer.add(
      {
        mode: type === 'directory' ? 0o755 : 0o644,
        ...header,
        ...linked,
        path: Buffer.from(path),
        type,
        size: content?.length ?? 0,
      },
      content === undefined ? [] : [content],
    )
  }
  await writer.finish()
  return Buffer.concat(parts)
}

/** A file's bytes out of blobs, each chunk verified. */
export function contentOf(image: Bootstrap, blobs: readonly Uint8Array[], path: string): Buffer {
  let ino = image.root
  for (const name of path.split('/').filter((part) => part !== ''))
    ino = image.lookup(ino, Buffer.from(name)) ?? assert.fail(`${path} is not there`)
  return inodeContent(image, blobs, ino)
}

export function inodeContent(image: Bootstrap, blobs: readonly Uint8Array[], ino: number): Buffer {
  const attributes = new Attributes()
  image.attributes(ino, attributes)
  const spans: ChunkSpan[] = []
  const count = image.chunks(ino, 0, attributes.size, spans)
  const info = new ChunkInfo()
  return Buffer.concat(
    spans.slice(0, count).map(({ blobIndex, chunkIndex }) => {
      const { compression, digest, cipher } = image.blobs[blobIndex] ?? assert.fail('no such blob')
      const blob = blobs[blobIndex] ?? assert.fail('no such blob')
      layoutOf(image, blobIndex, blob).chunk(chunkIndex, info)
      const plain = new Uint8Array(info.uncompressedSize)
      const stored = blob.subarray(info.compressedOffset, info.compressedOffset + info.compressedSize)
      new ChunkDecoder(compression, cipher).decode(stored, info.compressedOffset, info, plain)
      const found = new Uint8Array(32)
      digester(digest).digest(plain, found)
      assert.deepEqual(found, info.digest)
      return plain
    }),
  )
}

/** Where a blob's chunks are, also those in batches. */
function layoutOf(image: Bootstrap, blobIndex: number, bytes: Uint8Array): BlobLayout {
  const records = image.layout(blobIndex)
  const blob = image.blobs[blobIndex] ?? assert.fail('no such blob')
  if ((blob.features & BLOB_FEATURES.BATCH) === 0) return records
  const end = blob.metaOffset + blob.metaCompressedSize + META_HEADER_SIZE
  return openBatchLayout(records, metaFileOf(bytes.subarray(blob.metaOffset, end), blob), blob)
}

/** An expected tree's lines in one canonical form, sorted; without content, which is compared apart. */
export function treeLines(text: string): string[] {
  return text.trim().split('\n').map(canonicalEntry).sort()
}

/** What a bootstrap shows, in the same form. */
export function shownLines(bootstrap: Uint8Array): string[] {
  return [...dumpEntries(openBootstrap(bootstrap))].map((entry) => canonicalEntry(JSON.stringify(entry))).sort()
}

function canonicalEntry(line: string): string {
  const { sha256: _content, blocks: _blocks, chunks: _chunks, ...entry } = JSON.parse(line) as Record<string, unknown>
  const xattrs = Object.entries((entry['xattrs'] as Record<string, string> | undefined) ?? {}).sort(byName)
  return JSON.stringify(Object.entries({ ...entry, xattrs }).sort(byName))
}
