import type { BlobInfo } from '../blob/index.ts'
import { ByteArena } from './byte-arena.ts'
import { type ChunkId, type ChunkList, ChunkStore, NO_CHUNKS } from './chunk-store.ts'
import { RafsError } from './errors.ts'
import { HashIndex, mix } from './hash-index.ts'
import { isType, MODE } from './mode.ts'
import { NAME_MAX, SLASH } from './names.ts'
import { Rows } from './rows.ts'
import type { RafsXattr } from './tree.ts'
import { XattrSets } from './xattr-sets.ts'

/** Number of an entry of a tree; 0 is none. */
export type NodeId = number

/** An image that is to be written. */
export interface RafsFiles {
  readonly files: FileTree
  readonly root: NodeId
  readonly blobs: readonly BlobInfo[]
}

/** What a file is, without its name. */
export interface NodeValues {
  /** Type and permission bits, 16 bits. */
  readonly mode: number
  readonly uid: number
  readonly gid: number
  /** Linux dev_t, 32 bits. */
  readonly rdev: number
  /** Seconds since 1970, may be negative. */
  readonly mtime: number
  readonly mtimeNsec: number
  /** Files: bytes of content. */
  readonly size: number
  readonly xattrs: readonly RafsXattr[]
  /** Of a symlink. */
  readonly target: Uint8Array | undefined
  /** Of a file. */
  readonly chunks: ChunkList
}

