import { BLOB_FEATURES, type BlobInfo, COMPRESSIONS, DIGESTS } from '../../blob/index.ts'
import type { CompressionName, DigestName } from '../../codec/index.ts'
import { checkBlobId } from '../blob-id.ts'
import { RafsError } from '../errors.ts'
import { FileTree, type NodeId, type RafsFiles } from '../file-tree.ts'
import { compactTree } from '../load-files.ts'
import { roundUp, setLong } from '../numbers.ts'
import { isType, MODE } from '../mode.ts'
import { compressionFlag, digestFlag, SUPER_FLAGS } from '../super-flags.ts'
import type { RafsNode, RafsTree } from '../tree.ts'
import { ChunkTable } from './chunk-table.ts'
import { direntBlocks, direntName, direntSize, PARENT, planDirents, SELF } from './dirents.ts'
import {
  AES_128_XTS,
  BLOB_ENTRY,
  BLOCK_SIZE,
  CHUNK_ADDRESS,
  CHUNK_FORMAT_INDEXES,
  DATA_LAYOUT,
  DEVICE_SLOT,
  DEVICES_AT,
  DIRENT,
  EROFS_MAGIC,
  EXTENDED,
  EXTENDED_AT,
  EXTENDED_INODE,
  FEATURE_RAFS_V6,
  FEATURES_INCOMPAT,
  MAX_BLOBS,
  SLOT,
  SUPERBLOCK,
  SUPERBLOCK_AT,
  TARFS_BLOCK_SIZE,
  XATTR_HEADER_SIZE,
} from './layout.ts'
import { Placement, show } from './placement.ts'

/** What a v6 bootstrap says beside its tree. */
export interface WriteOptions {
  readonly chunkSize: number
  /** The image's defaults in the superblock; each blob has its own in its entry. */
  readonly compression: CompressionName
  readonly digest: DigestName
  /** False writes that owner ids mean nothing. */
  readonly explicitOwners: boolean
  /** True marks the image as having xattrs though no inode has (as merged images of the original do). */
  readonly alwaysXattrs: boolean
  /** Nodes of the prefetch table, in its order. */
  readonly prefetch: readonly RafsNode[]
  /** Its blobs are plain tars: blocks of 512 bytes, as tars have them. */
  readonly isTarfs?: boolean
}

export interface FileWriteOptions extends Omit<WriteOptions, 'prefetch'> {
  readonly prefetch: readonly NodeId[]
}

/** Block numbers have 32 bits. */
const MAX_BLOCKS = 0xffff_ffff
/** Of the chunk format word, beyond those of a block. */
const MAX_CHUNK_BITS = 31

/**
 * Writes a tree as a RAFS v6 bootstrap, which is a valid EROFS image: same tree, same bytes. Placement and order are the original builder's. Throws RafsError when the format cannot
 * hold something ('TOO_LARGE', 'UNSUPPORTED') and names it.
 */
export function writeBootstrapV6(tree: RafsTree, options: WriteOptions): Uint8Array {
  const { idOf, ...files } = compactTree(tree, new FileTree())
  return writeFilesV6(files, { ...options, prefetch: options.prefetch.map(idOf) })
}

/** The same of a compact tree, whose children it sorts. */
export function writeFilesV6(tree: RafsFiles, options: FileWriteOptions): Uint8Array {
  return new Writer(tree, options).write()
}

class Writer {
  readonly #tree: RafsFiles
  readonly #files: FileTree
  readonly #options: FileWriteOptions
  readonly #places: Placement
  /** Tables lie on borders of 4096 bytes all the same. */
  readonly #blockSize: number
  #shift = 0
  #bytes: Uint8Array = new Uint8Array(0)
  #view: DataView = new DataView(new ArrayBuffer(0))

  constructor(tree: RafsFiles, options: FileWriteOptions) {
    this.#tree = tree
    this.#files = tree.files
    this.#options = options
    if (tree.blobs.length > MAX_BLOBS)
      throw new RafsError(
        'TOO_LARGE',
        `the image has ${tree.blobs.length} blobs, RAFS v6 can hold ${MAX_BLOBS}; merge layers first`,
      )
    this.#blockSize = options.isTarfs === true ? TARFS_BLOCK_SIZE : BLOCK_SIZE
    this.#places = new Placement(tree.files, tree.root, this.#blockSize)
  }

