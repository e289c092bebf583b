import { ChunkInfo } from '../blob/index.ts'
import { Attributes, type Bootstrap, type ChunkSpan, type Ino } from './bootstrap.ts'
import { type ChunkId, type ChunkList, NO_CHUNKS } from './chunk-store.ts'
import { walkBootstrap } from './dump.ts'
import { RafsError } from './errors.ts'
import type { FileTree, NodeId, RafsFiles } from './file-tree.ts'
import { HashIndex, mix } from './hash-index.ts'
import { isType, MODE } from './mode.ts'
import { compareNames, SLASH } from './names.ts'
import type { NodeValues } from './node-values.ts'
import { readSpanChunk } from './span-chunk.ts'
import type { LinkGroup, RafsChunk, RafsNode, RafsTree } from './tree.ts'

/**
 * Reads a whole image as one more tree of `files`; gives its root. Chunks are shared as the image shares them, and name blobs by `blobIndexes` of the image's own numbers.
 */
export function loadFiles(image: Bootstrap, files: FileTree, blobIndexes: readonly number[]): NodeId {
  const attributes = new Attributes()
  const firstChunk = files.chunks.end
  const chunks = new ChunkLoader(image, files)
  const links = new Map<Ino, NodeId>()
  /** The directories that the walk is in, by depth. */
  const inside: NodeId[] = []
  for (const { path, ino, depth } of walkBootstrap(image)) {
    image.attributes(ino, attributes)
    const name = Buffer.from(path.buffer, path.byteOffset, path.length).toString('latin1', path.lastIndexOf(SLASH) + 1)
    const parent = inside[depth - 1] ?? 0
    const isDirectory = isType(attributes.mode, MODE.DIRECTORY)
    const linked = !isDirectory && attributes.nlink > 1 ? links.get(ino) : undefined
    let id: NodeId
    if (linked !== undefined) id = files.link(parent, name, linked)
    else {
      const values = valuesOf(image, attributes, chunks)
      id = depth === 0 ? files.addRoot(values) : files.put(parent, name, values)
      if (!isDirectory && attributes.nlink > 1) links.set(ino, id)
    }
    if (!isDirectory) continue
    inside[depth] = id
    if (image.isImplied(ino)) files.setImplied(id)
  }
  const [root] = inside
  if (root === undefined) throw new RafsError('BAD_DIRECTORY', 'the image has no root')
  for (let id = firstChunk; id < files.chunks.end; id++) {
    const chunk = files.chunks.at(id)
    const blobIndex = blobIndexes[chunk.blobIndex]
    if (blobIndex === undefined)
      throw new RafsError(
        'BAD_CHUNK',
        `a chunk lies in blob ${chunk.blobIndex} of ${blobIndexes.length}; the bootstrap is damaged or crafted`,
      )
    chunk.blobIndex = blobIndex
  }
  return root
}

function valuesOf(image: Bootstrap, of: Attributes, chunks: ChunkLoader): NodeValues {
  const isFile = isType(of.mode, MODE.FILE)
  return {
    mode: of.mode,
    uid: of.uid,
    gid: of.gid,
    rdev: of.rdev,
    mtime: of.mtime,
    mtimeNsec: of.mtimeNsec,
    xattrs: of.hasXattrs ? image.xattrs(of.ino) : [],
    size: isFile ? of.size : 0,
    target: isType(of.mode, MODE.SYMLINK) ? image.readlink(of.ino) : undefined,
    chunks: isFile ? chunks.of(of.ino, of.size) : NO_CHUNKS,
  }
}

/** Reads chunk lists; a chunk met again is the same one. */
class ChunkLoader {
  readonly #image: Bootstrap
  readonly #files: FileTree
  readonly #spans: ChunkSpan[] = []
  readonly #info = new ChunkInfo()
  readonly #known = new HashIndex()

  constructor(image: Bootstrap, files: FileTree) {
    this.#image = image
    this.#files = files
  }

  of(ino: Ino, size: number): ChunkList {
    const count = this.#image.chunks(ino, 0, size, this.#spans)
    if (count === 0) return NO_CHUNKS
    const { chunks } = this.#files
    const list = chunks.addList(count)
    for (let index = 0; index < count; index++) chunks.setUse(list.start + index, this.#chunk(this.#spans[index]))
    return list
  }

  #chunk(span: ChunkSpan): ChunkId {
    const { blobIndex, chunkIndex } = span
    const { chunks } = this.#files
    const hash = mix(mix(0, blobIndex), chunkIndex)
    // In a plain tar each chunk is of one file, and known by its place.
    const known = this.#image.isTarfs
      ? 0
      : this.#known.find(hash, (id) => {
          const chunk = chunks.at(id)
          return chunk.index === chunkIndex && chunk.blobIndex === blobIndex
        })
    if (known !== 0) return known
    if (!readSpanChunk(this.#image, span, this.#info)) this.#image.layout(blobIndex).chunk(chunkIndex, this.#info)
    const { batchOffset: _offset, batchSize: _size, ...info } = this.#info
    const id = chunks.add({ ...info, blobIndex })
    if (!this.#image.isTarfs) this.#known.add(hash, id)
    return id
  }
}

/** A tree of objects in the compact form, and which entry each object became. Hard links take the values of the first. */
export function compactTree(
  tree: RafsTree,
  files: FileTree,
): RafsFiles & { readonly idOf: (node: RafsNode) => NodeId } {
  const ids = new Map<RafsNode, NodeId>()
  const links = new Map<LinkGroup, NodeId>()
  const known = new Map<RafsChunk, ChunkId>()
  const chunkId = (chunk: RafsChunk): ChunkId => {
    const id = known.get(chunk) ?? files.chunks.add(chunk)
    known.set(chunk, id)
    return id
  }
  const values = (node: RafsNode): NodeValues => ({ ...node, chunks: chunkList(files, node.chunks.map(chunkId)) })
  const add = (node: RafsNode, parent: NodeId): void => {
    const name = Buffer.from(node.name).toString('latin1')
    const linked = node.link === undefined ? undefined : links.get(node.link)
    const id = linked === undefined ? files.put(parent, name, values(node)) : files.link(parent, name, linked)
    if (node.link !== undefined && linked === undefined) links.set(node.link, id)
    if (node.link !== undefined || node.isLinked === true) files.setLinked(id)
    if (node.isImplied === true) files.setImplied(id)
    ids.set(node, id)
  }
  const root = files.addRoot(values(tree.root))
  ids.set(tree.root, root)
  const open = [tree.root]
  for (let directory = open.pop(); directory !== undefined; directory = open.pop()) {
    const parent = ids.get(directory) ?? root
    let previous: Uint8Array | undefined
    for (const child of directory.children ?? []) {
      if (previous !== undefined && compareNames(previous, child.name) >= 0)
        throw new RafsError(
          'BAD_DIRECTORY',
          `a directory holds ${JSON.stringify(Buffer.from(child.name).toString())} twice or out of order`,
        )
      previous = child.name
      add(child, parent)
      if (child.children !== undefined) open.push(child)
    }
  }
  return { files, root, blobs: tree.blobs, idOf: (node) => ids.get(node) ?? 0 }
}

function chunkList(files: FileTree, ids: readonly ChunkId[]): ChunkList {
  const list = files.chunks.addList(ids.length)
  for (const [index, id] of ids.entries()) files.chunks.setUse(list.start + index, id)
  return list
}
