import { BLOB_FEATURES } from '../../blob/index.ts'
import { CHUNK_RECORD, writeChunkRecord } from '../chunk-record.ts'
import { RafsError } from '../errors.ts'
import type { FileTree, NodeId, RafsFiles } from '../file-tree.ts'
import { isType, MODE } from '../mode.ts'
import { NAME_MAX } from '../names.ts'
import type { RafsXattr } from '../tree.ts'
import type { InodeNumbers } from './inode-numbers.ts'
import { INODE, INODE_FLAGS } from './layout.ts'
import { roundUp, setLong } from '../numbers.ts'
import type { FileWriteOptionsV5 } from './writer.ts'

/** Linux's limits. */
const TARGET_MAX = 4095
const XATTR_NAME_MAX = 255
const XATTR_VALUE_MAX = 65_536
/** What a directory's entry counts beside its name in the directory's size; there are no entries on disk. */
const ENTRY_SIZE = 8
const XATTR_PREFIXES = /^(user\.|security\.|trusted\.|system\.posix_acl_(access|default)$)/
const NO_DEVICE = 0xffff_ffff
const ROOT_NAME = new Uint8Array([0x2f])
const NOTHING = new Uint8Array(0)

/** Bytes of an inode's record. Throws 'TOO_LARGE' and 'UNSUPPORTED' for what it cannot hold. */
export function inodeSize(files: FileTree, id: NodeId): number {
  const name = files.nameLength(id)
  const target = files.target(id) ?? NOTHING
  if (name > NAME_MAX)
    throw new RafsError('TOO_LARGE', `${show(files, id)}: its name has ${name} bytes, ${NAME_MAX} are the limit`)
  if (target.length > TARGET_MAX)
    throw new RafsError(
      'TOO_LARGE',
      `${show(files, id)}: its target has ${target.length} bytes, ${TARGET_MAX} are the limit`,
    )
  const xattrs = files.xattrKey(id) === 0 ? [] : files.xattrs(id)
  for (const xattr of xattrs) checkXattr(() => show(files, id), xattr)
  return (
    INODE.size +
    roundUp(Math.max(1, name), 8) +
    roundUp(target.length, 8) +
    (xattrs.length === 0 ? 0 : 8 + roundUp(xattrBytes(xattrs), 8)) +
    files.chunkCount(id) * CHUNK_RECORD.size
  )
}

function checkXattr(path: () => string, { name, value }: RafsXattr): void {
  const text = Buffer.from(name).toString('latin1')
  if (!XATTR_PREFIXES.test(text))
    throw new RafsError(
      'UNSUPPORTED',
      `${path()}: RAFS cannot hold xattr ${JSON.stringify(text)}: only user., trusted., security. and POSIX ACLs`,
    )
  if (name.length > XATTR_NAME_MAX || value.length > XATTR_VALUE_MAX)
    throw new RafsError(
      'TOO_LARGE',
      `${path()}: xattr ${JSON.stringify(text)} with ${value.length} bytes is larger than RAFS v5 can hold (${XATTR_VALUE_MAX})`,
    )
}

function xattrBytes(xattrs: readonly RafsXattr[]): number {
  return xattrs.reduce((sum, { name, value }) => sum + 4 + name.length + 1 + value.length, 0)
}

/** Writes inodes, each with its name, target, xattrs and chunk records; all but its digest. */
export class InodeWriter {
  readonly #view: DataView
  readonly #bytes: Uint8Array
  readonly #tree: RafsFiles
  readonly #files: FileTree
  readonly #numbers: InodeNumbers
  readonly #options: FileWriteOptionsV5

  constructor(view: DataView, tree: RafsFiles, numbers: InodeNumbers, options: FileWriteOptionsV5) {
    this.#view = view
    this.#bytes = new Uint8Array(view.buffer)
    this.#tree = tree
    this.#files = tree.files
    this.#numbers = numbers
    this.#options = options
  }