  write(): Uint8Array {
    const { root } = this.#tree
    const { prefetch, chunkSize } = this.#options
    const blobs = this.#tree.blobs.length
    const blobTableAt = roundUp(DEVICES_AT + DEVICE_SLOT.size * blobs, BLOCK_SIZE)
    const prefetchAt = blobTableAt + BLOB_ENTRY.size * blobs
    const prefetchSize = blobs === 0 ? 0 : prefetch.length * 4
    this.#shift = blobs === 0 ? 0 : roundUp(prefetchAt + prefetchSize, BLOCK_SIZE)
    const chunkTableAt = roundUp(this.#shift + this.#places.end, BLOCK_SIZE)
    const table = new ChunkTable(this.#files, root, chunkSize)
    // fsck.erofs looks for an xattr header behind every inode, whether it has xattrs or not: there must be bytes behind the last one.
    const total = roundUp(Math.max(chunkTableAt + table.size, this.#shift + this.#places.end + 1), BLOCK_SIZE)
    this.#bytes = new Uint8Array(total)
    this.#view = new DataView(this.#bytes.buffer)
    this.#writeSuperblock()
    this.#writeExtended(blobTableAt, chunkTableAt, table.size, prefetchSize === 0 ? 0 : prefetchAt, prefetchSize)
    this.#writeBlobs(blobTableAt)
    for (const id of this.#files.hybridOrder(root)) this.#writeNode(id)
    if (prefetchSize > 0)
      for (const [index, id] of prefetch.entries()) this.#view.setUint32(prefetchAt + index * 4, this.#nid(id), true)
    table.write(this.#view, chunkTableAt)
    return this.#bytes
  }

  #nid(id: NodeId): number {
    return this.#places.at(id) / SLOT
  }

  #writeSuperblock(): void {
    const view = this.#view
    const at = SUPERBLOCK_AT
    view.setUint32(at + SUPERBLOCK.magic, EROFS_MAGIC, true)
    view.setUint32(at + SUPERBLOCK.featureCompat, FEATURE_RAFS_V6, true)
    view.setUint8(at + SUPERBLOCK.blockBits, Math.log2(this.#blockSize))
    view.setUint16(at + SUPERBLOCK.rootNid, this.#nid(this.#tree.root), true)
    setLong(view, at + SUPERBLOCK.inodes, this.#places.count)
    const blocks = this.#tree.blobs.reduce((sum, blob) => sum + Math.floor(blob.uncompressedSize / this.#blockSize), 0)
    view.setUint32(at + SUPERBLOCK.blocks, blocks % 2 ** 32, true)
    view.setUint32(at + SUPERBLOCK.metaBlock, this.#shift / this.#blockSize, true)
    view.setUint32(at + SUPERBLOCK.featureIncompat, FEATURES_INCOMPAT, true)
    view.setUint16(at + SUPERBLOCK.extraDevices, this.#tree.blobs.length, true)
    view.setUint16(at + SUPERBLOCK.deviceSlot, DEVICES_AT / DEVICE_SLOT.size, true)
  }

  #writeExtended(
    blobTableAt: number,
    chunkTableAt: number,
    chunkTableSize: number,
    prefetchAt: number,
    prefetchSize: number,
  ): void {
    const view = this.#view
    const at = EXTENDED_AT
    const { blobs } = this.#tree
    const { compression, digest, explicitOwners, alwaysXattrs, chunkSize } = this.#options
    let flags = compressionFlag(compression) | digestFlag(digest)
    const isEncrypted = blobs.some(({ cipher }) => cipher !== undefined)
    flags |= isEncrypted ? SUPER_FLAGS.ENCRYPTION_AES_128_XTS : SUPER_FLAGS.ENCRYPTION_NONE
    if (this.#options.isTarfs === true) flags |= SUPER_FLAGS.TARFS_MODE
    if (explicitOwners) flags |= SUPER_FLAGS.EXPLICIT_UID_GID
    if (alwaysXattrs || this.#places.hasXattrs) flags |= SUPER_FLAGS.HAS_XATTR
    if (blobs.every((blob) => (blob.features & BLOB_FEATURES.INLINED_CHUNK_DIGEST) !== 0))
      flags |= SUPER_FLAGS.INLINED_CHUNK_DIGEST
    view.setUint32(at + EXTENDED.flags, flags, true)
    setLong(view, at + EXTENDED.blobTableAt, blobTableAt)
    view.setUint32(at + EXTENDED.blobTableSize, blobs.length * BLOB_ENTRY.size, true)
    view.setUint32(at + EXTENDED.chunkSize, chunkSize, true)
    setLong(view, at + EXTENDED.chunkTableAt, chunkTableAt)
    setLong(view, at + EXTENDED.chunkTableSize, chunkTableSize)
    setLong(view, at + EXTENDED.prefetchAt, prefetchAt)
    view.setUint32(at + EXTENDED.prefetchSize, prefetchSize, true)
  }

  /** Device slots and blob table. Each device gets a place in the flat view of all of them, on 512 KiB borders behind this file. */
  #writeBlobs(tableAt: number): void {
    let flatEnd = this.#bytes.length
    for (const [index, blob] of this.#tree.blobs.entries()) {
      const id = Buffer.from(checkBlobId(blob.id), 'latin1')
      if (id.length > BLOB_ENTRY.idLength)
        throw new RafsError(
          'TOO_LARGE',
          `blob id ${blob.id} has ${id.length} bytes, RAFS v6 can hold ${BLOB_ENTRY.idLength}`,
        )
      if ((blob.features & BLOB_FEATURES.ENCRYPTED) !== 0 && blob.cipher === undefined)
        throw new RafsError('BAD_TABLE', `blob ${blob.id} is encrypted and its key is not known: nobody could read it`)
      if (((blob.features & BLOB_FEATURES.TARFS) !== 0) !== (this.#options.isTarfs === true))
        throw new RafsError('BAD_TABLE', `blob ${blob.id}: an image is made of plain tars, or of none`)
      const blocks = Math.floor(blob.uncompressedSize / this.#blockSize)
      if (blocks === 0) throw new RafsError('BAD_TABLE', `blob ${blob.id} has no data: RAFS v6 cannot name it`)
      const slot = DEVICES_AT + index * DEVICE_SLOT.size
      this.#bytes.set(id, slot + DEVICE_SLOT.tag)
      this.#view.setUint32(slot + DEVICE_SLOT.blocks, blocks, true)
      const flatAt = roundUp(flatEnd, FLAT_ALIGNMENT)
      if (flatAt / this.#blockSize + blocks > MAX_BLOCKS)
        throw new RafsError(
          'TOO_LARGE',
          `blob ${blob.id} of ${blob.uncompressedSize} bytes ends beyond block ${MAX_BLOCKS} of the image`,
        )
      this.#view.setUint32(slot + DEVICE_SLOT.mappedBlock, flatAt / this.#blockSize, true)
      flatEnd = flatAt + blocks * this.#blockSize
      this.#writeBlobEntry(tableAt + index * BLOB_ENTRY.size, index, id, blob)
    }
  }

  #writeBlobEntry(at: number, index: number, id: Uint8Array, blob: BlobInfo): void {
    const view = this.#view
    this.#bytes.set(id, at + BLOB_ENTRY.id)
    view.setUint32(at + BLOB_ENTRY.index, index, true)
    view.setUint32(at + BLOB_ENTRY.chunkSize, blob.chunkSize, true)
    view.setUint32(at + BLOB_ENTRY.chunkCount, blob.chunkCount, true)
    view.setUint32(at + BLOB_ENTRY.compression, COMPRESSIONS.indexOf(blob.compression), true)
    view.setUint32(at + BLOB_ENTRY.digest, DIGESTS.indexOf(blob.digest), true)
    view.setUint32(at + BLOB_ENTRY.features, blob.features, true)
    setLong(view, at + BLOB_ENTRY.compressedSize, blob.compressedSize)
    setLong(view, at + BLOB_ENTRY.uncompressedSize, blob.uncompressedSize)
    view.setUint32(at + BLOB_ENTRY.tocSize, blob.tocSize, true)
    view.setUint32(at + BLOB_ENTRY.metaCompression, COMPRESSIONS.indexOf(blob.metaCompression), true)
    setLong(view, at + BLOB_ENTRY.metaOffset, blob.metaOffset)
    setLong(view, at + BLOB_ENTRY.metaCompressedSize, blob.metaCompressedSize)
    setLong(view, at + BLOB_ENTRY.metaUncompressedSize, blob.metaUncompressedSize)
    if (blob.tocDigest !== undefined) this.#bytes.set(blob.tocDigest, at + BLOB_ENTRY.tocDigest)
    if (blob.metaBlobDigest !== undefined) this.#bytes.set(blob.metaBlobDigest, at + BLOB_ENTRY.metaDigest)
    setLong(view, at + BLOB_ENTRY.metaSize, blob.metaBlobSize ?? 0)
    if (blob.cipher === undefined) return
    // In the place of the two above, which references to layers have: those are never encrypted.
    this.#bytes.set(blob.cipher.key, at + BLOB_ENTRY.cipherKey)
    this.#bytes.set(blob.cipher.iv, at + BLOB_ENTRY.cipherIv)
    view.setUint32(at + BLOB_ENTRY.cipher, AES_128_XTS, true)
  }

  #writeNode(id: NodeId): void {
    const files = this.#files
    const at = this.#shift + this.#places.at(id)
    const xattrs = this.#places.xattrs(id)
    const isFile = files.isFile(id)
    const plan = files.isDirectory(id) ? planDirents(files, id) : undefined
    const target = files.target(id)
    const dataSize = plan === undefined ? (target?.length ?? 0) : direntSize(files, plan, this.#blockSize)
    const isTailInline = this.#places.isInline(id, dataSize)
    const layout = isFile ? DATA_LAYOUT.CHUNKS : isTailInline ? DATA_LAYOUT.INLINE : DATA_LAYOUT.PLAIN
    const view = this.#view
    view.setUint16(at + EXTENDED_INODE.format, (layout << 1) | 1, true)
    view.setUint16(
      at + EXTENDED_INODE.xattrCount,
      xattrs.length === 0 ? 0 : (xattrs.length - XATTR_HEADER_SIZE) / 4 + 1,
      true,
    )
    view.setUint16(at + EXTENDED_INODE.mode, files.mode(id), true)
    setLong(view, at + EXTENDED_INODE.fileSize, isFile ? files.size(id) : dataSize)
    view.setUint32(at + EXTENDED_INODE.union, this.#union(id), true)
    view.setUint32(at + EXTENDED_INODE.ino, this.#places.index(id), true)
    view.setUint32(at + EXTENDED_INODE.uid, files.uid(id), true)
    view.setUint32(at + EXTENDED_INODE.gid, files.gid(id), true)
    setLong(view, at + EXTENDED_INODE.mtime, files.mtime(id))
    view.setUint32(at + EXTENDED_INODE.mtimeNsec, files.mtimeNsec(id), true)
    view.setUint32(at + EXTENDED_INODE.nlink, this.#places.linkCount(id), true)
    if (files.isImplied(id)) this.#bytes[at + EXTENDED_INODE.implied] = 1
    this.#bytes.set(xattrs, at + EXTENDED_INODE.size)
    const endAt = at + EXTENDED_INODE.size + xattrs.length
    if (isFile) this.#writeAddresses(id, roundUp(endAt, 8))
    else if (plan !== undefined) this.#writeDirents(id, plan, isTailInline ? endAt : undefined)
    else if (target !== undefined) this.#bytes.set(target, isTailInline ? endAt : this.#dataAt(id))
  }

  #dataAt(id: NodeId): number {
    return this.#shift + this.#places.dataBlock(id) * this.#blockSize
  }

  #union(id: NodeId): number {
    const mode = this.#files.mode(id)
    if (isType(mode, MODE.FILE)) return this.#chunkFormat(id)
    if (isType(mode, MODE.DIRECTORY) || isType(mode, MODE.SYMLINK)) return this.#dataAt(id) / this.#blockSize
    return this.#files.rdev(id)
  }

  /** A file whose chunks follow each other in one blob is told to EROFS as one large chunk, so that the kernel maps it in one go. */
  #chunkFormat(id: NodeId): number {
    const { chunkSize } = this.#options
    const size = this.#files.size(id)
    const blockBits = Math.log2(this.#blockSize)
    const runBits = Math.ceil(Math.log2(size))
    const isOne = size > chunkSize && runBits - blockBits <= MAX_CHUNK_BITS && this.#isRun(id)
    return ((isOne ? runBits : Math.log2(chunkSize)) - blockBits) | CHUNK_FORMAT_INDEXES
  }

  #isRun(id: NodeId): boolean {
    const { chunks } = this.#files
    const count = this.#files.chunkCount(id)
    for (let index = 1; index < count; index++) {
      const [previous, chunk] = [chunks.at(this.#files.chunk(id, index - 1)), chunks.at(this.#files.chunk(id, index))]
      if (previous.blobIndex !== chunk.blobIndex) return false
      if (previous.uncompressedOffset + this.#options.chunkSize !== chunk.uncompressedOffset) return false
    }
    return true
  }

  #writeAddresses(id: NodeId, at: number): void {
    const files = this.#files
    const size = files.size(id)
    const count = files.chunkCount(id)
    const expected = Math.ceil(size / this.#options.chunkSize)
    if (count !== expected)
      throw new RafsError('BAD_CHUNK', `${show(files, id)}: ${count} chunks for ${size} bytes, ${expected} are needed`)
    for (let index = 0; index < count; index++) {
      const chunk = files.chunks.at(files.chunk(id, index))
      const address = at + index * CHUNK_ADDRESS.size
      if (this.#tree.blobs[chunk.blobIndex] === undefined)
        throw new RafsError(
          'BAD_CHUNK',
          `${show(files, id)} names blob ${chunk.blobIndex} of ${this.#tree.blobs.length}`,
        )
      this.#view.setUint16(address + CHUNK_ADDRESS.indexLow, chunk.index & 0xffff, true)
      this.#view.setUint16(address + CHUNK_ADDRESS.device, (chunk.blobIndex + 1) | ((chunk.index >>> 16) << 8), true)
      this.#view.setUint32(address + CHUNK_ADDRESS.block, chunk.uncompressedOffset / this.#blockSize, true)
    }
  }

  /** `tailAt`: where the last block is, when it lies behind the inode. */
  #writeDirents(directory: NodeId, plan: readonly number[], tailAt: number | undefined): void {
    const files = this.#files
    const blocks = direntBlocks(files, plan, this.#blockSize)
    for (const [number, [start, stop]] of blocks.entries()) {
      const isLast = number === blocks.length - 1
      const at = isLast && tailAt !== undefined ? tailAt : this.#dataAt(directory) + number * this.#blockSize
      let nameOffset = (stop - start) * DIRENT.size
      for (let index = start; index < stop; index++) {
        const planned = plan[index]
        const listed =
          planned === SELF ? directory : planned === PARENT ? files.parent(directory) || directory : planned
        const name = direntName(files, planned)
        const entry = at + (index - start) * DIRENT.size
        setLong(this.#view, entry + DIRENT.nid, this.#nid(listed))
        this.#view.setUint16(entry + DIRENT.nameOffset, nameOffset, true)
        this.#view.setUint8(entry + DIRENT.type, direntType(files.mode(listed)))
        this.#bytes.set(name, at + nameOffset)
        nameOffset += name.length
      }
    }
  }
}

const FLAT_ALIGNMENT = 0x8_0000

/** Dirent types are those of EROFS, not DT_*. */
function direntType(mode: number): number {
  switch (mode & MODE.TYPE) {
    case MODE.FILE:
      return 1
    case MODE.DIRECTORY:
      return 2
    case MODE.CHAR:
      return 3
    case MODE.BLOCK:
      return 4
    case MODE.FIFO:
      return 5
    case MODE.SOCKET:
      return 6
    case MODE.SYMLINK:
      return 7
    default:
      return 0
  }
}