/** Words of a row. Of a hard link only those of the entry count, the others are those of the inode that it names. */
const WORD = {
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
const FLAGS = {
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

/**
 * Files of an image or layer that is built, merged or written: 68 bytes an entry and its name, where objects took a thousand. Entries are numbers. Names are text with a character a byte (latin1), in any order until
 * {@link sort}. Several trees may live in one: each has its own root, and {@link move} takes entries from one to the other.
 */
export class FileTree {
  readonly chunks = new ChunkStore()
  readonly #rows = new Rows(ROW_WORDS)
  readonly #bytes = new ByteArena()
  readonly #xattrs = new XattrSets(this.#bytes)
  readonly #byName = new HashIndex((id) => this.#hash(id))

  /** Entry numbers are below this. */
  get end(): NodeId {
    return this.#rows.count
  }

  /** An entry without name and parent. */
  addRoot(values: NodeValues): NodeId {
    const id = this.#rows.add()
    this.#write(id, values)
    return id
  }

  /** Puts an entry into a directory, over one of that name: a directory over a directory keeps the children, anything else replaces what is there. */
  put(parent: NodeId, name: string, values: NodeValues): NodeId {
    const id = this.#place(parent, name)
    this.#write(id, values)
    return id
  }

  /** Puts a further name of a file into a directory, over an entry of that name. */
  link(parent: NodeId, name: string, target: NodeId): NodeId {
    const inode = this.inode(target)
    const id = this.#place(parent, name)
    if (id === inode) return id
    // What it was before, a directory perhaps, must not come back with the next entry.
    this.removeChildren(id)
    for (let word: number = FIRST_INODE_WORD; word < ROW_WORDS; word++) this.#rows.set(id, word, 0)
    this.#rows.set(id, WORD.inode, inode)
    this.#setFlag(id, FLAGS.PLACEHOLDER, false)
    this.#setFlag(inode, FLAGS.SHARED, true)
    return id
  }

  /** Gives an entry without parent other values; a directory keeps its children. */
  setValues(root: NodeId, values: NodeValues): void {
    this.#write(root, values)
  }

  /** Puts an empty directory with the name and the attributes of another into a directory. */
  putDirectoryLike(parent: NodeId, other: NodeId): NodeId {
    const id = this.#place(parent, this.text(other))
    this.removeChildren(id)
    for (const word of [WORD.first, WORD.last]) this.#rows.set(id, word, 0)
    this.#setFlag(id, FLAGS.LINKED | FLAGS.PLACEHOLDER, false)
    this.copyAttributes(other, id)
    return id
  }

  /** 0 when there is none. */
  find(parent: NodeId, name: string): NodeId {
    return this.#byName.find(hashName(parent, name), (id) => this.#is(id, parent, name))
  }

  /** Takes an entry, with all that is below it, out of its directory. */
  remove(id: NodeId): void {
    if (id !== 0) this.#setFlag(id, FLAGS.GONE, true)
  }

  removeChildren(directory: NodeId): void {
    if (!this.isDirectory(directory)) return
    for (let child = this.#rows.get(directory, WORD.first); child !== 0; child = this.#rows.get(child, WORD.next))
      this.remove(child)
    this.#rows.set(directory, WORD.first, 0)
    this.#rows.set(directory, WORD.last, 0)
  }

  /** Moves an entry with all that is below it into another directory, over an entry of its name. What its old directory lists is not known afterwards. */
  move(id: NodeId, to: NodeId): void {
    const name = this.text(id)
    const hash = hashName(to, name)
    const old = this.#byName.find(hash, (other) => this.#is(other, to, name))
    if (old !== 0) {
      this.remove(old)
      this.#byName.replace(hash, old, id)
    } else this.#byName.add(hash, id)
    this.#append(to, id, name)
  }

  /** Gives a directory the attributes of another; both keep their children. */
  copyAttributes(from: NodeId, to: NodeId): void {
    for (let word: number = FIRST_INODE_WORD; word < WORD.first; word++)
      this.#rows.set(to, word, this.#rows.get(from, word))
    this.#setFlag(to, FLAGS.IMPLIED, this.isImplied(from))
  }

  /** No entry is to be found by its name any more: lets go of the memory for it. */
  closeIndex(): void {
    this.#byName.clear()
  }

  /** The entry whose attributes count: itself, or of a hard link the first name of its file. */
  inode(id: NodeId): NodeId {
    const inode = this.#rows.get(id, WORD.inode)
    return inode === 0 ? id : inode
  }

  /** It may have other names. */
  isShared(id: NodeId): boolean {
    return this.#flag(this.inode(id), FLAGS.SHARED)
  }

  isLinked(id: NodeId): boolean {
    return this.#flag(this.inode(id), FLAGS.LINKED)
  }

  setLinked(id: NodeId): void {
    this.#setFlag(this.inode(id), FLAGS.LINKED, true)
  }

  isImplied(id: NodeId): boolean {
    return this.#flag(id, FLAGS.IMPLIED)
  }

  setImplied(id: NodeId): void {
    this.#setFlag(id, FLAGS.IMPLIED, true)
  }

  isPlaceholder(id: NodeId): boolean {
    return this.#flag(id, FLAGS.PLACEHOLDER)
  }

  setPlaceholder(id: NodeId): void {
    this.#setFlag(id, FLAGS.PLACEHOLDER, true)
  }

  /** The directory that it is in; 0 for a root. */
  parent(id: NodeId): NodeId {
    return this.#rows.get(id, WORD.parent)
  }

  /** A view. */
  name(id: NodeId): Uint8Array {
    const length = this.nameLength(id)
    return length === 0 ? NOTHING : this.#bytes.view(this.#rows.get(id, WORD.name), length)
  }

  nameLength(id: NodeId): number {
    return this.#rows.get(id, WORD.nameAndFlags) & NAME_LENGTH_MASK
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
    return this.#rows.get(this.inode(id), WORD.mode)
  }

  uid(id: NodeId): number {
    return this.#rows.get(this.inode(id), WORD.uid)
  }

  gid(id: NodeId): number {
    return this.#rows.get(this.inode(id), WORD.gid)
  }

  rdev(id: NodeId): number {
    return this.#rows.get(this.inode(id), WORD.rdev)
  }

  mtime(id: NodeId): number {
    return this.#rows.getLong(this.inode(id), WORD.mtime)
  }

  mtimeNsec(id: NodeId): number {
    return this.#rows.get(this.inode(id), WORD.mtimeNsec)
  }

  size(id: NodeId): number {
    return this.#rows.getLong(this.inode(id), WORD.size)
  }

  setSize(id: NodeId, size: number): void {
    this.#rows.setLong(this.inode(id), WORD.size, size)
  }

  /** Equal for entries with equal lists of xattrs; 0 is the empty list. */
  xattrKey(id: NodeId): number {
    return this.#rows.get(this.inode(id), WORD.xattrs)
  }

  xattrs(id: NodeId): RafsXattr[] {
    return this.#xattrs.get(this.#rows.get(this.inode(id), WORD.xattrs))
  }

  setXattrs(id: NodeId, xattrs: readonly RafsXattr[]): void {
    this.#rows.set(this.inode(id), WORD.xattrs, this.#xattrs.add(xattrs))
  }

  /** Bytes of a symlink's target; undefined for all else. */
  target(id: NodeId): Uint8Array | undefined {
    if (!isType(this.mode(id), MODE.SYMLINK)) return undefined
    const address = this.#rows.get(this.inode(id), WORD.first)
    if (address === 0) return undefined
    const [low = 0, high = 0] = this.#bytes.view(address, TARGET_LENGTH_BYTES)
    return this.#bytes.view(address + TARGET_LENGTH_BYTES, low + high * 256)
  }

  isDirectory(id: NodeId): boolean {
    return isType(this.mode(id), MODE.DIRECTORY)
  }

  isFile(id: NodeId): boolean {
    return isType(this.mode(id), MODE.FILE)
  }

  /** Number of chunks. */
  chunkCount(id: NodeId): number {
    return this.isFile(id) ? this.#rows.get(this.inode(id), WORD.last) : 0
  }

  /** Chunk `index` of a file. */
  chunk(id: NodeId, index: number): ChunkId {
    return this.chunks.use(this.#rows.get(this.inode(id), WORD.first) + index)
  }

  /** Its list in {@link chunks}; empty for all but files. */
  chunkList(id: NodeId): ChunkList {
    return this.isFile(id)
      ? { start: this.#rows.get(this.inode(id), WORD.first), count: this.chunkCount(id) }
      : NO_CHUNKS
  }

  setChunks(id: NodeId, { start, count }: ChunkList): void {
    this.#rows.set(this.inode(id), WORD.first, start)
    this.#rows.set(this.inode(id), WORD.last, count)
  }

  /** 0 when there is none. With {@link next}: all children of a directory. */
  firstChild(directory: NodeId): NodeId {
    return this.isDirectory(directory) ? this.#present(this.#rows.get(directory, WORD.first)) : 0
  }

  /** The child after this one in its directory. */
  next(child: NodeId): NodeId {
    return this.#present(this.#rows.get(child, WORD.next))
  }

  /** A copy of what {@link firstChild} and {@link next} give: for who changes the directory meanwhile. */
  children(directory: NodeId): NodeId[] {
    const found: NodeId[] = []
    for (let child = this.firstChild(directory); child !== 0; child = this.next(child)) found.push(child)
    return found
  }

  /** Puts all children of a directory into bytewise order of their names, the order of the format. */
  sort(directory: NodeId): void {
    if (!this.#flag(directory, FLAGS.UNSORTED)) return
    const children = this.children(directory).sort((a, b) => this.#compare(a, b))
    this.#setFlag(directory, FLAGS.UNSORTED, false)
    this.#rows.set(directory, WORD.first, children[0] ?? 0)
    this.#rows.set(directory, WORD.last, children.at(-1) ?? 0)
    for (const [at, child] of children.entries()) this.#rows.set(child, WORD.next, children[at + 1] ?? 0)
  }

  /** All entries below and with a root in the order of the format: a directory's children, then the directories among them, each the same way. Sorts them. */
  *hybridOrder(root: NodeId): Generator<NodeId> {
    yield root
    const open = [root]
    for (let directory = open.pop(); directory !== undefined; directory = open.pop()) {
      this.sort(directory)
      const first = open.length
      for (let child = this.firstChild(directory); child !== 0; child = this.next(child)) {
        yield child
        if (this.isDirectory(child)) open.push(child)
      }
      reverseFrom(open, first)
    }
  }

  /** A row for that name in that directory: a new one, or that of the entry which is there. */
  #place(parent: NodeId, name: string): NodeId {
    const hash = hashName(parent, name)
    const old = this.#byName.find(hash, (id) => this.#is(id, parent, name))
    if (old !== 0 && !this.#flag(old, FLAGS.SHARED)) {
      this.#rows.set(old, WORD.inode, 0)
      return old
    }
    if (name.length === 0 || name.length > NAME_MAX)
      throw new RafsError('TOO_LARGE', `a name of ${name.length} bytes: Linux and RAFS take 1 to ${NAME_MAX}`)
    if (name === '.' || name === '..') throw new RafsError('BAD_DIRECTORY', `"${name}" cannot be a name`)
    const id = this.#rows.add()
    const address = this.#bytes.reserve(name.length)
    const bytes = this.#bytes.slab(address)
    const at = ByteArena.position(address)
    for (let index = 0; index < name.length; index++) {
      const byte = name.charCodeAt(index)
      if (byte === 0 || byte === SLASH)
        throw new RafsError(
          'BAD_DIRECTORY',
          `${JSON.stringify(Buffer.from(name, 'latin1').toString())} cannot be a name: it has a slash or NUL`,
        )
      bytes[at + index] = byte
    }
    this.#rows.set(id, WORD.name, address)
    this.#rows.set(id, WORD.nameAndFlags, name.length)
    if (old !== 0) {
      this.remove(old)
      this.#byName.replace(hash, old, id)
    } else this.#byName.add(hash, id)
    this.#append(parent, id, name)
    return id
  }

  #append(directory: NodeId, id: NodeId, name: string): void {
    const rows = this.#rows
    const last = rows.get(directory, WORD.last)
    rows.set(id, WORD.parent, directory)
    rows.set(id, WORD.next, 0)
    if (last === 0) rows.set(directory, WORD.first, id)
    else {
      rows.set(last, WORD.next, id)
      if (this.#compareText(last, name) > 0) this.#setFlag(directory, FLAGS.UNSORTED, true)
    }
    rows.set(directory, WORD.last, id)
  }

  #write(id: NodeId, values: NodeValues): void {
    const rows = this.#rows
    const staysDirectory = this.isDirectory(id) && isType(values.mode, MODE.DIRECTORY)
    if (!staysDirectory) this.removeChildren(id)
    rows.set(id, WORD.mode, values.mode)
    rows.set(id, WORD.uid, values.uid)
    rows.set(id, WORD.gid, values.gid)
    rows.set(id, WORD.rdev, values.rdev)
    rows.setLong(id, WORD.mtime, values.mtime)
    rows.set(id, WORD.mtimeNsec, values.mtimeNsec)
    rows.setLong(id, WORD.size, values.size)
    rows.set(id, WORD.xattrs, this.#xattrs.add(values.xattrs))
    this.#setFlag(id, FLAGS.LINKED | FLAGS.IMPLIED | FLAGS.PLACEHOLDER, false)
    if (staysDirectory) return
    rows.set(id, WORD.first, 0)
    rows.set(id, WORD.last, 0)
    if (values.target !== undefined) rows.set(id, WORD.first, this.#addTarget(values.target))
    else if (isType(values.mode, MODE.FILE)) this.setChunks(id, values.chunks)
  }

  #addTarget(target: Uint8Array): number {
    const address = this.#bytes.reserve(TARGET_LENGTH_BYTES + target.length)
    const bytes = this.#bytes.view(address, TARGET_LENGTH_BYTES + target.length)
    bytes[0] = target.length & 0xff
    bytes[1] = target.length >> 8
    bytes.set(target, TARGET_LENGTH_BYTES)
    return address
  }

  #present(id: NodeId): NodeId {
    let at = id
    while (at !== 0 && this.#flag(at, FLAGS.GONE)) at = this.#rows.get(at, WORD.next)
    return at
  }

  #is(id: NodeId, parent: NodeId, name: string): boolean {
    if (this.#rows.get(id, WORD.parent) !== parent || this.nameLength(id) !== name.length) return false
    return this.#compareText(id, name) === 0 && !this.#flag(id, FLAGS.GONE)
  }

  #compareText(id: NodeId, name: string): number {
    const address = this.#rows.get(id, WORD.name)
    const bytes = this.#bytes.slab(address)
    const at = ByteArena.position(address)
    const length = this.nameLength(id)
    const common = Math.min(length, name.length)
    for (let index = 0; index < common; index++) {
      const difference = bytes[at + index] - name.charCodeAt(index)
      if (difference !== 0) return difference
    }
    return length - name.length
  }

  #compare(a: NodeId, b: NodeId): number {
    const [addressA, addressB] = [this.#rows.get(a, WORD.name), this.#rows.get(b, WORD.name)]
    const [bytesA, bytesB] = [this.#bytes.slab(addressA), this.#bytes.slab(addressB)]
    const [atA, atB] = [ByteArena.position(addressA), ByteArena.position(addressB)]
    const [lengthA, lengthB] = [this.nameLength(a), this.nameLength(b)]
    const common = Math.min(lengthA, lengthB)
    for (let index = 0; index < common; index++) {
      const difference = bytesA[atA + index] - bytesB[atB + index]
      if (difference !== 0) return difference
    }
    return lengthA - lengthB
  }

  #hash(id: NodeId): number {
    return hashName(this.parent(id), this.text(id))
  }

  #flag(id: NodeId, flag: number): boolean {
    return (this.#rows.get(id, WORD.nameAndFlags) & flag) !== 0
  }

  #setFlag(id: NodeId, flag: number, isSet: boolean): void {
    const word = this.#rows.get(id, WORD.nameAndFlags)
    this.#rows.set(id, WORD.nameAndFlags, isSet ? word | flag : word & ~flag)
  }
}

function hashName(parent: NodeId, name: string): number {
  let hash = mix(0, parent)
  for (let index = 0; index < name.length; index++) hash = mix(hash, name.charCodeAt(index))
  return hash
}

function reverseFrom(list: number[], first: number): void {
  for (let low = first, high = list.length - 1; low < high; low++, high--) {
    const kept = list[low]
    list[low] = list[high]
    list[high] = kept
  }
}