  write(id: NodeId, at: number): void {
    const files = this.#files
    const view = this.#view
    const numbers = this.#numbers
    const parent = numbers.parent(id)
    const name = parent === 0 ? ROOT_NAME : files.name(id)
    const target = files.target(id) ?? NOTHING
    const xattrs = files.xattrKey(id) === 0 ? [] : files.xattrs(id)
    const isDirectory = files.isDirectory(id)
    const size = isDirectory ? this.#directorySize(id) : files.isFile(id) ? files.size(id) : target.length
    setLong(view, at + INODE.parent, parent)
    setLong(view, at + INODE.ino, numbers.ino(id))
    view.setUint32(at + INODE.uid, files.uid(id), true)
    view.setUint32(at + INODE.gid, files.gid(id), true)
    view.setUint32(at + INODE.mode, files.mode(id), true)
    setLong(view, at + INODE.fileSize, size)
    setLong(view, at + INODE.blocks, Math.ceil((size + roundUp(xattrBytes(xattrs), 8)) / 512))
    setLong(view, at + INODE.flags, this.#flags(id, target.length > 0, xattrs.length > 0))
    view.setUint32(at + INODE.nlink, isDirectory ? 2 + this.#count(id, true) : numbers.links(id), true)
    view.setUint32(at + INODE.childIndex, isDirectory ? numbers.childIndex(id) : 0, true)
    view.setUint32(at + INODE.childCount, isDirectory ? this.#count(id, false) : files.chunkCount(id), true)
    view.setUint16(at + INODE.nameSize, name.length, true)
    view.setUint16(at + INODE.symlinkSize, target.length, true)
    view.setUint32(at + INODE.rdev, this.#device(id), true)
    view.setUint32(at + INODE.mtimeNsec, files.mtimeNsec(id), true)
    setLong(view, at + INODE.mtime, files.mtime(id))
    if (files.isImplied(id)) this.#bytes[at + INODE.implied] = 1
    this.#bytes.set(name, at + INODE.size)
    let end = at + INODE.size + roundUp(name.length, 8)
    this.#bytes.set(target, end)
    end += roundUp(target.length, 8)
    end = this.#writeXattrs(end, xattrs)
    this.#writeChunks(end, id)
  }

  #directorySize(id: NodeId): number {
    const files = this.#files
    let size = 0
    for (let child = files.firstChild(id); child !== 0; child = files.next(child))
      size += files.nameLength(child) + ENTRY_SIZE
    return Math.max(4096, roundUp(size, 4096))
  }

  /** Children, or directories among them. */
  #count(id: NodeId, areDirectories: boolean): number {
    const files = this.#files
    let count = 0
    for (let child = files.firstChild(id); child !== 0; child = files.next(child))
      if (!areDirectories || files.isDirectory(child)) count++
    return count
  }

  #flags(id: NodeId, isSymlink: boolean, hasXattrs: boolean): number {
    const files = this.#files
    const isLinked = files.isLinked(id) || (files.isShared(id) && this.#numbers.links(id) > 1)
    return (
      (isSymlink ? INODE_FLAGS.SYMLINK : 0) |
      (this.#options.source === 'archive' && isLinked ? INODE_FLAGS.HARDLINK : 0) |
      (hasXattrs ? INODE_FLAGS.XATTR : 0)
    )
  }

  #device(id: NodeId): number {
    const mode = this.#files.mode(id)
    const hasNumber = isType(mode, MODE.CHAR) || isType(mode, MODE.BLOCK) || isType(mode, MODE.FIFO)
    return hasNumber ? this.#files.rdev(id) : this.#options.source === 'archive' ? NO_DEVICE : 0
  }

  #writeXattrs(at: number, xattrs: readonly RafsXattr[]): number {
    if (xattrs.length === 0) return at
    const size = xattrBytes(xattrs)
    setLong(this.#view, at, size)
    let pair = at + 8
    for (const { name, value } of xattrs) {
      this.#view.setUint32(pair, name.length + 1 + value.length, true)
      this.#bytes.set(name, pair + 4)
      this.#bytes.set(value, pair + 4 + name.length + 1)
      pair += 4 + name.length + 1 + value.length
    }
    return at + 8 + roundUp(size, 8)
  }

  /** External blobs have a chunk size of their own, which every chunk of a file has but the last. */
  #chunkSize(id: NodeId): number {
    const { chunkSize } = this.#options
    const count = this.#files.chunkCount(id)
    if (count === 0) return chunkSize
    const first = this.#files.chunks.at(this.#files.chunk(id, 0))
    const blob = this.#tree.blobs[first.blobIndex]
    if (((blob?.features ?? 0) & BLOB_FEATURES.EXTERNAL) === 0) return chunkSize
    return count > 1 ? first.uncompressedSize : Math.max(first.uncompressedSize, chunkSize)
  }

  #writeChunks(at: number, id: NodeId): void {
    const files = this.#files
    const count = files.chunkCount(id)
    const chunkSize = this.#chunkSize(id)
    const expected = files.isFile(id) ? Math.ceil(files.size(id) / chunkSize) : 0
    if (count !== expected)
      throw new RafsError(
        'BAD_CHUNK',
        `${show(files, id)}: ${count} chunks for ${files.size(id)} bytes, ${expected} are needed`,
      )
    for (let index = 0; index < count; index++) {
      const chunk = files.chunks.at(files.chunk(id, index))
      if (this.#tree.blobs[chunk.blobIndex] === undefined)
        throw new RafsError(
          'BAD_CHUNK',
          `${show(files, id)} names blob ${chunk.blobIndex} of ${this.#tree.blobs.length}`,
        )
      writeChunkRecord(this.#view, at + index * CHUNK_RECORD.size, chunk, index * chunkSize)
    }
  }
}

function show(files: FileTree, id: NodeId): string {
  return JSON.stringify(Buffer.from(files.name(id)).toString('utf8').slice(0, 200))
}
