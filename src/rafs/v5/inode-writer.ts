import { BLOB_FEATURES } from '../../blob/index.ts'
import { CHUNK_RECORD, writeChunkRecord } from '../chunk-record.ts'
import { RafsError } from '../errors.ts'
import { isType, MODE } from '../mode.ts'
import { NAME_MAX } from '../names.ts'
import { type RafsNode, type RafsTree, type RafsXattr, targetOf } from '../tree.ts'
import type { NumberedInode } from './inode-numbers.ts'
import { INODE, INODE_FLAGS } from './layout.ts'
import { roundUp, setU64 } from './numbers.ts'
import type { WriteOptionsV5 } from './writer.ts'

/** Linux's limits. */
const TARGET_MAX = 4095
const XATTR_NAME_MAX = 255
const XATTR_VALUE_MAX = 65_536
/** What a directory's entry counts beside its name in the directory's size; there are no entries on disk. */
const ENTRY_SIZE = 8
const XATTR_PREFIXES = /^(user\.|security\.|trusted\.|system\.posix_acl_(access|default)$)/
const NO_DEVICE = 0xffff_ffff
const ROOT_NAME = new Uint8Array([0x2f])

/** Bytes of an inode's record. Throws 'TOO_LARGE' and 'UNSUPPORTED' for what it cannot hold. */
export function inodeSize(node: RafsNode): number {
  const target = targetOf(node)
  if (node.name.length > NAME_MAX)
    throw new RafsError('TOO_LARGE', `${show(node)}: its name has ${node.name.length} bytes, ${NAME_MAX} are the limit`)
  if (target.length > TARGET_MAX)
    throw new RafsError(
      'TOO_LARGE',
      `${show(node)}: its target has ${target.length} bytes, ${TARGET_MAX} are the limit`,
    )
  for (const xattr of node.xattrs) checkXattr(node, xattr)
  const xattrs = node.xattrs.length === 0 ? 0 : 8 + roundUp(xattrBytes(node), 8)
  const name = Math.max(1, node.name.length)
  return INODE.size + roundUp(name, 8) + roundUp(target.length, 8) + xattrs + node.chunks.length * CHUNK_RECORD.size
}

function checkXattr(node: RafsNode, { name, value }: RafsXattr): void {
  const text = Buffer.from(name).toString('latin1')
  if (!XATTR_PREFIXES.test(text))
    throw new RafsError(
      'UNSUPPORTED',
      `${show(node)}: RAFS cannot hold xattr ${JSON.stringify(text)}: only user., trusted., security. and POSIX ACLs`,
    )
  if (name.length > XATTR_NAME_MAX || value.length > XATTR_VALUE_MAX)
    throw new RafsError(
      'TOO_LARGE',
      `${show(node)}: xattr ${JSON.stringify(text)} with ${value.length} bytes is larger than RAFS v5 can hold (${XATTR_VALUE_MAX})`,
    )
}

function xattrBytes({ xattrs }: RafsNode): number {
  return xattrs.reduce((sum, { name, value }) => sum + 4 + name.length + 1 + value.length, 0)
}

export interface InodeRecord {
  readonly inode: NumberedInode
  readonly digest: Uint8Array
  readonly tree: RafsTree
  readonly options: WriteOptionsV5
}

