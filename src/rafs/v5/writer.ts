import type { CompressionName, DigestName } from '../../codec/index.ts'
import { RafsError } from '../errors.ts'
import { compressionFlag, digestFlag, SUPER_FLAGS } from '../super-flags.ts'
import type { RafsNode, RafsTree } from '../tree.ts'
import { blobTableSize, writeBlobTables } from './blob-table-writer.ts'
import { inodeDigests } from './inode-digests.ts'
import { numberInodes, type NumberedInode } from './inode-numbers.ts'
import { inodeSize, writeInode } from './inode-writer.ts'
import { EXTENDED_BLOB, MAGIC, MAX_SIZE, SUPERBLOCK, VERSION } from './layout.ts'
import { roundUp, setU64 } from './numbers.ts'

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

/**
 * Writes a tree as a RAFS v5 bootstrap: same tree, same bytes. Tables, numbers and order are the original builder's; xattrs of an inode are written in
 * the order of the node's list. Throws RafsError when the format cannot hold something ('TOO_LARGE', 'BAD_CHUNK') and names it.
 */
export function writeBootstrapV5(tree: RafsTree, options: WriteOptionsV5): Uint8Array {
  const inodes = numberInodes(tree.root)
  const digests = inodeDigests(tree.root, options.digest)
  const inodeTableSize = roundUp(inodes.count * 4, 8)
  const prefetchAt = SUPERBLOCK.size + inodeTableSize
  const blobTableAt = prefetchAt + roundUp(options.prefetch.length * 4, 8)
  const tableSize = blobTableSize(tree.blobs)
  const extendedAt = blobTableAt + tableSize
  let end = extendedAt + tree.blobs.length * EXTENDED_BLOB.size
  const places: number[] = []
  for (const { node } of inodes.depthFirst) {
    places.push(end)
    end += inodeSize(node)
  }
  if (end > MAX_SIZE)
    throw new RafsError('TOO_LARGE', `the bootstrap would have ${end} bytes, RAFS v5 can hold ${MAX_SIZE}; use v6`)
  const bytes = new Uint8Array(end)
  const view = new DataView(bytes.buffer)
  writeBlobTables(view, blobTableAt, extendedAt, tree.blobs)
  for (const [position, inode] of inodes.depthFirst.entries()) {
    view.setUint32(SUPERBLOCK.size + (inode.index - 1) * 4, places[position] / 8, true)
    writeInode(view, places[position], { inode, digest: digests.of(inode.node), tree, options })
  }
  for (const [position, node] of options.prefetch.entries())
    view.setUint32(prefetchAt + position * 4, inodes.inoOf(node), true)
  writeSuperblock(view, options, {
    hasXattrs: inodes.depthFirst.some(({ node }: NumberedInode) => node.xattrs.length > 0),
    inodes: inodes.inodeCount,
    entries: inodes.count,
    prefetchAt,
    blobTableAt,
    blobTableSize: tableSize,
    extendedAt,
    blobs: tree.blobs.length,
  })
  return bytes
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

function writeSuperblock(view: DataView, options: WriteOptionsV5, tables: Tables): void {
  let flags = compressionFlag(options.compression) | digestFlag(options.digest)
  if (options.explicitOwners) flags |= SUPER_FLAGS.EXPLICIT_UID_GID
  if (tables.hasXattrs) flags |= SUPER_FLAGS.HAS_XATTR
  view.setUint32(SUPERBLOCK.magic, MAGIC, true)
  view.setUint32(SUPERBLOCK.version, VERSION, true)
  view.setUint32(SUPERBLOCK.ownSize, SUPERBLOCK.size, true)
  view.setUint32(SUPERBLOCK.blockSize, options.chunkSize, true)
  view.setUint32(SUPERBLOCK.flags, flags, true)
  setU64(view, SUPERBLOCK.inodes, tables.inodes)
  setU64(view, SUPERBLOCK.inodeTableAt, SUPERBLOCK.size)
  setU64(view, SUPERBLOCK.prefetchTableAt, tables.prefetchAt)
  setU64(view, SUPERBLOCK.blobTableAt, tables.blobTableAt)
  view.setUint32(SUPERBLOCK.inodeTableEntries, tables.entries, true)
  view.setUint32(SUPERBLOCK.prefetchTableEntries, options.prefetch.length, true)
  view.setUint32(SUPERBLOCK.blobTableSize, tables.blobTableSize, true)
  view.setUint32(SUPERBLOCK.extendedBlobEntries, tables.blobs, true)
  setU64(view, SUPERBLOCK.extendedBlobAt, tables.extendedAt)
}
