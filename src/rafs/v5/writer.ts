import type { CompressionName, DigestName } from '../../codec/index.ts'
import { RafsError } from '../errors.ts'
import { compressionFlag, digestFlag, SUPER_FLAGS } from '../super-flags.ts'
import type { RafsNode, RafsTree } from '../tree.ts'
import { FileTree, type NodeId, type RafsFiles } from '../file-tree.ts'
import { compactTree } from '../load-files.ts'
import { blobTableSize, writeBlobTables } from './blob-table-writer.ts'
import { DIGEST_SIZE, InodeDigests } from './inode-digests.ts'
import { InodeNumbers } from './inode-numbers.ts'
import { inodeSize, InodeWriter } from './inode-writer.ts'
import { EXTENDED_BLOB, MAGIC, MAX_SIZE, SUPERBLOCK, VERSION } from './layout.ts'
import { roundUp, setLong } from '../numbers.ts'

/** What a v5 bootstrap says beside its tree. */
export interface WriteOptionsV5 {
  readonly chunkSize: number
  /** Of all blobs: the format has no other place for it. */
  readonly compression: CompressionName
  readonly digest: DigestName
  /** False writes that owner ids mean nothing. */
  readonly explicitOwners: boolean
  /** Nodes of the prefetch table, in its order. */
  readonly prefetch: readonly RafsNode[]
  /** Where the files come from: the original marks what archives list as links, and gives what is no device all ones for its number there. */
  readonly source: 'archive' | 'directory'
}

export interface FileWriteOptionsV5 extends Omit<WriteOptionsV5, 'prefetch'> {
  readonly prefetch: readonly NodeId[]
}

/**
 * Writes a tree as a RAFS v5 bootstrap: same tree, same bytes. Tables, numbers and order are the original builder's; xattrs of an inode are written in
 * the order of the node's list. Throws RafsError when the format cannot hold something ('TOO_LARGE', 'BAD_CHUNK') and names it.
 */
export function writeBootstrapV5(tree: RafsTree, options: WriteOptionsV5): Uint8Array {
  const { idOf, ...files } = compactTree(tree, new FileTree())
  return writeFilesV5(files, { ...options, prefetch: options.prefetch.map(idOf) })
}

/** The same of a compact tree, whose children it sorts. */
export function writeFilesV5(tree: RafsFiles, options: FileWriteOptionsV5): Uint8Array {
  const { files, root, blobs } = tree
  const numbers = new InodeNumbers(files, root)
  const inodeTableSize = roundUp(numbers.count * 4, 8)
  const prefetchAt = SUPERBLOCK.size + inodeTableSize
  const blobTableAt = prefetchAt + roundUp(options.prefetch.length * 4, 8)
  const tableSize = blobTableSize(blobs)
  const extendedAt = blobTableAt + tableSize
  const firstAt = extendedAt + blobs.length * EXTENDED_BLOB.size
  let end = firstAt
  for (const id of numbers.depthFirst()) end += inodeSize(files, id)
  if (end > MAX_SIZE)
    throw new RafsError('TOO_LARGE', `the bootstrap would have ${end} bytes, RAFS v5 can hold ${MAX_SIZE}; use v6`)
  const bytes = new Uint8Array(end)
  const view = new DataView(bytes.buffer)
  writeBlobTables(view, blobTableAt, extendedAt, blobs)
  const inodes = new InodeWriter(view, tree, numbers, options)
  let at = firstAt
  let hasXattrs = false
  for (const id of numbers.depthFirst()) {
    view.setUint32(inodeTableAt(numbers, id), at / 8, true)
    inodes.write(id, at)
    hasXattrs ||= files.xattrKey(id) !== 0
    at += inodeSize(files, id)
  }
  writeDigests(view, tree, numbers, options.digest)
  for (const [position, id] of options.prefetch.entries())
    view.setUint32(prefetchAt + position * 4, numbers.ino(id), true)
  writeSuperblock(view, options, {
    hasXattrs,
    inodes: numbers.inodeCount,
    entries: numbers.count,
    prefetchAt,
    blobTableAt,
    blobTableSize: tableSize,
    extendedAt,
    blobs: blobs.length,
  })
  return bytes
}

function inodeTableAt(numbers: InodeNumbers, id: NodeId): number {
  return SUPERBLOCK.size + (numbers.index(id) - 1) * 4
}

/** Digests stand first in the records: a directory's is made of those that its children have there. Children come after their parent in the order, so it is gone through from its end. */
function writeDigests(view: DataView, { files, root }: RafsFiles, numbers: InodeNumbers, digest: DigestName): void {
  const digests = new InodeDigests(files, digest)
  const place = (id: NodeId): Uint8Array =>
    new Uint8Array(view.buffer, view.getUint32(inodeTableAt(numbers, id), true) * 8, DIGEST_SIZE)
  const order = new Uint32Array(numbers.count)
  let count = 0
  for (const id of files.hybridOrder(root)) order[count++] = id
  for (const id of order.reverse()) digests.write(id, place(id), place)
}

interface Tables {
  readonly hasXattrs: boolean
  readonly inodes: number
  readonly entries: number
  readonly prefetchAt: number
  readonly blobTableAt: number
  readonly blobTableSize: number
  readonly extendedAt: number
  readonly blobs: number
}

function writeSuperblock(view: DataView, options: FileWriteOptionsV5, tables: Tables): void {
  let flags = compressionFlag(options.compression) | digestFlag(options.digest)
  if (options.explicitOwners) flags |= SUPER_FLAGS.EXPLICIT_UID_GID
  if (tables.hasXattrs) flags |= SUPER_FLAGS.HAS_XATTR
  view.setUint32(SUPERBLOCK.magic, MAGIC, true)
  view.setUint32(SUPERBLOCK.version, VERSION, true)
  view.setUint32(SUPERBLOCK.ownSize, SUPERBLOCK.size, true)
  view.setUint32(SUPERBLOCK.blockSize, options.chunkSize, true)
  view.setUint32(SUPERBLOCK.flags, flags, true)
  setLong(view, SUPERBLOCK.inodes, tables.inodes)
  setLong(view, SUPERBLOCK.inodeTableAt, SUPERBLOCK.size)
  setLong(view, SUPERBLOCK.prefetchTableAt, tables.prefetchAt)
  setLong(view, SUPERBLOCK.blobTableAt, tables.blobTableAt)
  view.setUint32(SUPERBLOCK.inodeTableEntries, tables.entries, true)
  view.setUint32(SUPERBLOCK.prefetchTableEntries, options.prefetch.length, true)
  view.setUint32(SUPERBLOCK.blobTableSize, tables.blobTableSize, true)
  view.setUint32(SUPERBLOCK.extendedBlobEntries, tables.blobs, true)
  setLong(view, SUPERBLOCK.extendedBlobAt, tables.extendedAt)
}
