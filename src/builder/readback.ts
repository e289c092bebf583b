import { ChunkInfo } from '../blob/index.ts'
import {
  Attributes,
  type Bootstrap,
  type ChunkSpan,
  type Ino,
  listChunks,
  openBootstrap,
  type RafsNode,
  type RafsTree,
} from '../rafs/index.ts'
import { BuilderError } from './errors.ts'
import { shown, toKey } from './image-path.ts'

/**
 * Opens what was written and compares it with what was meant: every name, attribute, link, xattr and chunk. Throws BuilderError 'READBACK' at the first difference. Cheap
 * beside the build, and the last chance to notice.
 */
export function readBack(bytes: Uint8Array, tree: RafsTree): void {
  new Comparison(openBootstrap(bytes), tree).run()
}

class Comparison {
  readonly #image: Bootstrap
  readonly #tree: RafsTree
  readonly #attributes = new Attributes()
  readonly #spans: ChunkSpan[] = []
  readonly #info = new ChunkInfo()
  readonly #checkedChunks = new Set<object>()
  #entries = 0

  constructor(image: Bootstrap, tree: RafsTree) {
    this.#image = image
    this.#tree = tree
  }

  run(): void {
    const { blobs, root, version, inodeCount, entryLimit } = this.#image
    const top: Folder = { parent: undefined, node: this.#tree.root }
    this.#same('number of blobs', top, blobs.length, this.#tree.blobs.length)
    for (const [i, blob] of blobs.entries()) this.#same('blob id', top, blob.id, this.#tree.blobs[i]?.id)
    const open: Array<readonly [Ino, Folder]> = [[root, top]]
    this.#node(root, this.#tree.root, undefined)
    for (let pair = open.pop(); pair !== undefined; pair = open.pop()) {
      const [ino, folder] = pair
      const inodes = this.#children(ino, folder)
      const children = folder.node.children ?? []
      for (let i = 0; i < children.length; i += 1) {
        const child = children[i]
        if (child === undefined) break
        const childIno = inodes[i] ?? 0
        this.#node(childIno, child, folder)
        if (child.children !== undefined) open.push([childIno, { parent: folder, node: child }])
      }
    }
    this.#same('number of entries', top, version === 5 ? entryLimit : inodeCount, this.#entries)
  }

  #children(ino: Ino, folder: Folder): Ino[] {
    const children = folder.node.children ?? []
    const inodes: Ino[] = []
    this.#image.list(ino, 0, (name, child) => {
      const wanted = children[inodes.length]
      if (wanted === undefined || Buffer.compare(name, wanted.name) !== 0)
        this.#same('entry', folder, toKey(name), wanted === undefined ? undefined : toKey(wanted.name))
      inodes.push(child)
      return true
    })
    this.#same('number of entries', folder, inodes.length, children.length)
    return inodes
  }

  #node(ino: Ino, node: RafsNode, parent: Folder | undefined): void {
    this.#entries += 1
    const found = this.#attributes
    this.#image.attributes(ino, found)
    if (
      found.mode !== node.mode ||
      found.uid !== node.uid ||
      found.gid !== node.gid ||
      found.mtime !== node.mtime ||
      found.mtimeNsec !== node.mtimeNsec
    ) {
      const at = { parent, node }
      this.#same('mode', at, found.mode, node.mode)
      this.#same('uid', at, found.uid, node.uid)
      this.#same('gid', at, found.gid, node.gid)
      this.#same('mtime', at, found.mtime, node.mtime)
      this.#same('mtime nanoseconds', at, found.mtimeNsec, node.mtimeNsec)
    }
    if (node.target !== undefined)
      this.#same('target', { parent, node }, toKey(this.#image.readlink(ino)), toKey(node.target))
    if (found.hasXattrs || node.xattrs.length > 0) this.#xattrs(ino, { parent, node })
    if (found.size !== node.size && node.children === undefined && node.target === undefined && node.rdev === 0)
      this.#same('size', { parent, node }, found.size, node.size)
    if (node.chunks.length > 0) this.#chunks(ino, node, parent)
  }

  #xattrs(ino: Ino, at: Folder): void {
    const text = (xattrs: ReadonlyArray<{ readonly name: Uint8Array; readonly value: Uint8Array }>): string =>
      JSON.stringify(xattrs.map(({ name, value }) => `${toKey(name)}=${toKey(value)}`).sort())
    this.#same('xattrs', at, text(this.#image.xattrs(ino)), text(at.node.xattrs))
  }

  #chunks(ino: Ino, node: RafsNode, parent: Folder | undefined): void {
    const { chunks } = node
    const count = listChunks(this.#image, ino, node.size, this.#spans)
    if (count !== chunks.length) this.#same('number of chunks', { parent, node }, count, chunks.length)
    for (let i = 0; i < chunks.length; i += 1) {
      const chunk = chunks[i]
      const span = this.#spans[i]
      if (chunk === undefined) break
      if (
        span?.blobIndex !== chunk.blobIndex ||
        span.chunkIndex !== chunk.index ||
        span.chunkOffset !== chunk.uncompressedOffset
      ) {
        this.#same(
          `chunk ${i}`,
          { parent, node },
          `${span?.blobIndex}:${span?.chunkIndex}@${span?.chunkOffset}`,
          `${chunk.blobIndex}:${chunk.index}@${chunk.uncompressedOffset}`,
        )
      }
      if (this.#checkedChunks.has(chunk)) continue
      this.#checkedChunks.add(chunk)
      const layout = this.#image.layout(chunk.blobIndex)
      // Two chunks of one blob with one digest but other sizes share a record: the format has no better.
      if (!layout.has(chunk.index)) continue
      const info = this.#info
      layout.chunk(chunk.index, info)
      if (info.compressedOffset === chunk.compressedOffset && Buffer.compare(info.digest, chunk.digest) === 0) continue
      this.#same(`digest of chunk ${i}`, { parent, node }, toKey(info.digest), toKey(chunk.digest))
      this.#same(`place of chunk ${i}`, { parent, node }, info.compressedOffset, chunk.compressedOffset)
    }
  }

  #same(what: string, at: Folder, found: number | string, wanted: number | string | undefined): void {
    if (found === wanted) return
    throw new BuilderError(
      'READBACK',
      `the bootstrap does not read back as it was meant: ${what} of ${shown(pathOf(at))} is ${JSON.stringify(found)} where ${JSON.stringify(wanted)} was written; nothing was published, please report this`,
    )
  }
}

/** A node and the way to it: paths are spelled out only for messages. */
interface Folder {
  readonly parent: Folder | undefined
  readonly node: RafsNode
}

function pathOf(at: Folder): string {
  const names: string[] = []
  for (let here: Folder = at; here.parent !== undefined; here = here.parent) names.unshift(toKey(here.node.name))
  return `/${names.join('/')}`
}
