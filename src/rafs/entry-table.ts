import { ByteArena } from './byte-arena.ts'
import { type ChunkId, type ChunkList, ChunkStore, NO_CHUNKS } from './chunk-store.ts'
import { isType, MODE } from './mode.ts'
import type { NodeValues } from './node-values.ts'
import { Rows } from './rows.ts'
import type { RafsXattr } from './tree.ts'
import { XattrSets } from './xattr-sets.ts'

/** Number of an entry of a tree; 0 is none. */
export type NodeId = number

/** Words of a row. Of a hard link only those of the entry count, the others are those of the inode that it names. */
export const WORD = {
  // The entry.
  name: 0,
  parent: 1,
  next: 2,
  inode: 3,
  /** Length of the name in 8 bits, then flags. */
  nameAndFlags: 4,
  // The inode.
  mode: 5,
  uid: 6,
  gid: 7,
  mtime: 8,
  mtimeNsec: 10,
  size: 11,
  xattrs: 13,
  rdev: 14,
  /** First child, first place of the chunk list, or address of the target. */
  first: 15,
  /** Last child, or number of chunks. */
  last: 16,
} as const
const ROW_WORDS = 17
const FIRST_INODE_WORD = WORD.mode
const NAME_LENGTH_MASK = 0xff
export const FLAGS = {
  /** Not in its directory any more. */
  GONE: 0x100,
  /** Other entries name its inode: its row must stay. */
  SHARED: 0x200,
  /** An archive lists a hard link to it. */
  LINKED: 0x400,
  /** A directory's children are not in order. */
  UNSORTED: 0x800,
  /** No source lists it: others only lie below it. */
  IMPLIED: 0x1000,
  /** Stands for a hard link whose file is not known yet. */
  PLACEHOLDER: 0x2000,
} as const
const TARGET_LENGTH_BYTES = 2
const NOTHING = new Uint8Array(0)

/** Entries of trees by their numbers: names, attributes, targets, chunks; 68 bytes an entry and its name, where objects took a thousand. What lies in what is a `FileTree`'s matter. */
export class EntryTable {
  readonly chunks = new ChunkStore()
  protected readonly rows = new Rows(ROW_WORDS)
  protected readonly bytes = new ByteArena()
  readonly #xattrs = new XattrSets(this.bytes)

  /** Entry numbers are below this. */
  get end(): NodeId {
    return this.rows.count
  }

  /** The entry whose attributes count: itself, or of a hard link the first name of its file. */
  inode(id: NodeId): NodeId {
    const inode = this.rows.get(id, WORD.inode)
    return inode === 0 ? id : inode
  }

  /** It may have other names. */
  isShared(id: NodeId): boolean {
    return this.flag(this.inode(id), FLAGS.SHARED)
  }

  isLinked(id: NodeId): boolean {
    return this.flag(this.inode(id), FLAGS.LINKED)
  }

  setLinked(id: NodeId): void {
    this.setFlag(this.inode(id), FLAGS.LINKED, true)
  }

  isImplied(id: NodeId): boolean {
    return this.flag(id, FLAGS.IMPLIED)
  }

  setImplied(id: NodeId): void {
    this.setFlag(id, FLAGS.IMPLIED, true)
  }

  isPlaceholder(id: NodeId): boolean {
    return this.flag(id, FLAGS.PLACEHOLDER)
  }

  setPlaceholder(id: NodeId): void {
    this.setFlag(id, FLAGS.PLACEHOLDER, true)
  }

  /** The directory that it is in; 0 for a root. */
  parent(id: NodeId): NodeId {
    return this.rows.get(id, WORD.parent)
  }

  /** A view. */
  name(id: NodeId): Uint8Array {
    const length = this.nameLength(id)
    return length === 0 ? NOTHING : this.bytes.view(this.rows.get(id, WORD.name), length)
  }

  /** Whether its name is this one. */
  hasName(id: NodeId, name: Uint8Array): boolean {
    const address = this.rows.get(id, WORD.name)
    const bytes = this.bytes.slab(address)
    const at = ByteArena.position(address)
    if (name.length !== this.nameLength(id)) return false
    for (let index = 0; index < name.length; index++) if (bytes[at + index] !== name[index]) return false
    return true
  }

