import { BLOB_FEATURES, type BlobInfo, type BlobLayout } from '../../blob/index.ts'
import { ChunkSpan, type Attributes, type Bootstrap, type EntryVisitor, type Ino } from '../bootstrap.ts'
import type { ByteReader } from '../byte-reader.ts'
import { CHUNK_RECORD } from '../chunk-record.ts'
import { ChunkRows } from '../chunk-rows.ts'
import { isDictionary, plainName, withWholeBlobs } from '../dictionary-image.ts'
import { RafsError } from '../errors.ts'
import { directoryType, isType, MODE } from '../mode.ts'
import { checkName, compareNames } from '../names.ts'
import { SUPER_FLAGS } from '../super-flags.ts'
import { INODE, INODE_FLAGS, SUPERBLOCK } from './layout.ts'
import { readSuperblock, type SuperblockV5 } from './superblock.ts'

/** A RAFS v5 bootstrap, read in place ("direct" mode); see {@link Bootstrap} for the contract. An inode number is the 1-based index of its record. */
export class BootstrapV5 implements Bootstrap {
  readonly version = 5
  readonly chunkSize: number
  readonly blobs: readonly BlobInfo[]
  readonly root = 1
  readonly inodeCount: number
  readonly entryLimit: number
  readonly explicitOwners: boolean
  readonly hasXattrs: boolean
  readonly isTarfs = false
  readonly #from: ByteReader
  readonly #super: SuperblockV5
  #layouts: readonly BlobLayout[] | undefined

