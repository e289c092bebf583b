import { ChunkInfo } from '../blob/index.ts'
import {
  Attributes,
  type Bootstrap,
  type ChunkSpan,
  type Ino,
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
    const { blobs, root, inodeCount } = this.#image
    this.#same('number of blobs', '/', blobs.length, this.#tree.blobs.length)
    for (const [i, blob] of blobs.entries()) this.#same('blob id', '/', blob.id, this.#tree.blobs[i]?.id)
    const open: Array<readonly [Ino, RafsNode, string]> = [[root, this.#tree.root, '']]
    this.#node(root, this.#tree.root, '/')
    for (let pair = open.pop(); pair !== undefined; pair = open.pop()) {
      const [ino, node, path] = pair
      const inodes = this.#children(ino, node, path)
      for (const [i, child] of (node.children ?? []).entries()) {
        const childPath = `${path}/${toKey(child.name)}`
        const childIno = inodes[i] ?? 0
        this.#node(childIno, child, childPath)
        if (child.children !== undefined) open.push([childIno, child, childPath])
      }
    }
    this.#same('number of entries', '/', inodeCount, this.#entries)
  }

  #children(ino: Ino, node: RafsNode, path: string): Ino[] {
    const children = node.children ?? []
    const inodes: Ino[] = []
    this.#image.list(ino, 0, (name, child) => {
      const wanted = children[inodes.length]
      if (wanted === undefined || Buffer.compare(name, wanted.name) !== 0)
        this.#same('entry', path, toKey(name), wanted === undefined ? undefined : toKey(wanted.name))
      inodes.push(child)
      return true
    })
    this.#same('number of entries', path, inodes.length, children.length)
    return inodes
  }

  #node(ino: Ino, node: RafsNode, path: string): void {
    this.#entries += 1
    const found = this.#attributes
    this.#image.attributes(ino, found)
    this.#same('mode', path, found.mode, node.mode)
    this.#same('uid', path, found.uid, node.uid)
    this.#same('gid', path, found.gid, node.gid)
    this.#same('mtime', path, found.mtime, node.mtime)
    this.#same('mtime nanoseconds', path, found.mtimeNsec, node.mtimeNsec)
    if (node.target !== undefined) this.#same('target', path, toKey(this.#image.readlink(ino)), toKey(node.target))
    if (found.hasXattrs || node.xattrs.length > 0) this.#xattrs(ino, node, path)
    if (node.children === undefined && node.target === undefined && node.rdev === 0)
      this.#same('size', path, found.size, node.size)
    if (node.chunks.length > 0) this.#chunks(ino, node, path)
  }

  #xattrs(ino: Ino, node: RafsNode, path: string): void {
    const text = (xattrs: ReadonlyArray<{ readonly name: Uint8Array; readonly value: Uint8Array }>): string =>
      JSON.stringify(xattrs.map(({ name, value }) => `${toKey(name)}=${toKey(value)}`).sort())
    this.#same('xattrs', path, text(this.#image.xattrs(ino)), text(node.xattrs))
  }

  #chunks(ino: Ino, node: RafsNode, path: string): void {
    const count = this.#image.chunks(ino, 0, node.size, this.#spans)
    this.#same('number of chunks', path, count, node.chunks.length)
    for (const [i, chunk] of node.chunks.entries()) {
      const span = this.#spans[i]
      if (
        span?.blobIndex !== chunk.blobIndex ||
        span.chunkIndex !== chunk.index ||
        span.chunkOffset !== chunk.uncompressedOffset
      ) {
        this.#same(
          `chunk ${i}`,
          path,
          `${span?.blobIndex}:${span?.chunkIndex}@${span?.chunkOffset}`,
          `${chunk.blobIndex}:${chunk.index}@${chunk.uncompressedOffset}`,
        )
      }
      if (this.#checkedChunks.has(chunk)) continue
      this.#checkedChunks.add(chunk)
      const layout = this.#image.layout(chunk.blobIndex)
      // Two chunks of one blob with one digest but other sizes share a record: the format has no better.
      if (!layout.has(chunk.index)) continue
      layout.chunk(chunk.index, this.#info)
      this.#same(`digest of chunk ${i}`, path, toKey(this.#info.digest), toKey(chunk.digest))
      this.#same(`place of chunk ${i}`, path, this.#info.compressedOffset, chunk.compressedOffset)
    }
  }

  #same(what: string, path: string, found: number | string, wanted: number | string | undefined): void {
    if (found === wanted) return
    throw new BuilderError(
      'READBACK',
      `the bootstrap does not read back as it was meant: ${what} of ${shown(path || '/')} is ${JSON.stringify(found)} where ${JSON.stringify(wanted)} was written; nothing was published, please report this`,
    )
  }
}
