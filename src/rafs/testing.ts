/** For this room's tests: where fixtures are, comparing an image with an expected tree, random trees. */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import * as fc from 'fast-check'
import { BLOB_FEATURES, type BlobInfo } from '../blob/index.ts'
import {
  type Bootstrap,
  compareNames,
  type DumpEntry,
  dumpEntries,
  type RafsChunk,
  type RafsNode,
  type RafsTree,
} from './index.ts'
import { emptyDirectory, hybridOrder, putChild } from './tree.ts'

const testdata = join(import.meta.dirname, 'testdata')
const shared = join(import.meta.dirname, '../../../shared/fixtures')

/** A bootstrap of the original and the tree that it must show. */
export interface Fixture {
  readonly id: string
  readonly bootstrap: string
  /** JSON lines. */
  readonly tree: string
  /** Writing its tree again gives the same bytes. */
  readonly isReproducible: boolean
}

/** Fixtures that are kept with this room. */
export function ownFixtures(): Fixture[] {
  const list = JSON.parse(readFileSync(join(testdata, 'images.json'), 'utf8')) as Array<{
    id: string
    tree: string
    isReproducible: boolean
  }>
  return list.map(({ id, tree, isReproducible }) => ({
    id,
    bootstrap: join(testdata, `${id}.bootstrap`),
    tree: join(testdata, tree),
    isReproducible,
  }))
}

/** All fixtures of the large set beside the repository; empty when it is not there. */
export function sharedFixtures(): Fixture[] {
  if (!existsSync(join(shared, 'manifest.json'))) return []
  const manifest = JSON.parse(readFileSync(join(shared, 'manifest.json'), 'utf8')) as {
    images: Array<{ id: string; exit: number; bootstrap?: string; tree?: string; reproducible: boolean }>
  }
  return manifest.images.flatMap(({ id, exit, bootstrap, tree, reproducible }) => {
    if (exit !== 0 || bootstrap === undefined || tree === undefined || !existsSync(join(shared, bootstrap))) return []
    return [{ id, bootstrap: join(shared, bootstrap), tree: join(shared, tree), isReproducible: reproducible }]
  })
}

/** Why the large set is not tested, or false. */
export const noShared: string | false = existsSync(join(shared, 'manifest.json'))
  ? false
  : 'no ../shared/fixtures beside the repository'

type Plain = Record<string, unknown>

/** First difference between an image and an expected tree, as text; undefined when there is none. */
export function differenceFrom(image: Bootstrap, treeFile: string): string | undefined {
  const wanted = readFileSync(treeFile, 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Plain)
  const found = [...dumpEntries(image)].sort((a, b) => compareNames(rawPath(a.path), rawPath(b.path)))
  for (const [index, want] of wanted.entries()) {
    const entry = found[index]
    if (entry === undefined) return `${String(want['path'])} is missing`
    const difference = entryDifference(entry, want)
    if (difference !== undefined) return `${entry.path}: ${difference}`
  }
  return found.length === wanted.length ? undefined : `${found.length} paths, ${wanted.length} wanted`
}

function entryDifference(entry: DumpEntry, want: Plain): string | undefined {
  // Content and blocks are not in a dump, chunk digests not in a tree.
  const { sha256: _content, blocks: _blocks, ...wanted } = want
  const { chunks: _chunks, ...found } = entry as DumpEntry & Plain
  for (const key of new Set([...Object.keys(wanted), ...Object.keys(found)])) {
    const [a, b] = [canonical(wanted[key]), canonical((found as Plain)[key])]
    if (a !== b) return `${key} is ${b}, wanted ${a}`
  }
  return undefined
}

