import { libc } from '../syscall.ts'
import { ATTR, ATTR_OUT, DIRENT, ENTRY, FOREVER, MAX_READ_BYTES, OPEN_OUT, PAGE, REPLY, STATFS_OUT } from './wire.ts'

/** What a file system says of one file; a reused, mutable record. `inoTop` is the top byte of the number that users see. */
export class FuseAttributes {
  ino = 0
  inoTop = 0
  size = 0
  blocks = 0
  atime = 0
  mtime = 0
  ctime = 0
  mtimeNsec = 0
  mode = 0
  nlink = 0
  uid = 0
  gid = 0
  rdev = 0
}

/**
 * The reply buffer of one thread. The body starts on a page: with the header first on the page both copies in the kernel take twice as long.
 * The methods write a body and give its length, which is what a handler returns.
 */
export class FuseReply {
  readonly bytes: Buffer
  /** First byte of the body, in {@link bytes}. */
  readonly bodyAt: number
  /** Address of the body's first byte, for reads straight into it. */
  readonly bodyAddress: number
  readonly #words: Uint32Array
  readonly #base: number
  #end = 0
  #limit = 0

  constructor() {
    const buffer = new ArrayBuffer(MAX_READ_BYTES + 3 * PAGE)
    const address = libc().address(new Uint8Array(buffer))
    this.bodyAt = PAGE + ((PAGE - (address % PAGE)) % PAGE)
    this.bodyAddress = address + this.bodyAt
    this.bytes = Buffer.from(buffer)
    this.#words = new Uint32Array(buffer)
    this.#base = this.bodyAt >> 2
  }

  /** Address of the header. */
  get address(): number {
    return this.bodyAddress - REPLY.size
  }

  /** Writes the header; gives the length of the whole message. `error` is 0 or a positive errno. */
  finish(uniqueLow: number, uniqueHigh: number, bodyLength: number, error: number): number {
    const at = this.#base - (REPLY.size >> 2)
    this.#words[at] = REPLY.size + bodyLength
    this.#words[at + 1] = -error
    this.#words[at + 2] = uniqueLow
    this.#words[at + 3] = uniqueHigh
    return REPLY.size + bodyLength
  }

  /** LOOKUP: the entry; the kernel may keep it and the attributes for ever. */
  entry(attributes: FuseAttributes): number {
    this.#entry(this.#base, attributes)
    return ENTRY.size
  }

  /** LOOKUP: no such name. `cached`: the kernel may remember that for ever (an ENOENT error is never remembered). */
  noEntry(): number {
    this.#words.fill(0, this.#base, this.#base + (ENTRY.size >> 2))
    this.#words[this.#base + (ENTRY.entryValid >> 2)] = FOREVER
    return ENTRY.size
  }

  /** GETATTR. */
  attributes(attributes: FuseAttributes): number {
    this.#words.fill(0, this.#base, this.#base + (ATTR_OUT.attr >> 2))
    this.#words[this.#base + (ATTR_OUT.valid >> 2)] = FOREVER
    this.#attributes(this.#base + (ATTR_OUT.attr >> 2), attributes)
    return ATTR_OUT.size
  }

  /** OPEN and OPENDIR: handle 0 and these flags. */
  opened(flags: number): number {
    this.#words.fill(0, this.#base, this.#base + (OPEN_OUT.size >> 2))
    this.#words[this.#base + (OPEN_OUT.flags >> 2)] = flags
    return OPEN_OUT.size
  }

  /** STATFS of a read-only file system. */
  statfs(files: number, blockSize: number): number {
    this.#words.fill(0, this.#base, this.#base + (STATFS_OUT.size >> 2))
    this.#number(this.#base + (STATFS_OUT.files >> 2), files)
    this.#words[this.#base + (STATFS_OUT.blockSize >> 2)] = blockSize
    this.#words[this.#base + (STATFS_OUT.nameLength >> 2)] = 255
    this.#words[this.#base + (STATFS_OUT.fragmentSize >> 2)] = blockSize
    return STATFS_OUT.size
  }

  /** LSEEK. */
  position(bytes: number): number {
    this.#number(this.#base, bytes)
    return 8
  }

