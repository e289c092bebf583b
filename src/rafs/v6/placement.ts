import { RafsError } from '../errors.ts'
import type { FileTree, NodeId } from '../file-tree.ts'
import { isType, MODE } from '../mode.ts'
import { roundUp } from '../numbers.ts'
import { OffsetAllocator } from './allocator.ts'
import { direntSize, planDirents } from './dirents.ts'
import { CHUNK_ADDRESS, EXTENDED_INODE, SLOT } from './layout.ts'
import { encodeXattrs } from './xattr-writer.ts'

/** Inode numbers go into 31 bits. */
const MAX_INODES = 0x7fff_ffff
/** Symlink targets that Linux takes. */
const TARGET_MAX = 4095
const NOTHING = new Uint8Array(0)

/**
 * Numbers and places of all inodes of a tree, relative to the meta area: a directory, then its children that are no directories, then each directory among them. By entry number of
 * the inode: 12 bytes an entry.
 */
export class Placement {
  readonly #files: FileTree
  readonly #root: NodeId
  readonly #blockSize: number
  readonly #allocator: OffsetAllocator
  readonly #slots: Uint32Array
  readonly #indexes: Uint32Array
  /** Of directories and symlinks. */
  readonly #dataBlocks: Uint32Array
  readonly #linkCounts = new Map<NodeId, number>()
  #lastXattrs: { readonly of: number; readonly area: Uint8Array } = { of: 0, area: NOTHING }
  /** Paths. */
  count = 0
  hasXattrs = false

  constructor(files: FileTree, root: NodeId, blockSize: number) {
    this.#files = files
    this.#root = root
    this.#blockSize = blockSize
    this.#allocator = new OffsetAllocator(blockSize)
    this.#slots = new Uint32Array(files.end)
    this.#indexes = new Uint32Array(files.end)
    this.#dataBlocks = new Uint32Array(files.end)
    this.#placeAll()
  }

  /** Bytes of the meta area. */
  get end(): number {
    return this.#allocator.end
  }

  at(id: NodeId): number {
    return this.#slots[this.#files.inode(id)] * SLOT
  }

  index(id: NodeId): number {
    return this.#indexes[this.#files.inode(id)]
  }

  dataBlock(id: NodeId): number {
    return this.#dataBlocks[this.#files.inode(id)]
  }

  /** The end of a directory's or symlink's data lies directly behind the inode and its xattrs. */
  isInline(id: NodeId, dataSize: number): boolean {
    const head = EXTENDED_INODE.size + this.#xattrSize(id)
    const tail = dataSize % this.#blockSize
    // Readers of the format take the whole target of a symlink from one place.
    const isWhole = dataSize === tail || this.#files.isDirectory(id)
    return tail !== 0 && isWhole && head + tail <= this.#blockSize
  }

  linkCount(id: NodeId): number {
    const files = this.#files
    if (!files.isDirectory(id)) return this.#linkCounts.get(files.inode(id)) ?? 1
    let count = 2
    for (let child = files.firstChild(id); child !== 0; child = files.next(child)) if (files.isDirectory(child)) count++
    return count
  }

  /** The inode's xattr area. */
  xattrs(id: NodeId): Uint8Array {
    const key = this.#files.xattrKey(id)
    if (key === 0) return NOTHING
    if (key !== this.#lastXattrs.of)
      this.#lastXattrs = { of: key, area: encodeXattrs(this.#files.xattrs(id), () => show(this.#files, id)) }
    return this.#lastXattrs.area
  }

  #placeAll(): void {
    const files = this.#files
    this.#indexes[this.#root] = ++this.count
    const open = [this.#root]
    for (let directory = open.pop(); directory !== undefined; directory = open.pop()) {
      files.sort(directory)
      this.#placeWithData(directory, direntSize(files, planDirents(files, directory), this.#blockSize))
      const directories: NodeId[] = []
      for (let child = files.firstChild(directory); child !== 0; child = files.next(child)) {
        const index = ++this.count
        if (files.isDirectory(child)) {
          this.#indexes[child] = index
          directories.push(child)
        } else this.#placeLeaf(child, index)
      }
      while (directories.length > 0) open.push(directories.pop() ?? 0)
    }
    if (this.count > MAX_INODES)
      throw new RafsError('TOO_LARGE', `the image has ${this.count} entries, RAFS v6 can hold ${MAX_INODES}`)
  }

  #placeLeaf(id: NodeId, index: number): void {
    const files = this.#files
    const inode = files.inode(id)
    if (files.isShared(id)) this.#linkCounts.set(inode, (this.#linkCounts.get(inode) ?? 0) + 1)
    if (this.#slots[inode] !== 0) return
    this.#indexes[inode] = index
    if (isType(files.mode(id), MODE.SYMLINK)) {
      const length = files.target(id)?.length ?? 0
      if (length === 0 || length > TARGET_MAX)
        throw new RafsError(
          'TOO_LARGE',
          `${show(files, id)}: a symlink target of ${length} bytes; 1 to ${TARGET_MAX} are possible`,
        )
      this.#placeWithData(inode, length)
      return
    }
    const head = EXTENDED_INODE.size + this.#xattrSize(id)
    const isFile = files.isFile(id)
    const size = isFile ? roundUp(head, 8) + CHUNK_ADDRESS.size * files.chunkCount(id) : head
    const reused = isFile ? this.#allocator.reuse(size) : -1
    this.#slots[inode] = (reused >= 0 ? reused : this.#allocator.append(size)) / SLOT
    this.#allocator.align(SLOT)
  }

  /** Directories and symlinks: the last part of the data directly behind the inode when both fit one block, the rest in blocks of its own. */
  #placeWithData(inode: NodeId, dataSize: number): void {
    const allocator = this.#allocator
    const blockSize = this.#blockSize
    const head = EXTENDED_INODE.size + this.#xattrSize(inode)
    const tail = dataSize % blockSize
    let at: number
    let dataAt: number
    if (this.isInline(inode, dataSize)) {
      at = allocator.reuse(head + tail)
      if (at < 0) {
        if (blockSize - (allocator.end % blockSize) < head + tail) {
          allocator.leave(allocator.end)
          allocator.align(blockSize)
        }
        at = allocator.append(head + tail)
      }
      if (dataSize !== tail) {
        allocator.leave(allocator.end)
        allocator.align(blockSize)
      }
      dataAt = allocator.append(dataSize - tail)
    } else {
      at = allocator.reuse(head)
      if (at < 0) at = allocator.append(head)
      allocator.leave(allocator.end)
      allocator.align(blockSize)
      dataAt = allocator.append(dataSize)
      allocator.align(blockSize)
    }
    allocator.align(SLOT)
    this.#slots[inode] = at / SLOT
    this.#dataBlocks[inode] = Math.floor(dataAt / blockSize)
  }

  #xattrSize(id: NodeId): number {
    if (this.#files.xattrKey(id) === 0) return 0
    this.hasXattrs = true
    return this.xattrs(id).length
  }
}

export function show(files: FileTree, id: NodeId): string {
  return JSON.stringify(Buffer.from(files.name(id)).toString('utf8').slice(0, 200))
}
