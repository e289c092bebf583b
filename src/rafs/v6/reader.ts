import type { BlobInfo, BlobLayout } from '../../blob/index.ts'
import type { Attributes, Bootstrap, ChunkSpan, EntryVisitor, Ino } from '../bootstrap.ts'
import { ChunkSpan as Span } from '../bootstrap.ts'
import type { ByteReader } from '../byte-reader.ts'
import { CHUNK_RECORD } from '../chunk-record.ts'
import { ChunkRows } from '../chunk-rows.ts'
import { isDictionary, withWholeBlobs } from '../dictionary-image.ts'
import { RafsError } from '../errors.ts'
import { isType, MODE } from '../mode.ts'
import { SUPER_FLAGS } from '../super-flags.ts'
import { DirectoryV6 } from './directory.ts'
import { InodeV6 } from './inode.ts'
import { CHUNK_ADDRESS, DATA_LAYOUT, DIRENT } from './layout.ts'
import { readSuperblock, type SuperblockV6 } from './superblock.ts'
import { readXattrs } from './xattr.ts'

const DOT_DOT = new Uint8Array([0x2e, 0x2e])
/** Longest symlink target that the format's readers take. */
const TARGET_MAX = 4096

/** A RAFS v6 bootstrap; see {@link Bootstrap} for the contract. */
export class BootstrapV6 implements Bootstrap {
  readonly version = 6
  readonly chunkSize: number
  readonly blobs: readonly BlobInfo[]
  readonly root: Ino
  readonly inodeCount: number
  readonly entryLimit: number
  readonly explicitOwners: boolean
  readonly hasXattrs: boolean
  readonly isTarfs: boolean
  readonly #from: ByteReader
  readonly #super: SuperblockV6
  readonly #inode = new InodeV6()
  readonly #directory: DirectoryV6
  #layouts: readonly BlobLayout[] | undefined