  nameLength(id: NodeId): number {
    return this.rows.get(id, WORD.nameAndFlags) & NAME_LENGTH_MASK
  }

  text(id: NodeId): string {
    return Buffer.from(this.name(id)).toString('latin1')
  }

  /** Its path, `/` between names. */
  path(id: NodeId): string {
    const names: string[] = []
    for (let at = id; this.parent(at) !== 0; at = this.parent(at)) names.push(this.text(at))
    return `/${names.reverse().join('/')}`
  }

  /** All values at once: for who copies an entry. */
  values(id: NodeId): NodeValues {
    return {
      mode: this.mode(id),
      uid: this.uid(id),
      gid: this.gid(id),
      rdev: this.rdev(id),
      mtime: this.mtime(id),
      mtimeNsec: this.mtimeNsec(id),
      size: this.size(id),
      xattrs: this.xattrs(id),
      target: this.target(id),
      chunks: this.chunkList(id),
    }
  }

  mode(id: NodeId): number {
    return this.rows.get(this.inode(id), WORD.mode)
  }

  uid(id: NodeId): number {
    return this.rows.get(this.inode(id), WORD.uid)
  }

  gid(id: NodeId): number {
    return this.rows.get(this.inode(id), WORD.gid)
  }

  setOwner(id: NodeId, uid: number, gid: number): void {
    this.rows.set(this.inode(id), WORD.uid, uid)
    this.rows.set(this.inode(id), WORD.gid, gid)
  }

  rdev(id: NodeId): number {
    return this.rows.get(this.inode(id), WORD.rdev)
  }

  mtime(id: NodeId): number {
    return this.rows.getLong(this.inode(id), WORD.mtime)
  }

  mtimeNsec(id: NodeId): number {
    return this.rows.get(this.inode(id), WORD.mtimeNsec)
  }

  size(id: NodeId): number {
    return this.rows.getLong(this.inode(id), WORD.size)
  }

  setSize(id: NodeId, size: number): void {
    this.rows.setLong(this.inode(id), WORD.size, size)
  }

  /** Equal for entries with equal lists of xattrs; 0 is the empty list. */
  xattrKey(id: NodeId): number {
    return this.rows.get(this.inode(id), WORD.xattrs)
  }

  xattrs(id: NodeId): RafsXattr[] {
    return this.#xattrs.get(this.rows.get(this.inode(id), WORD.xattrs))
  }

  setXattrs(id: NodeId, xattrs: readonly RafsXattr[]): void {
    this.rows.set(this.inode(id), WORD.xattrs, this.#xattrs.add(xattrs))
  }

  /** Bytes of a symlink's target; undefined for all else. */
  target(id: NodeId): Uint8Array | undefined {
    if (!isType(this.mode(id), MODE.SYMLINK)) return undefined
    const address = this.rows.get(this.inode(id), WORD.first)
    if (address === 0) return undefined
    const [low = 0, high = 0] = this.bytes.view(address, TARGET_LENGTH_BYTES)
    return this.bytes.view(address + TARGET_LENGTH_BYTES, low + high * 256)
  }

  isDirectory(id: NodeId): boolean {
    return isType(this.mode(id), MODE.DIRECTORY)
  }

  isFile(id: NodeId): boolean {
    return isType(this.mode(id), MODE.FILE)
  }

  /** Number of chunks. */
  chunkCount(id: NodeId): number {
    return this.isFile(id) ? this.rows.get(this.inode(id), WORD.last) : 0
  }

  /** Chunk `index` of a file. */
  chunk(id: NodeId, index: number): ChunkId {
    return this.chunks.use(this.rows.get(this.inode(id), WORD.first) + index)
  }

  /** Its list in {@link chunks}; empty for all but files. */
  chunkList(id: NodeId): ChunkList {
    return this.isFile(id)
      ? { start: this.rows.get(this.inode(id), WORD.first), count: this.chunkCount(id) }
      : NO_CHUNKS
  }

  setChunks(id: NodeId, { start, count }: ChunkList): void {
    this.rows.set(this.inode(id), WORD.first, start)
    this.rows.set(this.inode(id), WORD.last, count)
  }

  #addTarget(target: Uint8Array): number {
    const address = this.bytes.reserve(TARGET_LENGTH_BYTES + target.length)
    const bytes = this.bytes.view(address, TARGET_LENGTH_BYTES + target.length)
    bytes[0] = target.length & 0xff
    bytes[1] = target.length >> 8
    bytes.set(target, TARGET_LENGTH_BYTES)
    return address
  }

