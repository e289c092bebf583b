import { type BlobInfo, ChunkInfo } from '../blob/index.ts'
import { Attributes, type Bootstrap, type ChunkSpan, type Ino } from './bootstrap.ts'
import { walkBootstrap } from './dump.ts'
import { RafsError } from './errors.ts'
import { isType, MODE } from './mode.ts'
import { compareNames, SLASH } from './names.ts'
import { readSpanChunk } from './span-chunk.ts'

/** One chunk as files name it. Files that share a chunk share this object. */
export interface RafsChunk {
  /** Position of its blob in the tree's blob list; a merge renumbers it. */
  blobIndex: number
  /** Number in its blob. */
  readonly index: number
  readonly digest: Uint8Array
  readonly compressedOffset: number
  readonly compressedSize: number
  readonly uncompressedOffset: number
  readonly uncompressedSize: number
  readonly compressed: boolean
  /** Stored with the cipher of its blob. */
  readonly encrypted: boolean
  /** CRC-32C of the plain bytes; undefined when it was not taken. */
  readonly crc32c: number | undefined
}

/** An extended attribute by its full name; both are bytes. */
export interface RafsXattr {
  readonly name: Uint8Array
  readonly value: Uint8Array
}

/** The identity that hard links share: nodes with the same object are one inode. */
export interface LinkGroup {
  readonly id: number
}

/** A file, directory, link or device of a tree that is being built, merged or written. */
export interface RafsNode {
  name: Uint8Array
  /** Type and permission bits, 16 bits. */
  mode: number
  uid: number
  gid: number
  /** Linux dev_t, 32 bits; devices only. */
  rdev: number
  /** Seconds since 1970, may be negative. */
  mtime: number
  mtimeNsec: number
  xattrs: readonly RafsXattr[]
  /** Bytes of a regular file; otherwise unused. */
  size: number
  /** Of a symlink. */
  target: Uint8Array | undefined
  /** Of a directory, in bytewise order of names; undefined for everything else. */
  children: RafsNode[] | undefined
  chunks: readonly RafsChunk[]
  link: LinkGroup | undefined
  /** An archive lists it as a hard link: v5 marks that also where no other name is left. */
  isLinked?: boolean
  /** Its archive had no entry for this directory. */
  isImplied?: true
}

/** An image in memory. */
export interface RafsTree {
  readonly root: RafsNode
  readonly blobs: readonly BlobInfo[]
}

/** A directory node with nothing in it, as builders make parents that a source does not mention: 0755, root:root, time 0. */
export function emptyDirectory(name: Uint8Array): RafsNode {
  return {
    name,
    mode: MODE.DIRECTORY | 0o755,
    uid: 0,
    gid: 0,
    rdev: 0,
    mtime: 0,
    mtimeNsec: 0,
    xattrs: [],
    size: 0,
    target: undefined,
    children: [],
    chunks: [],
    link: undefined,
  }
}

/** The child of that name, found by halving. */
export function findChild(directory: RafsNode, name: Uint8Array): RafsNode | undefined {
  const at = childPosition(directory, name)
  const child = directory.children?.[at]
  return child !== undefined && compareNames(child.name, name) === 0 ? child : undefined
}

/** Puts a child in its place, instead of one of the same name. Children that come in order cost nothing extra. */
export function putChild(directory: RafsNode, child: RafsNode): void {
  const children = (directory.children ??= [])
  const last = children.at(-1)
  if (last === undefined || compareNames(last.name, child.name) < 0) {
    children.push(child)
    return
  }
  const at = childPosition(directory, child.name)
  const replaces = children[at] !== undefined && compareNames(children[at].name, child.name) === 0
  children.splice(at, replaces ? 1 : 0, child)
}

function childPosition(directory: RafsNode, name: Uint8Array): number {
  const children = directory.children ?? []
  let low = 0
  let high = children.length
  while (low < high) {
    const middle = (low + high) >> 1
    if (compareNames(children[middle].name, name) < 0) low = middle + 1
    else high = middle
  }
  return low
}

/**
 * All nodes in the order of the format: the root, then for each directory all its children, then the directories among them, each the same way. Iterative: depth is not
 * bounded by the stack.
 */
export function* hybridOrder(root: RafsNode): Generator<RafsNode> {
  yield root
  const stack: RafsNode[] = [root]
  for (let directory = stack.pop(); directory !== undefined; directory = stack.pop()) {
    const children = directory.children ?? []
    yield* children
    for (let index = children.length - 1; index >= 0; index--) {
      const child = children[index]
      if (child.children !== undefined) stack.push(child)
    }
  }
}