  /** The answer to "how long would it be" of the xattr calls. */
  size(bytes: number): number {
    this.#words[this.#base] = bytes
    this.#words[this.#base + 1] = 0
    return 8
  }

  /** Bytes as they are: READLINK, GETXATTR, LISTXATTR. */
  data(bytes: Uint8Array): number {
    this.bytes.set(bytes, this.bodyAt)
    return bytes.length
  }

  /** Starts a listing of at most `count` bytes. */
  startList(count: number): void {
    this.#end = this.bodyAt
    this.#limit = this.bodyAt + Math.min(count, MAX_READ_BYTES)
  }

  /** Would a record for a name of so many bytes still fit? */
  fits(nameLength: number, isPlus: boolean): boolean {
    return this.#end + recordLength(nameLength, isPlus) <= this.#limit
  }

  /** Adds a record that {@link fits}. `next` is the offset that continues behind it. `attributes` fills the entry of READDIRPLUS; undefined leaves it to a later LOOKUP. */
  add(
    name: Uint8Array,
    ino: number,
    inoTop: number,
    type: number,
    next: number,
    isPlus: boolean,
    attributes: FuseAttributes | undefined,
  ): void {
    let at = this.#end >> 2
    if (isPlus) {
      if (attributes === undefined) this.#words.fill(0, at, at + (ENTRY.size >> 2))
      else this.#entry(at, attributes)
      at += ENTRY.size >> 2
    }
    this.#node(at, ino, inoTop)
    this.#number(at + (DIRENT.next >> 2), next)
    this.#words[at + (DIRENT.nameLength >> 2)] = name.length
    this.#words[at + (DIRENT.type >> 2)] = type
    const end = this.#end + recordLength(name.length, isPlus)
    const from = (at << 2) + DIRENT.size
    for (let index = 0; index < name.length; index++) this.bytes[from + index] = name[index]
    this.bytes.fill(0, from + name.length, end)
    this.#end = end
  }

  /** Length of the listing. */
  endList(): number {
    return this.#end - this.bodyAt
  }

  #entry(at: number, attributes: FuseAttributes): void {
    const words = this.#words
    this.#node(at, attributes.ino, attributes.inoTop)
    words[at + 2] = 0
    words[at + 3] = 0
    words[at + 4] = FOREVER
    words[at + 5] = 0
    words[at + 6] = FOREVER
    words[at + 7] = 0
    words[at + 8] = 0
    words[at + 9] = 0
    this.#attributes(at + (ENTRY.attr >> 2), attributes)
  }

  #attributes(at: number, of: FuseAttributes): void {
    const words = this.#words
    this.#node(at, of.ino, of.inoTop)
    this.#number(at + (ATTR.bytes >> 2), of.size)
    this.#number(at + (ATTR.blocks >> 2), of.blocks)
    this.#number(at + (ATTR.atime >> 2), of.atime)
    this.#number(at + (ATTR.mtime >> 2), of.mtime)
    this.#number(at + (ATTR.ctime >> 2), of.ctime)
    words[at + (ATTR.atimeNsec >> 2)] = 0
    words[at + (ATTR.mtimeNsec >> 2)] = of.mtimeNsec
    words[at + (ATTR.ctimeNsec >> 2)] = 0
    words[at + (ATTR.mode >> 2)] = of.mode
    words[at + (ATTR.nlink >> 2)] = of.nlink
    words[at + (ATTR.uid >> 2)] = of.uid
    words[at + (ATTR.gid >> 2)] = of.gid
    words[at + (ATTR.rdev >> 2)] = of.rdev
    words[at + (ATTR.blockSize >> 2)] = PAGE
    words[at + (ATTR.blockSize >> 2) + 1] = 0
  }

  #node(at: number, ino: number, top: number): void {
    this.#words[at] = ino
    this.#words[at + 1] = (Math.floor(ino / 2 ** 32) | (top << 24)) >>> 0
  }

  /** A 64-bit number, two's complement when negative. */
  #number(at: number, value: number): void {
    this.#words[at] = value
    this.#words[at + 1] = Math.floor(value / 2 ** 32)
  }
}

function recordLength(nameLength: number, isPlus: boolean): number {
  return (isPlus ? ENTRY.size : 0) + DIRENT.size + ((nameLength + 7) & ~7)
}
