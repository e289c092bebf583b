import { ChunkInfo } from '../blob/index.ts'
import {
  Attributes,
  type Bootstrap,
  type ChunkSpan,
  type Ino,
  listChunks,
  openBootstrap,
  type FileTree,
  type NodeId,
  type RafsFiles,
} from '../rafs/index.ts'
import { BuilderError } from './errors.ts'
import { shown, toKey } from './image-path.ts'

/**
 * Opens what was written and compares it with what was meant: every name, attribute, link, xattr and chunk. Throws BuilderError 'READBACK' at the first difference. Cheap
 * beside the build, and the last chance to notice.
 */
export function readBack(bytes: Uint8Array, tree: RafsFiles): void {
  new Comparison(openBootstrap(bytes), tree).run()
}

class Comparison {
  readonly #image: Bootstrap
  readonly #tree: RafsFiles
  readonly #files: FileTree
  readonly #attributes = new Attributes()
  readonly #spans: ChunkSpan[] = []
  readonly #info = new ChunkInfo()
  readonly #checkedChunks: Uint8Array
  #entries = 0

  constructor(image: Bootstrap, tree: RafsFiles) {
    this.#image = image
    this.#tree = tree
    this.#files = tree.files
    this.#checkedChunks = new Uint8Array(tree.files.chunks.end)
  }

  run(): void {
    const { blobs, root, version, inodeCount, entryLimit } = this.#image
    const top = this.#tree.root
    this.#same('number of blobs', top, blobs.length, this.#tree.blobs.length)
    for (const [i, blob] of blobs.entries()) this.#same('blob id', top, blob.id, this.#tree.blobs[i]?.id)
    const open: Array<readonly [Ino, NodeId]> = [[root, top]]
    this.#node(root, top)
    for (let pair = open.pop(); pair !== undefined; pair = open.pop()) this.#directory(pair[0], pair[1], open)
    this.#same('number of entries', top, version === 5 ? entryLimit : inodeCount, this.#entries)
  }

  #directory(ino: Ino, directory: NodeId, open: Array<readonly [Ino, NodeId]>): void {
    const files = this.#files
    let child = files.firstChild(directory)
    this.#image.list(ino, 0, (name, childIno) => {
      if (child === 0 || !files.hasName(child, name))
        this.#same('entry', directory, toKey(name), child === 0 ? undefined : files.text(child))
      this.#node(childIno, child)
      if (files.isDirectory(child)) open.push([childIno, child])
      child = files.next(child)
      return true
    })
    if (child !== 0) this.#same('entry', directory, 'missing', files.text(child))
  }

  #node(ino: Ino, id: NodeId): void {
    const files = this.#files
    this.#entries += 1
    const found = this.#attributes
    this.#image.attributes(ino, found)
    if (found.mode !== files.mode(id)) this.#same('mode', id, found.mode, files.mode(id))
    if (found.uid !== files.uid(id)) this.#same('uid', id, found.uid, files.uid(id))
    if (found.gid !== files.gid(id)) this.#same('gid', id, found.gid, files.gid(id))
    if (found.mtime !== files.mtime(id)) this.#same('mtime', id, found.mtime, files.mtime(id))
    if (found.mtimeNsec !== files.mtimeNsec(id))
      this.#same('mtime nanoseconds', id, found.mtimeNsec, files.mtimeNsec(id))
    if (found.hasXattrs || files.xattrKey(id) !== 0) this.#xattrs(ino, id)
    const target = files.target(id)
    if (target !== undefined) this.#same('target', id, toKey(this.#image.readlink(ino)), toKey(target))
    if (!files.isFile(id)) return
    if (found.size !== files.size(id)) this.#same('size', id, found.size, files.size(id))
    if (files.chunkCount(id) > 0) this.#chunks(ino, id)
  }

  #xattrs(ino: Ino, id: NodeId): void {
    const text = (xattrs: ReadonlyArray<{ readonly name: Uint8Array; readonly value: Uint8Array }>): string =>
      JSON.stringify(xattrs.map(({ name, value }) => `${toKey(name)}=${toKey(value)}`).sort())
    this.#same('xattrs', id, text(this.#image.xattrs(ino)), text(this.#files.xattrs(id)))
  }

  #chunks(ino: Ino, id: NodeId): void {
    const files = this.#files
    const chunks = files.chunkCount(id)
    const count = listChunks(this.#image, ino, files.size(id), this.#spans)
    if (count !== chunks) this.#same('number of chunks', id, count, chunks)
    for (let i = 0; i < chunks; i += 1) {
      const chunkId = files.chunk(id, i)
      const chunk = files.chunks.at(chunkId)
      const span = this.#spans[i]
      if (
        span?.blobIndex !== chunk.blobIndex ||
        span.chunkIndex !== chunk.index ||
        span.chunkOffset !== chunk.uncompressedOffset
      ) {
        this.#same(
          `chunk ${i}`,
          id,
          `${span?.blobIndex}:${span?.chunkIndex}@${span?.chunkOffset}`,
          `${chunk.blobIndex}:${chunk.index}@${chunk.uncompressedOffset}`,
        )
      }
      if (this.#checkedChunks[chunkId] === 1) continue
      this.#checkedChunks[chunkId] = 1
      const layout = this.#image.layout(chunk.blobIndex)
      if (!layout.has(chunk.index)) {
        // Plain tars have none. Elsewhere two chunks of one blob have one digest: the one without a record cannot be read.
        if (!this.#image.isTarfs) this.#same(`record of chunk ${i}`, id, 'none', 'one')
        continue
      }
      const info = this.#info
      layout.chunk(chunk.index, info)
      if (info.compressedOffset === chunk.compressedOffset && Buffer.compare(info.digest, chunk.digest) === 0) continue
      this.#same(`digest of chunk ${i}`, id, toKey(info.digest), toKey(chunk.digest))
      this.#same(`place of chunk ${i}`, id, info.compressedOffset, chunk.compressedOffset)
    }
  }

  #same(what: string, id: NodeId, found: number | string, wanted: number | string | undefined): void {
    if (found === wanted) return
    throw new BuilderError(
      'READBACK',
      `the bootstrap does not read back as it was meant: ${what} of ${shown(this.#files.path(id))} is ${JSON.stringify(found)} where ${JSON.stringify(wanted)} was written; nothing was published, please report this`,
    )
  }
}
