import { BLOB_FEATURES, type BlobInfo, COMPRESSIONS, DIGESTS } from '../../blob/index.ts'
import type { CompressionName, DigestName } from '../../codec/index.ts'
import { checkBlobId } from '../blob-id.ts'
import { CHUNK_RECORD, chunkFlags } from '../chunk-record.ts'
import { RafsError } from '../errors.ts'
import { isType, MODE } from '../mode.ts'
import { compressionFlag, digestFlag, SUPER_FLAGS } from '../super-flags.ts'
import { hybridOrder, type LinkGroup, type RafsChunk, type RafsNode, type RafsTree, targetOf } from '../tree.ts'
import { compareNames } from '../names.ts'
import { OffsetAllocator } from './allocator.ts'
import { direntBlocks, direntSize, planDirents } from './dirents.ts'
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
import { encodeXattrs } from './xattr-writer.ts'

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

/** Inode numbers go into 31 bits. */
const MAX_INODES = 0x7fff_ffff
/** Block numbers have 32 bits. */
const MAX_BLOCKS = 0xffff_ffff
/** Of the chunk format word, beyond those of a block. */
const MAX_CHUNK_BITS = 31
/** Symlink targets that Linux takes. */
const TARGET_MAX = 4095

/** Where a node lies; offsets are relative to the meta area until `shift` is known. */
interface Place {
  readonly index: number
  readonly at: number
  readonly xattrs: Uint8Array
  /** Start of data blocks, of directories and symlinks. */
  readonly dataAt: number
  readonly dataSize: number
  readonly isInline: boolean
}

/**
 * Writes a tree as a RAFS v6 bootstrap, which is a valid EROFS image: same tree, same bytes. Placement and order are the original builder's. Throws RafsError when the format cannot
 * hold something ('TOO_LARGE', 'UNSUPPORTED') and names it.
 */
export function writeBootstrapV6(tree: RafsTree, options: WriteOptions): Uint8Array {
  return new Writer(tree, options).write()
}

class Writer {
  readonly #tree: RafsTree
  readonly #options: WriteOptions
  readonly #places = new Map<RafsNode, Place>()
  readonly #linkPlaces = new Map<LinkGroup, Place>()
  readonly #linkCounts = new Map<LinkGroup, number>()
  readonly #parents = new Map<RafsNode, RafsNode>()
  readonly #allocator: OffsetAllocator
  /** Tables lie on borders of 4096 bytes all the same. */
  readonly #blockSize: number
  #count = 0
  #hasXattrs = false
  #shift = 0
  #bytes: Uint8Array = new Uint8Array(0)
  #view: DataView = new DataView(new ArrayBuffer(0))

  constructor(tree: RafsTree, options: WriteOptions) {
    this.#tree = tree
    this.#options = options
    this.#blockSize = options.isTarfs === true ? TARFS_BLOCK_SIZE : BLOCK_SIZE
    this.#allocator = new OffsetAllocator(this.#blockSize)
    if (tree.blobs.length > MAX_BLOBS)
      throw new RafsError(
        'TOO_LARGE',
        `the image has ${tree.blobs.length} blobs, RAFS v6 can hold ${MAX_BLOBS}; merge layers first`,
      )
  }