function canonical(value: unknown): string {
  if (typeof value !== 'object' || value === null) return JSON.stringify(value) ?? 'absent'
  return JSON.stringify(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
}

function rawPath(escaped: string): Uint8Array {
  const latin1 = escaped.replaceAll(/%([0-9A-F]{2})/g, (_all, hex: string) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  )
  return Buffer.from(latin1, 'latin1')
}

/** A tree as plain values, for deepEqual: names and targets as hex, hard link groups numbered as they are met, groups of one left out. */
export function plainTree(tree: RafsTree): Plain {
  const members = new Map<unknown, number>()
  const count = (node: RafsNode): void => {
    if (node.link !== undefined) members.set(node.link, (members.get(node.link) ?? 0) + 1)
    for (const child of node.children ?? []) count(child)
  }
  count(tree.root)
  const numbers = new Map<unknown, number>()
  const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')
  const plain = (node: RafsNode): Plain => {
    const isLinked = node.link !== undefined && (members.get(node.link) ?? 0) > 1
    if (isLinked && !numbers.has(node.link)) numbers.set(node.link, numbers.size)
    return {
      name: hex(node.name),
      mode: node.mode.toString(8),
      owner: `${node.uid}:${node.gid}`,
      rdev: node.rdev,
      mtime: `${node.mtime}.${node.mtimeNsec}`,
      size: node.size,
      target: node.target === undefined ? undefined : hex(node.target),
      xattrs: node.xattrs.map(({ name, value }) => `${hex(name)}=${hex(value)}`).sort(),
      chunks: node.chunks.map(
        (chunk) =>
          `${chunk.blobIndex}/${chunk.index} ${hex(chunk.digest)} ${chunk.uncompressedOffset}+${chunk.uncompressedSize} ${chunk.compressedOffset}+${chunk.compressedSize} ${chunk.compressed} ${chunk.crc32c}`,
      ),
      link: isLinked ? numbers.get(node.link) : undefined,
      children: node.children?.map(plain),
    }
  }
  return plain(tree.root)
}

/** A blob of `chunkCount` full chunks, as builders make it. */
export function someBlob(index: number, chunkSize: number, chunkCount: number): BlobInfo {
  return {
    index,
    id: String(index).padStart(64, 'ab'),
    features: BLOB_FEATURES.ALIGNED | BLOB_FEATURES.HAS_TAR_HEADER,
    chunkSize,
    chunkCount,
    compression: 'zstd',
    digest: 'blake3',
    compressedSize: chunkCount * chunkSize,
    uncompressedSize: chunkCount * chunkSize,
    prefetchSize: 0,
    metaOffset: chunkCount * chunkSize,
    metaCompressedSize: chunkCount * 16,
    metaUncompressedSize: chunkCount * 16,
    metaCompression: 'none',
    tocSize: 0,
    tocDigest: undefined,
  }
}

/** The same tree over plain tars, which have no digests of their chunks. */
export function asTarfs({ root, blobs }: RafsTree): RafsTree {
  const chunks = new Map<RafsChunk, RafsChunk>()
  for (const node of hybridOrder(root)) {
    node.chunks = node.chunks.map((chunk, index) => {
      const uncompressedSize = Math.min(chunk.uncompressedSize, node.size - index * chunk.uncompressedSize)
      const plain = { ...chunk, digest: new Uint8Array(32), crc32c: undefined, compressed: false, uncompressedSize }
      const same = chunks.get(chunk)
      if (same?.uncompressedSize === uncompressedSize) return same
      chunks.set(chunk, { ...plain, compressedSize: uncompressedSize, compressedOffset: chunk.uncompressedOffset })
      return chunks.get(chunk) ?? chunk
    })
  }
  const features = BLOB_FEATURES.TARFS | BLOB_FEATURES.CAP_TAR_TOC
  return { root, blobs: blobs.map((blob) => ({ ...blob, features, compression: 'none', digest: 'sha256' })) }
}

/** Chunk `index` of such a blob. */
export function someChunk(blobIndex: number, index: number, chunkSize: number): RafsChunk {
  const digest = new Uint8Array(32).fill(0x5a)
  new DataView(digest.buffer).setUint32(0, Math.imul(index * 256 + blobIndex, 0x9e37_79b1), true)
  const isCompressed = index % 2 === 0
  return {
    blobIndex,
    index,
    digest,
    compressedOffset: index * chunkSize,
    compressedSize: isCompressed ? chunkSize - 7 : chunkSize,
    uncompressedOffset: index * chunkSize,
    uncompressedSize: chunkSize,
    compressed: isCompressed,
    encrypted: false,
    crc32c: index % 3 === 0 ? index * 1001 : undefined,
  }
}

export const CHUNKS_PER_BLOB = 40

const bytes = (maxLength: number): fc.Arbitrary<Uint8Array> => fc.uint8Array({ minLength: 1, maxLength })
const name = fc
  .oneof(
    { weight: 6, arbitrary: bytes(12) },
    { weight: 1, arbitrary: fc.uint8Array({ minLength: 240, maxLength: 255 }) },
    {
      weight: 1,
      arbitrary: fc.constantFrom('!', '-', '...', '.x', '..x', 'ä', ' ').map((it) => new Uint8Array(Buffer.from(it))),
    },
  )
  .map((raw) => raw.map((byte) => (byte === 0 || byte === 0x2f ? 0x41 : byte)))
  .filter((raw) => !raw.every((byte) => byte === 0x2e) || raw.length > 2)
const xattr = fc
  .tuple(
    fc.constantFrom('user.', 'trusted.', 'security.', 'system.posix_acl_access', 'system.posix_acl_default'),
    bytes(20),
    fc.uint8Array({ maxLength: 300 }),
  )
  .map(([prefix, suffix, value]) => {
    const rest = prefix.endsWith('.') ? Buffer.from(suffix.map((byte) => (byte === 0 ? 0x42 : byte))) : Buffer.alloc(0)
    return { name: new Uint8Array(Buffer.concat([Buffer.from(prefix), rest])), value }
  })
const common = fc.record({
  permissions: fc.nat(0o7777),
  uid: fc.nat(0xffff_ffff),
  gid: fc.nat(0xffff_ffff),
  mtime: fc.oneof(fc.integer(), fc.integer({ min: -(2 ** 40), max: 2 ** 40 })),
  mtimeNsec: fc.nat(999_999_999),
  xattrs: fc.uniqueArray(xattr, { maxLength: 4, selector: (it) => Buffer.from(it.name).toString('hex') }),
})
const special = fc.oneof(
  fc.record({
    type: fc.constant(0o120000),
    target: fc.oneof(bytes(60), fc.uint8Array({ minLength: 300, maxLength: 4095 })),
  }),
  fc.record({ type: fc.constantFrom(0o060000, 0o020000), rdev: fc.nat(0xffff_ffff) }),
  fc.record({ type: fc.constantFrom(0o010000, 0o140000) }),
  fc.record({
    type: fc.constant(0o100000),
    blob: fc.nat(7),
    first: fc.nat(CHUNKS_PER_BLOB - 1),
    step: fc.nat(3),
    count: fc.nat(6),
    short: fc.nat(4095),
  }),
)
/** What one entry is and where it goes: into the directory of an earlier entry, or the root. `link`: another name for an earlier file. */
const entry = fc.record({
  name,
  common,
  where: fc.nat(),
  what: fc.oneof(
    { weight: 3, arbitrary: fc.constant('directory' as const) },
    { weight: 1, arbitrary: fc.constant('link' as const) },
    { weight: 6, arbitrary: special },
  ),
})

/** Random trees: directories in directories, hard links, xattrs, devices, long symlinks, names of any bytes, chunks shared and in runs. */
export const randomTree = fc
  .record({
    entries: fc.array(entry, { maxLength: 60 }),
    root: common,
    chunkSize: fc.constantFrom(4096, 0x1_0000, 0x10_0000),
    blobs: fc.integer({ min: 1, max: 4 }),
  })
  .map(({ entries, root, chunkSize, blobs }) => buildTree(entries, root, chunkSize, blobs))

type Common = typeof common extends fc.Arbitrary<infer T> ? T : never
type Entry = typeof entry extends fc.Arbitrary<infer T> ? T : never

function buildTree(
  entries: readonly Entry[],
  rootCommon: Common,
  chunkSize: number,
  blobCount: number,
): { tree: RafsTree; chunkSize: number } {
  const root = Object.assign(emptyDirectory(new Uint8Array(0)), attributesOf(rootCommon, 0o040000))
  const directories = [root]
  const files: RafsNode[] = []
  for (const { name: raw, common: shared, where, what } of entries) {
    const parent = directories[where % directories.length] ?? root
    if (parent.children?.some((child) => compareNames(child.name, raw) === 0)) continue
    let node: RafsNode
    if (what === 'link') {
      const file = files[where % Math.max(files.length, 1)]
      if (file === undefined) continue
      file.link ??= { id: files.indexOf(file) + 1 }
      node = { ...file, name: raw }
    } else if (what === 'directory') {
      node = Object.assign(emptyDirectory(raw), attributesOf(shared, 0o040000))
      directories.push(node)
    } else {
      node = { ...emptyDirectory(raw), ...attributesOf(shared, what.type), children: undefined }
      if ('target' in what) node.target = what.target.map((byte) => (byte === 0 ? 0x43 : byte))
      else if ('rdev' in what) node.rdev = what.rdev
      else if ('count' in what) {
        node.chunks = Array.from({ length: what.count }, (_unused, index) =>
          someChunk(what.blob % blobCount, (what.first + index * what.step) % CHUNKS_PER_BLOB, chunkSize),
        )
        node.size = what.count === 0 ? 0 : what.count * chunkSize - what.short
        files.push(node)
      }
    }
    putChild(parent, node)
  }
  const blobs = Array.from({ length: blobCount }, (_unused, index) => someBlob(index, chunkSize, CHUNKS_PER_BLOB))
  return { tree: { root, blobs }, chunkSize }
}

function attributesOf(
  of: Common,
  type: number,
): Pick<RafsNode, 'mode' | 'uid' | 'gid' | 'mtime' | 'mtimeNsec' | 'xattrs'> {
  return {
    mode: type | of.permissions,
    uid: of.uid,
    gid: of.gid,
    mtime: of.mtime,
    mtimeNsec: of.mtimeNsec,
    xattrs: of.xattrs,
  }
}