  constructor(from: ByteReader, inlinedId: string | undefined) {
    const superblock = readSuperblock(from, inlinedId)
    this.#from = from
    this.#super = superblock
    this.#directory = new DirectoryV6(from, superblock.blockSize).startsAt(superblock.metaAt)
    this.chunkSize = superblock.chunkSize
    this.blobs = superblock.blobs
    this.root = superblock.rootNid
    this.inodeCount = superblock.inodeCount
    this.entryLimit = Math.floor(from.length / (DIRENT.size + 1)) + 1 // each path but the root's needs a dirent and a name
    this.explicitOwners = (superblock.flags & SUPER_FLAGS.EXPLICIT_UID_GID) !== 0
    this.hasXattrs = (superblock.flags & SUPER_FLAGS.HAS_XATTR) !== 0
    this.isTarfs = superblock.isTarfs
    this.#load(this.root, MODE.DIRECTORY)
    if (isDictionary(this)) this.blobs = withWholeBlobs(from, superblock.blobs, this.#recordPlaces())
  }

  lookup(directory: Ino, name: Uint8Array): Ino | undefined {
    this.#load(directory, MODE.DIRECTORY)
    const nid = this.#directory.find(this.#inode, name)
    return nid < 0 ? undefined : nid
  }

  parent(directory: Ino): Ino {
    const found = this.lookup(directory, DOT_DOT)
    if (found === undefined)
      throw new RafsError('BAD_DIRECTORY', `directory ${directory} has no ".."; the bootstrap is damaged or crafted`)
    return found
  }

  isImplied(directory: Ino): boolean {
    return this.#load(directory, MODE.DIRECTORY).isImplied
  }

  attributes(ino: Ino, into: Attributes): void {
    const inode = this.#load(ino, 0)
    const isDevice = isType(inode.mode, MODE.CHAR) || isType(inode.mode, MODE.BLOCK)
    into.ino = ino
    into.mode = inode.mode
    into.nlink = inode.nlink
    into.uid = inode.uid
    into.gid = inode.gid
    into.rdev = isDevice ? inode.union : 0
    into.size = inode.size
    into.blocks = Math.ceil(inode.size / 512)
    into.mtime = inode.mtime
    into.mtimeNsec = inode.mtimeNsec
    into.hasXattrs = inode.xattrSize > 0
  }

  list(directory: Ino, cookie: number, visit: EntryVisitor): void {
    this.#load(directory, MODE.DIRECTORY)
    this.#directory.list(this.#inode, cookie, visit)
  }

  readlink(ino: Ino): Uint8Array {
    const inode = this.#load(ino, MODE.SYMLINK)
    if (inode.size === 0 || inode.size > TARGET_MAX)
      throw new RafsError(
        'BAD_INODE',
        `symlink ${ino} has a target of ${inode.size} bytes; the bootstrap is damaged or crafted`,
      )
    const { blockSize } = this.#super
    const dataAt = inode.union * blockSize
    if (inode.layout !== DATA_LAYOUT.INLINE) return this.#from.view(dataAt, inode.size)
    // Only its last part is with the inode: such a target in blocks of 512 bytes is one that the original's builder spoiled, and the kernel shows it like this.
    const tail = inode.size % blockSize
    if (tail === inode.size) return this.#from.view(inode.endAt, inode.size)
    return Buffer.concat([this.#from.view(dataAt, inode.size - tail), this.#from.view(inode.endAt, tail)])
  }

  xattrs(ino: Ino): Array<{ readonly name: Uint8Array; readonly value: Uint8Array }> {
    return readXattrs(this.#from, this.#load(ino, 0))
  }

  chunks(ino: Ino, offset: number, length: number, into: ChunkSpan[]): number {
    const inode = this.#load(ino, MODE.FILE)
    const end = Math.min(inode.size, offset + length)
    if (offset >= end) return 0
    if (inode.layout !== DATA_LAYOUT.CHUNKS)
      throw new RafsError('UNSUPPORTED', `file ${ino} is not made of chunks; RAFS has no such files`)
    const addresses = Math.ceil(inode.endAt / 8) * 8
    let count = 0
    for (let at = offset; at < end; count++) {
      const number = Math.floor(at / this.chunkSize)
      const span = (into[count] ??= new Span())
      this.#readAddress(ino, addresses + number * CHUNK_ADDRESS.size, span)
      span.offsetInChunk = at - number * this.chunkSize
      span.length = Math.min(end - at, this.chunkSize - span.offsetInChunk)
      at += span.length
    }
    return count
  }

  #readAddress(ino: Ino, at: number, into: ChunkSpan): void {
    const device = this.#from.u16(at + CHUNK_ADDRESS.device)
    into.blobIndex = (device & 0xff) - 1
    into.chunkIndex = this.#from.u16(at + CHUNK_ADDRESS.indexLow) + (device >> 8) * 0x1_0000
    into.chunkOffset = this.#from.u32(at + CHUNK_ADDRESS.block) * this.#super.blockSize
    const blob = this.blobs[into.blobIndex]
    if (blob === undefined)
      throw new RafsError(
        'BAD_CHUNK',
        `file ${ino} names blob ${into.blobIndex} of ${this.blobs.length}; the bootstrap is damaged or crafted`,
      )
    if (into.chunkOffset >= blob.uncompressedSize || (blob.chunkCount > 0 && into.chunkIndex >= blob.chunkCount)) {
      throw new RafsError(
        'BAD_CHUNK',
        `file ${ino} names chunk ${into.chunkIndex} at byte ${into.chunkOffset} of blob ${blob.id}, which ends before; the bootstrap is damaged or crafted`,
      )
    }
  }

  prefetch(): Ino[] {
    const { at, size } = this.#super.prefetchTable
    const nids: Ino[] = []
    for (let index = 0; index < size / 4; index++) {
      const nid = this.#from.u32(at + index * 4)
      // Old builders padded the table with zeros.
      if (nid === 0) break
      nids.push(nid)
    }
    return nids
  }

  layout(blobIndex: number): BlobLayout {
    this.#layouts ??= this.#readLayouts()
    const layout = this.#layouts[blobIndex]
    if (layout === undefined) throw new RafsError('NOT_FOUND', `the image has no blob ${blobIndex}`)
    return layout
  }

  #readLayouts(): readonly BlobLayout[] {
    const rows = new ChunkRows(this.#from, this.blobs)
    // The table of tarfs has one row a blob, as all digests are zeros: it tells nothing.
    if (this.isTarfs) return rows.layouts()
    for (const at of this.#recordPlaces()) rows.add(at)
    return rows.layouts()
  }

  *#recordPlaces(): Generator<number> {
    const { at, size } = this.#super.chunkTable
    for (let row = at; row < at + size; row += CHUNK_RECORD.size) yield row
  }

  /** Loads an inode into the reused record; with `type` it must be of that type. */
  #load(ino: Ino, type: number): InodeV6 {
    this.#inode.load(this.#from, this.#super.metaAt, ino)
    if (type !== 0 && !isType(this.#inode.mode, type))
      throw new RafsError('BAD_INODE', `inode ${ino} has mode 0${this.#inode.mode.toString(8)}, not the type wanted`)
    return this.#inode
  }
}