  write(): Uint8Array {
    this.#placeAll()
    const blobs = this.#tree.blobs.length
    const blobTableAt = roundUp(DEVICES_AT + DEVICE_SLOT.size * blobs, BLOCK_SIZE)
    const prefetchAt = blobTableAt + BLOB_ENTRY.size * blobs
    const prefetchSize = blobs === 0 ? 0 : this.#options.prefetch.length * 4
    this.#shift = blobs === 0 ? 0 : roundUp(prefetchAt + prefetchSize, BLOCK_SIZE)
    const chunkTableAt = roundUp(this.#shift + this.#allocator.end, BLOCK_SIZE)
    const rows = this.#chunkRows()
    const chunkTableSize = rows.length * CHUNK_RECORD.size
    // fsck.erofs looks for an xattr header behind every inode, whether it has xattrs or not: there must be bytes behind the last one.
    const total = roundUp(Math.max(chunkTableAt + chunkTableSize, this.#shift + this.#allocator.end + 1), BLOCK_SIZE)
    this.#bytes = new Uint8Array(total)
    this.#view = new DataView(this.#bytes.buffer)
    this.#writeSuperblock()
    this.#writeExtended(blobTableAt, chunkTableAt, chunkTableSize, prefetchSize === 0 ? 0 : prefetchAt, prefetchSize)
    this.#writeBlobs(blobTableAt)
    for (const [node, place] of this.#places) this.#writeNode(node, place)
    if (prefetchSize > 0)
      for (const [index, node] of this.#options.prefetch.entries())
        this.#view.setUint32(prefetchAt + index * 4, this.#nid(node), true)
    for (const [index, { chunk, fileOffset }] of rows.entries())
      this.#writeChunkRecord(chunkTableAt + index * CHUNK_RECORD.size, chunk, fileOffset)
    return this.#bytes
  }

  /** Numbers and places: a directory, then its children that are no directories, then each directory among them. */
  #placeAll(): void {
    const indexes = new Map<RafsNode, number>()
    const { root } = this.#tree
    indexes.set(root, ++this.#count)
    this.#parents.set(root, root)
    const stack: RafsNode[] = [root]
    for (let directory = stack.pop(); directory !== undefined; directory = stack.pop()) {
      this.#placeWithData(directory, indexes.get(directory) ?? 0, direntSize(directory, this.#blockSize))
      const children = directory.children ?? []
      for (const child of children) {
        const index = ++this.#count
        if (child.children !== undefined) {
          indexes.set(child, index)
          this.#parents.set(child, directory)
        } else this.#placeLeaf(child, index)
      }
      for (let index = children.length - 1; index >= 0; index--) {
        const child = children[index]
        if (child.children !== undefined) stack.push(child)
      }
    }
    if (this.#count > MAX_INODES)
      throw new RafsError('TOO_LARGE', `the image has ${this.#count} entries, RAFS v6 can hold ${MAX_INODES}`)
  }

  #placeLeaf(node: RafsNode, index: number): void {
    if (node.link !== undefined) {
      this.#linkCounts.set(node.link, (this.#linkCounts.get(node.link) ?? 0) + 1)
      const first = this.#linkPlaces.get(node.link)
      if (first !== undefined) {
        this.#places.set(node, first)
        return
      }
    }
    const target = targetOf(node)
    if (isType(node.mode, MODE.SYMLINK)) {
      if (target.length === 0 || target.length > TARGET_MAX)
        throw new RafsError(
          'TOO_LARGE',
          `${show(node)}: a symlink target of ${target.length} bytes; 1 to ${TARGET_MAX} are possible`,
        )
      this.#placeWithData(node, index, target.length)
      if (node.link !== undefined) this.#linkPlaces.set(node.link, this.#place(node))
      return
    }
    const xattrs = this.#xattrs(node)
    const head = EXTENDED_INODE.size + xattrs.length
    const isFile = isType(node.mode, MODE.FILE)
    const size = isFile ? roundUp(head, 8) + CHUNK_ADDRESS.size * node.chunks.length : head
    const reused = isFile ? this.#allocator.reuse(size) : -1
    const at = reused >= 0 ? reused : this.#allocator.append(size)
    this.#allocator.align(SLOT)
    const place = { index, at, xattrs, dataAt: 0, dataSize: 0, isInline: false }
    this.#places.set(node, place)
    if (node.link !== undefined) this.#linkPlaces.set(node.link, place)
  }

  /** Directories and symlinks: the last part of the data directly behind the inode when both fit one block, the rest in blocks of its own. */
  #placeWithData(node: RafsNode, index: number, dataSize: number): void {
    const allocator = this.#allocator
    const xattrs = this.#xattrs(node)
    const head = EXTENDED_INODE.size + xattrs.length
    const tail = dataSize % this.#blockSize
    // Readers of the format take the whole target of a symlink from one place.
    const isWhole = node.children !== undefined || dataSize === tail
    const isInline = tail !== 0 && isWhole && head + tail <= this.#blockSize
    let at: number
    let dataAt: number
    if (isInline) {
      at = allocator.reuse(head + tail)
      if (at < 0) {
        if (this.#blockSize - (allocator.end % this.#blockSize) < head + tail) {
          allocator.leave(allocator.end)
          allocator.align(this.#blockSize)
        }
        at = allocator.append(head + tail)
      }
      if (dataSize !== tail) {
        allocator.leave(allocator.end)
        allocator.align(this.#blockSize)
      }
      dataAt = allocator.append(dataSize - tail)
    } else {
      at = allocator.reuse(head)
      if (at < 0) at = allocator.append(head)
      allocator.leave(allocator.end)
      allocator.align(this.#blockSize)
      dataAt = allocator.append(dataSize)
      allocator.align(this.#blockSize)
    }
    allocator.align(SLOT)
    this.#places.set(node, { index, at, xattrs, dataAt, dataSize, isInline })
  }

  #xattrs(node: RafsNode): Uint8Array {
    if (node.xattrs.length > 0) this.#hasXattrs = true
    return encodeXattrs(node.xattrs, () => show(node))
  }

  #place(node: RafsNode): Place {
    const place = this.#places.get(node)
    if (place === undefined) throw new RafsError('NOT_FOUND', `${show(node)} is not in the tree that is written`)
    return place
  }

  #nid(node: RafsNode): number {
    return this.#place(node).at / SLOT
  }

  /** One row a digest and blob, the last file that uses it telling the file offset; sorted by digest, then blob. */
  #chunkRows(): ChunkRow[] {
    const rows = new Map<RafsChunk, ChunkRow>()
    let order = 0
    for (const node of hybridOrder(this.#tree.root)) {
      for (let index = 0; index < node.chunks.length; index++) {
        const chunk = node.chunks[index]
        const fileOffset = index * this.#options.chunkSize
        const known = rows.get(chunk)
        if (known === undefined) rows.set(chunk, { chunk, fileOffset, order: order++, prefix: digestPrefix(chunk) })
        else Object.assign(known, { fileOffset, order: order++ })
      }
    }
    const sorted = [...rows.values()].sort((a, b) => a.prefix - b.prefix || compareKeys(a, b) || b.order - a.order)
    return sorted.filter((row, at) => at === 0 || compareKeys(row, sorted[at - 1]) !== 0)
  }

  #writeSuperblock(): void {
    const view = this.#view
    const at = SUPERBLOCK_AT
    view.setUint32(at + SUPERBLOCK.magic, EROFS_MAGIC, true)
    view.setUint32(at + SUPERBLOCK.featureCompat, FEATURE_RAFS_V6, true)
    view.setUint8(at + SUPERBLOCK.blockBits, Math.log2(this.#blockSize))
    view.setUint16(at + SUPERBLOCK.rootNid, this.#nid(this.#tree.root), true)
    setU64(view, at + SUPERBLOCK.inodes, this.#count)
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
    if (alwaysXattrs || this.#hasXattrs) flags |= SUPER_FLAGS.HAS_XATTR
    if (blobs.every((blob) => (blob.features & BLOB_FEATURES.INLINED_CHUNK_DIGEST) !== 0))
      flags |= SUPER_FLAGS.INLINED_CHUNK_DIGEST
    view.setUint32(at + EXTENDED.flags, flags, true)
    setU64(view, at + EXTENDED.blobTableAt, blobTableAt)
    view.setUint32(at + EXTENDED.blobTableSize, blobs.length * BLOB_ENTRY.size, true)
    view.setUint32(at + EXTENDED.chunkSize, chunkSize, true)
    setU64(view, at + EXTENDED.chunkTableAt, chunkTableAt)
    setU64(view, at + EXTENDED.chunkTableSize, chunkTableSize)
    setU64(view, at + EXTENDED.prefetchAt, prefetchAt)
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
    setU64(view, at + BLOB_ENTRY.compressedSize, blob.compressedSize)
    setU64(view, at + BLOB_ENTRY.uncompressedSize, blob.uncompressedSize)
    view.setUint32(at + BLOB_ENTRY.tocSize, blob.tocSize, true)
    view.setUint32(at + BLOB_ENTRY.metaCompression, COMPRESSIONS.indexOf(blob.metaCompression), true)
    setU64(view, at + BLOB_ENTRY.metaOffset, blob.metaOffset)
    setU64(view, at + BLOB_ENTRY.metaCompressedSize, blob.metaCompressedSize)
    setU64(view, at + BLOB_ENTRY.metaUncompressedSize, blob.metaUncompressedSize)
    if (blob.tocDigest !== undefined) this.#bytes.set(blob.tocDigest, at + BLOB_ENTRY.tocDigest)
    if (blob.metaBlobDigest !== undefined) this.#bytes.set(blob.metaBlobDigest, at + BLOB_ENTRY.metaDigest)
    setU64(view, at + BLOB_ENTRY.metaSize, blob.metaBlobSize ?? 0)
    if (blob.cipher === undefined) return
    // In the place of the two above, which references to layers have: those are never encrypted.
    this.#bytes.set(blob.cipher.key, at + BLOB_ENTRY.cipherKey)
    this.#bytes.set(blob.cipher.iv, at + BLOB_ENTRY.cipherIv)
    view.setUint32(at + BLOB_ENTRY.cipher, AES_128_XTS, true)
  }

  #writeNode(node: RafsNode, place: Place): void {
    const at = this.#shift + place.at
    const isFile = isType(node.mode, MODE.FILE)
    const layout = isFile ? DATA_LAYOUT.CHUNKS : place.isInline ? DATA_LAYOUT.INLINE : DATA_LAYOUT.PLAIN
    const view = this.#view
    view.setUint16(at + EXTENDED_INODE.format, (layout << 1) | 1, true)
    view.setUint16(
      at + EXTENDED_INODE.xattrCount,
      place.xattrs.length === 0 ? 0 : (place.xattrs.length - XATTR_HEADER_SIZE) / 4 + 1,
      true,
    )
    view.setUint16(at + EXTENDED_INODE.mode, node.mode, true)
    setU64(view, at + EXTENDED_INODE.fileSize, isFile ? node.size : place.dataSize)
    view.setUint32(at + EXTENDED_INODE.union, this.#union(node, place, isFile), true)
    view.setUint32(at + EXTENDED_INODE.ino, place.index, true)
    view.setUint32(at + EXTENDED_INODE.uid, node.uid, true)
    view.setUint32(at + EXTENDED_INODE.gid, node.gid, true)
    setI64(view, at + EXTENDED_INODE.mtime, node.mtime)
    view.setUint32(at + EXTENDED_INODE.mtimeNsec, node.mtimeNsec, true)
    view.setUint32(at + EXTENDED_INODE.nlink, this.#linkCount(node), true)
    if (node.isImplied === true) this.#bytes[at + EXTENDED_INODE.implied] = 1
    this.#bytes.set(place.xattrs, at + EXTENDED_INODE.size)
    const endAt = at + EXTENDED_INODE.size + place.xattrs.length
    if (isFile) this.#writeAddresses(node, roundUp(endAt, 8))
    else if (node.children !== undefined) this.#writeDirents(node, place, endAt)
    else if (node.target !== undefined)
      this.#bytes.set(node.target, place.isInline ? endAt : this.#shift + place.dataAt)
  }

  #union(node: RafsNode, place: Place, isFile: boolean): number {
    if (isFile) return this.#chunkFormat(node)
    if (node.children !== undefined || node.target !== undefined)
      return Math.floor((this.#shift + place.dataAt) / this.#blockSize)
    return node.rdev
  }

  #linkCount(node: RafsNode): number {
    if (node.children !== undefined) return 2 + node.children.filter((child) => child.children !== undefined).length
    return node.link === undefined ? 1 : (this.#linkCounts.get(node.link) ?? 1)
  }

  /** A file whose chunks follow each other in one blob is told to EROFS as one large chunk, so that the kernel maps it in one go. */
  #chunkFormat(node: RafsNode): number {
    const { chunkSize } = this.#options
    let bits = Math.log2(chunkSize)
    const isRun = node.chunks.every((chunk, index) => {
      const previous = node.chunks[index - 1]
      return (
        previous === undefined ||
        (previous.blobIndex === chunk.blobIndex && previous.uncompressedOffset + chunkSize === chunk.uncompressedOffset)
      )
    })
    const runBits = Math.ceil(Math.log2(node.size))
    const blockBits = Math.log2(this.#blockSize)
    if (node.size > chunkSize && isRun && runBits - blockBits <= MAX_CHUNK_BITS) bits = runBits
    return (bits - blockBits) | CHUNK_FORMAT_INDEXES
  }

  #writeAddresses(node: RafsNode, at: number): void {
    const expected = Math.ceil(node.size / this.#options.chunkSize)
    if (node.chunks.length !== expected)
      throw new RafsError(
        'BAD_CHUNK',
        `${show(node)}: ${node.chunks.length} chunks for ${node.size} bytes, ${expected} are needed`,
      )
    for (const [index, chunk] of node.chunks.entries()) {
      const address = at + index * CHUNK_ADDRESS.size
      if (this.#tree.blobs[chunk.blobIndex] === undefined)
        throw new RafsError('BAD_CHUNK', `${show(node)} names blob ${chunk.blobIndex} of ${this.#tree.blobs.length}`)
      this.#view.setUint16(address + CHUNK_ADDRESS.indexLow, chunk.index & 0xffff, true)
      this.#view.setUint16(address + CHUNK_ADDRESS.device, (chunk.blobIndex + 1) | ((chunk.index >>> 16) << 8), true)
      this.#view.setUint32(address + CHUNK_ADDRESS.block, chunk.uncompressedOffset / this.#blockSize, true)
    }
  }

  #writeDirents(directory: RafsNode, place: Place, endAt: number): void {
    const plan = planDirents(directory)
    const blocks = direntBlocks(plan, this.#blockSize)
    for (const [number, [start, stop]] of blocks.entries()) {
      const isTail = place.isInline && number === blocks.length - 1
      const at = isTail ? endAt : this.#shift + place.dataAt + number * this.#blockSize
      let nameOffset = (stop - start) * DIRENT.size
      for (let index = start; index < stop; index++) {
        const { name, node } = plan[index]
        const listed =
          node === 'self' ? directory : node === 'parent' ? (this.#parents.get(directory) ?? directory) : node
        const entry = at + (index - start) * DIRENT.size
        setU64(this.#view, entry + DIRENT.nid, this.#nid(listed))
        this.#view.setUint16(entry + DIRENT.nameOffset, nameOffset, true)
        this.#view.setUint8(entry + DIRENT.type, direntType(listed.mode))
        this.#bytes.set(name, at + nameOffset)
        nameOffset += name.length
      }
    }
  }

  #writeChunkRecord(at: number, chunk: RafsChunk, fileOffset: number): void {
    const view = this.#view
    this.#bytes.set(chunk.digest, at + CHUNK_RECORD.digest)
    view.setUint32(at + CHUNK_RECORD.blobIndex, chunk.blobIndex, true)
    view.setUint32(at + CHUNK_RECORD.flags, chunkFlags(chunk), true)
    view.setUint32(at + CHUNK_RECORD.compressedSize, chunk.compressedSize, true)
    view.setUint32(at + CHUNK_RECORD.uncompressedSize, chunk.uncompressedSize, true)
    setU64(view, at + CHUNK_RECORD.compressedOffset, chunk.compressedOffset)
    setU64(view, at + CHUNK_RECORD.uncompressedOffset, chunk.uncompressedOffset)
    setU64(view, at + CHUNK_RECORD.fileOffset, fileOffset)
    view.setUint32(at + CHUNK_RECORD.index, chunk.index, true)
    view.setUint32(at + CHUNK_RECORD.crc32c, chunk.crc32c ?? 0, true)
  }
}

const FLAT_ALIGNMENT = 0x8_0000

/** A chunk in the table; `order` tells which of two files comes later, `prefix` decides nearly all comparisons. */
interface ChunkRow {
  readonly chunk: RafsChunk
  readonly fileOffset: number
  readonly order: number
  readonly prefix: number
}

function digestPrefix({ digest }: RafsChunk): number {
  return ((digest[0] << 24) | (digest[1] << 16) | (digest[2] << 8) | digest[3]) >>> 0
}

function compareKeys(a: ChunkRow, b: ChunkRow): number {
  return compareNames(a.chunk.digest, b.chunk.digest) || a.chunk.blobIndex - b.chunk.blobIndex
}

function roundUp(value: number, to: number): number {
  return Math.ceil(value / to) * to
}

/** `>>> 0` is the value modulo 2^32, also of numbers beyond 32 bits. */
function setU64(view: DataView, at: number, value: number): void {
  view.setUint32(at, value >>> 0, true)
  view.setUint32(at + 4, value < 2 ** 32 ? 0 : Math.floor(value / 2 ** 32), true)
}

function setI64(view: DataView, at: number, value: number): void {
  view.setUint32(at, value >>> 0, true)
  view.setInt32(at + 4, Math.floor(value / 2 ** 32), true)
}

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

function show(node: RafsNode): string {
  return JSON.stringify(Buffer.from(node.name).toString('utf8').slice(0, 200))
}