/** Reads a whole image into a tree. Chunks are shared as the image shares them; hard links become link groups. */
export function readTree(image: Bootstrap): RafsTree {
  const attributes = new Attributes()
  const reader = new ChunkReader(image)
  const groups = new Map<Ino, LinkGroup>()
  /** The directories that the walk is in, by depth. */
  const inside: RafsNode[] = []
  for (const { path, ino, depth } of walkBootstrap(image)) {
    image.attributes(ino, attributes)
    const node = readNode(image, attributes, path.slice(path.lastIndexOf(SLASH) + 1), reader)
    if (node.children === undefined && attributes.nlink > 1) {
      const group = groups.get(ino) ?? { id: ino }
      groups.set(ino, group)
      node.link = group
    }
    if (node.children !== undefined) inside[depth] = node
    if (node.children !== undefined && image.isImplied(ino)) node.isImplied = true
    if (depth > 0) inside[depth - 1]?.children?.push(node)
  }
  const [root] = inside
  if (root === undefined) throw new RafsError('BAD_DIRECTORY', 'the image has no root')
  return { root, blobs: image.blobs }
}

function readNode(image: Bootstrap, of: Attributes, name: Uint8Array, chunks: ChunkReader): RafsNode {
  const isFile = isType(of.mode, MODE.FILE)
  return {
    name,
    mode: of.mode,
    uid: of.uid,
    gid: of.gid,
    rdev: of.rdev,
    mtime: of.mtime,
    mtimeNsec: of.mtimeNsec,
    xattrs: of.hasXattrs ? image.xattrs(of.ino) : [],
    size: isFile ? of.size : 0,
    target: isType(of.mode, MODE.SYMLINK) ? image.readlink(of.ino) : undefined,
    children: isType(of.mode, MODE.DIRECTORY) ? [] : undefined,
    chunks: isFile ? chunks.of(of.ino, of.size) : [],
    link: undefined,
  }
}

/** A chunk of its own from one that is read or known, which may change. */
export function chunkFrom(info: Omit<RafsChunk, 'blobIndex'>, blobIndex: number): RafsChunk {
  return {
    blobIndex,
    index: info.index,
    digest: info.digest.slice(),
    compressedOffset: info.compressedOffset,
    compressedSize: info.compressedSize,
    uncompressedOffset: info.uncompressedOffset,
    uncompressedSize: info.uncompressedSize,
    compressed: info.compressed,
    encrypted: info.encrypted,
    crc32c: info.crc32c,
  }
}

/** Reads chunk lists; a chunk met again is the same object. */
class ChunkReader {
  readonly #image: Bootstrap
  readonly #known: Array<Map<number, RafsChunk>>
  readonly #spans: ChunkSpan[] = []
  readonly #info = new ChunkInfo()

  constructor(image: Bootstrap) {
    this.#image = image
    this.#known = image.blobs.map(() => new Map())
  }

  of(ino: Ino, size: number): readonly RafsChunk[] {
    const count = this.#image.chunks(ino, 0, size, this.#spans)
    const found: RafsChunk[] = []
    for (let index = 0; index < count; index++) found.push(this.#chunk(this.#spans[index]))
    return found
  }

  #chunk(span: ChunkSpan): RafsChunk {
    if (this.#image.isTarfs) return this.#plainChunk(span)
    const known = this.#known[span.blobIndex]
    const met = known?.get(span.chunkIndex)
    if (met !== undefined) return met
    const info = this.#info
    this.#image.layout(span.blobIndex).chunk(span.chunkIndex, info)
    const chunk = chunkFrom(info, span.blobIndex)
    known?.set(span.chunkIndex, chunk)
    return chunk
  }

  /** In a plain tar each chunk is of one file, and known by its place. */
  #plainChunk(span: ChunkSpan): RafsChunk {
    readSpanChunk(this.#image, span, this.#info)
    const { index, compressedOffset, compressedSize, uncompressedOffset, uncompressedSize } = this.#info
    const place = { compressedOffset, compressedSize, uncompressedOffset, uncompressedSize }
    return {
      blobIndex: span.blobIndex,
      index,
      digest: NO_DIGEST,
      ...place,
      compressed: false,
      encrypted: false,
      crc32c: undefined,
    }
  }
}

const NO_DIGEST = new Uint8Array(32)