  constructor(from: ByteReader, inlinedId: string | undefined) {
    const superblock = readSuperblock(from, inlinedId)
    this.#from = from
    this.#super = superblock
    this.chunkSize = superblock.chunkSize
    this.blobs = superblock.blobs
    this.inodeCount = superblock.inodeCount
    this.entryLimit = superblock.inodeTableEntries // each path has an entry of its own, hard links too
    this.explicitOwners = (superblock.flags & SUPER_FLAGS.EXPLICIT_UID_GID) !== 0
    this.hasXattrs = (superblock.flags & SUPER_FLAGS.HAS_XATTR) !== 0
    this.#at(this.root, MODE.DIRECTORY)
    if (isDictionary(this)) this.blobs = withWholeBlobs(from, superblock.blobs, this.#recordPlaces())
  }

  lookup(directory: Ino, name: Uint8Array): Ino | undefined {
    const at = this.#at(directory, MODE.DIRECTORY)
    const first = this.#firstChild(directory, at)
    let low = 0
    let high = this.#from.u32(at + INODE.childCount) - 1
    while (low <= high) {
      const middle = (low + high) >> 1
      const order = compareNames(name, this.#name(first + middle))
      if (order === 0) return this.#identity(first + middle)
      if (order < 0) high = middle - 1
      else low = middle + 1
    }
    return undefined
  }

  parent(directory: Ino): Ino {
    if (directory === this.root) return this.root
    const parent = this.#from.u64(this.#at(directory, MODE.DIRECTORY) + INODE.parent)
    this.#at(parent, MODE.DIRECTORY)
    return parent
  }

  isImplied(directory: Ino): boolean {
    return this.#from.u8(this.#at(directory, MODE.DIRECTORY) + INODE.implied) === 1
  }

  attributes(ino: Ino, into: Attributes): void {
    const at = this.#at(ino, 0)
    const mode = this.#from.u32(at + INODE.mode)
    const isDevice = isType(mode, MODE.CHAR) || isType(mode, MODE.BLOCK)
    into.ino = ino
    into.mode = mode & 0xffff
    into.nlink = this.#from.u32(at + INODE.nlink)
    into.uid = this.#from.u32(at + INODE.uid)
    into.gid = this.#from.u32(at + INODE.gid)
    into.rdev = isDevice ? this.#from.u32(at + INODE.rdev) : 0
    into.size = this.#from.u64(at + INODE.fileSize)
    into.blocks = this.#from.u64(at + INODE.blocks)
    into.mtime = this.#from.i64(at + INODE.mtime)
    into.mtimeNsec = this.#from.u32(at + INODE.mtimeNsec)
    into.hasXattrs = (this.#from.u32(at + INODE.flags) & INODE_FLAGS.XATTR) !== 0
  }

  list(directory: Ino, cookie: number, visit: EntryVisitor): void {
    const at = this.#at(directory, MODE.DIRECTORY)
    const first = this.#firstChild(directory, at)
    const count = this.#from.u32(at + INODE.childCount)
    for (let child = cookie; child < count; child++) {
      const name = plainName(this.#name(first + child))
      checkName(name, directory)
      const mode = this.#from.u32(this.#at(first + child, 0) + INODE.mode)
      if (!visit(name, this.#identity(first + child), directoryType(mode), child + 1)) return
    }
  }

  readlink(ino: Ino): Uint8Array {
    const at = this.#at(ino, MODE.SYMLINK)
    const length = this.#from.u16(at + INODE.symlinkSize)
    if (length === 0)
      throw new RafsError('BAD_INODE', `symlink ${ino} has no target; the bootstrap is damaged or crafted`)
    return this.#from.view(at + INODE.size + padded(this.#from.u16(at + INODE.nameSize)), length)
  }

  xattrs(ino: Ino): Array<{ readonly name: Uint8Array; readonly value: Uint8Array }> {
    const found: Array<{ name: Uint8Array; value: Uint8Array }> = []
    const { at, size } = this.#xattrTable(this.#at(ino, 0))
    const bad = (why: string): RafsError =>
      new RafsError('BAD_XATTR', `inode ${ino}: ${why}; the bootstrap is damaged or crafted`)
    for (let pair = at; pair < at + size; ) {
      const length = this.#from.u32(pair)
      if (length === 0 || pair + 4 + length > at + size) throw bad('an xattr reaches beyond its table')
      const bytes = this.#from.view(pair + 4, length)
      const nul = bytes.indexOf(0)
      if (nul <= 0 || nul > 255) throw bad('an xattr has a name that Linux does not take')
      found.push({ name: bytes.slice(0, nul), value: bytes.subarray(nul + 1) })
      pair += 4 + length
    }
    return found
  }

  chunks(ino: Ino, offset: number, length: number, into: ChunkSpan[]): number {
    const at = this.#at(ino, MODE.FILE)
    const end = Math.min(this.#from.u64(at + INODE.fileSize), offset + length)
    const { start, count: available } = this.#chunkRecords(at)
    const chunkSize = this.#chunkSizeOf(start, available)
    let count = 0
    for (let position = offset; position < end; count++) {
      const number = Math.floor(position / chunkSize)
      if (number >= available)
        throw new RafsError(
          'BAD_CHUNK',
          `file ${ino} has ${available} chunks, byte ${position} is beyond them; the bootstrap is damaged or crafted`,
        )
      const record = start + number * CHUNK_RECORD.size
      const span = (into[count] ??= new ChunkSpan())
      span.blobIndex = this.#from.u32(record + CHUNK_RECORD.blobIndex)
      span.chunkIndex = this.#from.u32(record + CHUNK_RECORD.index)
      span.chunkOffset = this.#from.u64(record + CHUNK_RECORD.uncompressedOffset)
      span.offsetInChunk = position - number * chunkSize
      span.length = Math.min(end - position, chunkSize - span.offsetInChunk)
      const stored = this.#from.u32(record + CHUNK_RECORD.uncompressedSize)
      if (this.blobs[span.blobIndex] === undefined || span.offsetInChunk + span.length > stored) {
        throw new RafsError(
          'BAD_CHUNK',
          `chunk ${number} of file ${ino} has ${stored} bytes of blob ${span.blobIndex}, which do not cover it; the bootstrap is damaged or crafted`,
        )
      }
      position += span.length
    }
    return count
  }

  /** External blobs have a chunk size of their own, which only the chunks tell: the first of several is full. */
  #chunkSizeOf(start: number, count: number): number {
    if (count === 0) return this.chunkSize
    const blob = this.blobs[this.#from.u32(start + CHUNK_RECORD.blobIndex)]
    if (blob === undefined || (blob.features & BLOB_FEATURES.EXTERNAL) === 0) return this.chunkSize
    const first = this.#from.u32(start + CHUNK_RECORD.uncompressedSize)
    return Math.max(1, count === 1 ? Math.max(first, this.chunkSize) : first)
  }

  prefetch(): Ino[] {
    const { prefetchTableAt: at, prefetchTableEntries: entries } = this.#super
    return Array.from({ length: entries }, (_unused, index) => this.#from.u32(at + index * 4)).filter(
      (ino) => ino !== 0,
    )
  }

  layout(blobIndex: number): BlobLayout {
    this.#layouts ??= this.#readLayouts()
    const layout = this.#layouts[blobIndex]
    if (layout === undefined) throw new RafsError('NOT_FOUND', `the image has no blob ${blobIndex}`)
    return layout
  }

  /** v5 keeps chunk records in the inodes only: one pass over all of them. */
  #readLayouts(): readonly BlobLayout[] {
    const rows = new ChunkRows(this.#from, this.blobs)
    for (const at of this.#recordPlaces()) rows.add(at)
    return rows.layouts()
  }

  *#recordPlaces(): Generator<number> {
    for (let ino = 1; ino <= this.#super.inodeTableEntries; ino++) {
      const at = this.#at(ino, 0)
      if (!isType(this.#from.u32(at + INODE.mode), MODE.FILE)) continue
      const { start, count } = this.#chunkRecords(at)
      for (let index = 0; index < count; index++) yield start + index * CHUNK_RECORD.size
    }
  }

  /** Place of an inode's record, with `type` it must be of that type. */
  #at(ino: Ino, type: number): number {
    if (!(ino >= 1 && ino <= this.#super.inodeTableEntries))
      throw new RafsError('NOT_FOUND', `the image has no inode ${ino}; it has ${this.#super.inodeTableEntries}`)
    const at = this.#from.u32(this.#super.inodeTableAt + (ino - 1) * 4) * 8
    if (at < SUPERBLOCK.size)
      throw new RafsError(
        'BAD_TABLE',
        `inode ${ino} lies at ${at}, inside the superblock; the bootstrap is damaged or crafted`,
      )
    this.#from.check(at, INODE.size)
    const mode = this.#from.u32(at + INODE.mode)
    if (type !== 0 && !isType(mode, type))
      throw new RafsError('BAD_INODE', `inode ${ino} has mode 0${mode.toString(8)}, not the type wanted`)
    return at
  }

  #name(ino: Ino): Uint8Array {
    const at = this.#at(ino, 0)
    return this.#from.view(at + INODE.size, this.#from.u16(at + INODE.nameSize))
  }

  /** Members of a hard link group carry the number of the first: that is the inode which all of them are. */
  #identity(index: Ino): Ino {
    const at = this.#at(index, 0)
    const ino = this.#from.u64(at + INODE.ino)
    if (ino === index) return index
    const type = this.#from.u32(at + INODE.mode) & MODE.TYPE
    const first = this.#at(ino, type)
    if (type === MODE.DIRECTORY || this.#from.u64(first + INODE.ino) !== ino)
      throw new RafsError(
        'BAD_INODE',
        `inode ${index} says that it is inode ${ino}, which is not so; the bootstrap is damaged or crafted`,
      )
    return ino
  }

  /** Children lie after their parent: so that no chain of directories comes back to itself. */
  #firstChild(directory: Ino, at: number): number {
    const first = this.#from.u32(at + INODE.childIndex)
    const count = this.#from.u32(at + INODE.childCount)
    if (count > 0 && (first <= directory || first + count - 1 > this.#super.inodeTableEntries)) {
      throw new RafsError(
        'BAD_DIRECTORY',
        `directory ${directory} has children ${first} to ${first + count - 1} of ${this.#super.inodeTableEntries}; the bootstrap is damaged or crafted`,
      )
    }
    return first
  }

  #xattrTable(at: number): { at: number; size: number; end: number } {
    const mode = this.#from.u32(at + INODE.mode)
    const symlink = isType(mode, MODE.SYMLINK) ? padded(this.#from.u16(at + INODE.symlinkSize)) : 0
    const start = at + INODE.size + padded(this.#from.u16(at + INODE.nameSize)) + symlink
    if ((this.#from.u32(at + INODE.flags) & INODE_FLAGS.XATTR) === 0) return { at: start, size: 0, end: start }
    const size = this.#from.u64(start)
    this.#from.check(start + 8, size)
    return { at: start + 8, size, end: start + padded(8 + size) }
  }

  #chunkRecords(at: number): { start: number; count: number } {
    const start = this.#xattrTable(at).end
    const count = this.#from.u32(at + INODE.childCount)
    this.#from.check(start, count * CHUNK_RECORD.size)
    return { start, count }
  }
}

function padded(size: number): number {
  return Math.ceil(size / 8) * 8
}