/** Writes an inode, its name, target, xattrs and chunk records. */
export function writeInode(view: DataView, at: number, { inode, digest, tree, options }: InodeRecord): void {
  const { node } = inode
  const bytes = new Uint8Array(view.buffer)
  const name = inode.parent === 0 ? ROOT_NAME : node.name
  const target = targetOf(node)
  const size = sizeOf(node)
  const isDevice = isType(node.mode, MODE.CHAR) || isType(node.mode, MODE.BLOCK)
  const isFifo = isType(node.mode, MODE.FIFO)
  const isArchived = options.source === 'archive'
  bytes.set(digest, at)
  setU64(view, at + INODE.parent, inode.parent)
  setU64(view, at + INODE.ino, inode.ino)
  view.setUint32(at + INODE.uid, node.uid, true)
  view.setUint32(at + INODE.gid, node.gid, true)
  view.setUint32(at + INODE.mode, node.mode, true)
  setU64(view, at + INODE.fileSize, size)
  setU64(view, at + INODE.blocks, Math.ceil((size + roundUp(xattrBytes(node), 8)) / 512))
  setU64(view, at + INODE.flags, flagsOf(inode, isArchived))
  view.setUint32(at + INODE.nlink, linksOf(inode), true)
  view.setUint32(at + INODE.childIndex, node.children === undefined ? 0 : inode.childIndex, true)
  view.setUint32(at + INODE.childCount, node.children?.length ?? node.chunks.length, true)
  view.setUint16(at + INODE.nameSize, name.length, true)
  view.setUint16(at + INODE.symlinkSize, target.length, true)
  view.setUint32(at + INODE.rdev, isDevice || isFifo ? node.rdev : isArchived ? NO_DEVICE : 0, true)
  view.setUint32(at + INODE.mtimeNsec, node.mtimeNsec, true)
  setU64(view, at + INODE.mtime, node.mtime)
  if (node.isImplied === true) bytes[at + INODE.implied] = 1
  bytes.set(name, at + INODE.size)
  let end = at + INODE.size + roundUp(name.length, 8)
  bytes.set(target, end)
  end += roundUp(target.length, 8)
  end = writeXattrs(view, end, node)
  writeChunks(view, end, node, tree, options.chunkSize)
}

function sizeOf(node: RafsNode): number {
  if (node.children !== undefined)
    return Math.max(
      4096,
      roundUp(
        node.children.reduce((sum, { name }) => sum + name.length + ENTRY_SIZE, 0),
        4096,
      ),
    )
  if (node.target !== undefined) return node.target.length
  return isType(node.mode, MODE.FILE) ? node.size : 0
}

function flagsOf({ node }: NumberedInode, isArchived: boolean): number {
  return (
    (node.target === undefined ? 0 : INODE_FLAGS.SYMLINK) |
    (isArchived && (node.link !== undefined || node.isLinked === true) ? INODE_FLAGS.HARDLINK : 0) |
    (node.xattrs.length === 0 ? 0 : INODE_FLAGS.XATTR)
  )
}

function linksOf({ node, links }: NumberedInode): number {
  if (node.children === undefined) return links.count
  return 2 + node.children.filter((child) => child.children !== undefined).length
}

function writeXattrs(view: DataView, at: number, node: RafsNode): number {
  if (node.xattrs.length === 0) return at
  const bytes = new Uint8Array(view.buffer)
  const size = xattrBytes(node)
  setU64(view, at, size)
  let pair = at + 8
  for (const { name, value } of node.xattrs) {
    view.setUint32(pair, name.length + 1 + value.length, true)
    bytes.set(name, pair + 4)
    bytes.set(value, pair + 4 + name.length + 1)
    pair += 4 + name.length + 1 + value.length
  }
  return at + 8 + roundUp(size, 8)
}

function writeChunks(view: DataView, at: number, node: RafsNode, tree: RafsTree, imageChunkSize: number): void {
  const chunkSize = chunkSizeOf(node, tree, imageChunkSize)
  const expected = isType(node.mode, MODE.FILE) ? Math.ceil(node.size / chunkSize) : 0
  if (node.chunks.length !== expected)
    throw new RafsError(
      'BAD_CHUNK',
      `${show(node)}: ${node.chunks.length} chunks for ${node.size} bytes, ${expected} are needed`,
    )
  for (const [index, chunk] of node.chunks.entries()) {
    if (tree.blobs[chunk.blobIndex] === undefined)
      throw new RafsError('BAD_CHUNK', `${show(node)} names blob ${chunk.blobIndex} of ${tree.blobs.length}`)
    writeChunkRecord(view, at + index * CHUNK_RECORD.size, chunk, index * chunkSize)
  }
}

/** External blobs have a chunk size of their own, which every chunk of a file has but the last. */
function chunkSizeOf({ chunks: [first, ...others] }: RafsNode, { blobs }: RafsTree, imageChunkSize: number): number {
  if (first === undefined || ((blobs[first.blobIndex]?.features ?? 0) & BLOB_FEATURES.EXTERNAL) === 0)
    return imageChunkSize
  return others.length > 0 ? first.uncompressedSize : Math.max(first.uncompressedSize, imageChunkSize)
}

function show(node: RafsNode): string {
  return JSON.stringify(Buffer.from(node.name).toString('utf8').slice(0, 200))
}