  protected compareText(id: NodeId, name: string): number {
    const address = this.rows.get(id, WORD.name)
    const bytes = this.bytes.slab(address)
    const at = ByteArena.position(address)
    const length = this.nameLength(id)
    const common = Math.min(length, name.length)
    for (let index = 0; index < common; index++) {
      const difference = bytes[at + index] - name.charCodeAt(index)
      if (difference !== 0) return difference
    }
    return length - name.length
  }

  protected compare(a: NodeId, b: NodeId): number {
    const [addressA, addressB] = [this.rows.get(a, WORD.name), this.rows.get(b, WORD.name)]
    const [bytesA, bytesB] = [this.bytes.slab(addressA), this.bytes.slab(addressB)]
    const [atA, atB] = [ByteArena.position(addressA), ByteArena.position(addressB)]
    const [lengthA, lengthB] = [this.nameLength(a), this.nameLength(b)]
    const common = Math.min(lengthA, lengthB)
    for (let index = 0; index < common; index++) {
      const difference = bytesA[atA + index] - bytesB[atB + index]
      if (difference !== 0) return difference
    }
    return lengthA - lengthB
  }

  protected flag(id: NodeId, flag: number): boolean {
    return (this.rows.get(id, WORD.nameAndFlags) & flag) !== 0
  }

  protected setFlag(id: NodeId, flag: number, isSet: boolean): void {
    const word = this.rows.get(id, WORD.nameAndFlags)
    this.rows.set(id, WORD.nameAndFlags, isSet ? word | flag : word & ~flag)
  }

  /** Gives a directory the attributes of another; both keep their children. */
  copyAttributes(from: NodeId, to: NodeId): void {
    for (let word: number = FIRST_INODE_WORD; word < WORD.first; word++)
      this.rows.set(to, word, this.rows.get(from, word))
    this.setFlag(to, FLAGS.IMPLIED, this.isImplied(from))
  }

  /** Gives an entry its name. */
  protected setName(id: NodeId, name: string): void {
    const address = this.bytes.reserve(name.length)
    const bytes = this.bytes.slab(address)
    const at = ByteArena.position(address)
    for (let index = 0; index < name.length; index++) bytes[at + index] = name.charCodeAt(index)
    this.rows.set(id, WORD.name, address)
    this.rows.set(id, WORD.nameAndFlags, name.length)
  }

  /** Gives an entry attributes. Of a directory that stays one, what it holds is left alone. */
  protected write(id: NodeId, values: NodeValues, staysDirectory: boolean): void {
    const { rows } = this
    rows.set(id, WORD.mode, values.mode)
    rows.set(id, WORD.uid, values.uid)
    rows.set(id, WORD.gid, values.gid)
    rows.set(id, WORD.rdev, values.rdev)
    rows.setLong(id, WORD.mtime, values.mtime)
    rows.set(id, WORD.mtimeNsec, values.mtimeNsec)
    rows.setLong(id, WORD.size, values.size)
    rows.set(id, WORD.xattrs, this.#xattrs.add(values.xattrs))
    this.setFlag(id, FLAGS.LINKED | FLAGS.IMPLIED | FLAGS.PLACEHOLDER, false)
    if (staysDirectory) return
    rows.set(id, WORD.first, 0)
    rows.set(id, WORD.last, 0)
    if (values.target !== undefined) rows.set(id, WORD.first, this.#addTarget(values.target))
    else if (isType(values.mode, MODE.FILE)) this.setChunks(id, values.chunks)
  }

  /** Makes an entry one more name of a file. */
  protected nameInode(id: NodeId, inode: NodeId): void {
    for (let word: number = FIRST_INODE_WORD; word < ROW_WORDS; word++) this.rows.set(id, word, 0)
    this.rows.set(id, WORD.inode, inode)
    this.setFlag(id, FLAGS.IMPLIED | FLAGS.PLACEHOLDER, false)
    this.setFlag(inode, FLAGS.SHARED, true)
  }
}
