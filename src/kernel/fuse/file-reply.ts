import { libc } from '../syscall.ts'
import type { HostStat } from '../host/stat.ts'
import { ATTR, ATTR_OUT, DIRENT, ENTRY, MAX_READ_BYTES, OPEN_OUT, PAGE, REPLY, STATFS_OUT } from './wire.ts'

/** Attributes as words, ready for the wire: 22 words of which those of the number come from {@link FileReply}. */
export class WireAttributes {
  readonly words = new Uint32Array(ATTR.size >> 2)

  /** All but the number. */
  fromHost(stat: HostStat): void {
    const { words } = this
    for (let index = 0; index < 4; index++) words[(ATTR.bytes >> 2) + index] = stat.words[stat.sizeWord + index]
    this.#time(stat, 'atime', ATTR.atime, ATTR.atimeNsec)
    this.#time(stat, 'mtime', ATTR.mtime, ATTR.mtimeNsec)
    this.#time(stat, 'ctime', ATTR.ctime, ATTR.ctimeNsec)
    words[ATTR.mode >> 2] = stat.mode
    words[ATTR.nlink >> 2] = stat.nlink
    words[ATTR.uid >> 2] = stat.uid
    words[ATTR.gid >> 2] = stat.gid
    words[ATTR.rdev >> 2] = stat.rdev
    words[ATTR.blockSize >> 2] = stat.blockSize
  }

  /** The number that users see: low and high word. */
  number(low: number, high: number): void {
    this.words[ATTR.ino >> 2] = low
    this.words[(ATTR.ino >> 2) + 1] = high
  }

  /** A time of whole seconds below 2^53, which may be negative. */
  time(which: 'atime' | 'mtime' | 'ctime', seconds: number, nanoseconds: number): void {
    this.words[ATTR[which] >> 2] = seconds
    this.words[(ATTR[which] >> 2) + 1] = Math.floor(seconds / 2 ** 32)
    this.words[ATTR[`${which}Nsec`] >> 2] = nanoseconds
  }

  size(bytes: number, blocks: number): void {
    this.words[ATTR.bytes >> 2] = bytes
    this.words[(ATTR.bytes >> 2) + 1] = Math.floor(bytes / 2 ** 32)
    this.words[ATTR.blocks >> 2] = blocks
    this.words[(ATTR.blocks >> 2) + 1] = Math.floor(blocks / 2 ** 32)
  }

  owner(mode: number, nlink: number, uid: number, gid: number, rdev: number): void {
    this.words[ATTR.mode >> 2] = mode
    this.words[ATTR.nlink >> 2] = nlink
    this.words[ATTR.uid >> 2] = uid
    this.words[ATTR.gid >> 2] = gid
    this.words[ATTR.rdev >> 2] = rdev
    this.words[ATTR.blockSize >> 2] = PAGE
  }

  nlink(count: number): void {
    this.words[ATTR.nlink >> 2] = count
  }

  #time(stat: HostStat, which: 'atime' | 'mtime' | 'ctime', at: number, nsecAt: number): void {
    const from = stat.timeWord(which)
    this.words[at >> 2] = stat.words[from]
    this.words[(at >> 2) + 1] = stat.words[from + 1]
    this.words[nsecAt >> 2] = stat.words[from + 2]
  }
}

/** Who a node is to the kernel (`low`, `high`: its id), and for how many seconds the kernel may believe what it is told. */
export interface EntryAnswer {
  readonly low: number
  readonly high: number
  readonly seconds: number
}

/** The reply buffer of a thread that serves files which change. The methods write a body and give its length. */
export class FileReply {
  readonly bytes: Buffer
  /** First byte of the body, and its address. */
  readonly bodyAt = PAGE
  readonly bodyAddress: number
  readonly #words: Uint32Array
  #end = 0
  #limit = 0

  constructor() {
    this.bytes = Buffer.from(new ArrayBuffer(PAGE + MAX_READ_BYTES + PAGE))
    this.#words = new Uint32Array(this.bytes.buffer)
    this.bodyAddress = libc().address(this.bytes) + this.bodyAt
  }

  /** The message for a body of this length, header included; `error` 0 or a positive errno. */
  message(
    uniqueLow: number,
    uniqueHigh: number,
    bodyLength: number,
    error: number,
  ): { address: number; length: number } {
    const at = (this.bodyAt - REPLY.size) >> 2
    const length = REPLY.size + (error === 0 ? bodyLength : 0)
    this.#words[at] = length
    this.#words[at + 1] = -error
    this.#words[at + 2] = uniqueLow
    this.#words[at + 3] = uniqueHigh
    return { address: this.bodyAddress - REPLY.size, length }
  }

  /** Where data may be put. */
  room(bytes: number): Uint8Array {
    return this.bytes.subarray(this.bodyAt, this.bodyAt + Math.min(bytes, MAX_READ_BYTES))
  }

  entry(answer: EntryAnswer, attributes: WireAttributes): number {
    this.#entry(this.bodyAt >> 2, answer, attributes)
    return ENTRY.size
  }

  attributes(seconds: number, attributes: WireAttributes): number {
    const at = this.bodyAt >> 2
    this.#words.fill(0, at, at + (ATTR_OUT.attr >> 2))
    this.#words[at + (ATTR_OUT.valid >> 2)] = seconds
    this.#words.set(attributes.words, at + (ATTR_OUT.attr >> 2))
    return ATTR_OUT.size
  }

  /** OPEN and OPENDIR; behind an entry of CREATE with `behind` = its length. */
  opened(handle: number, flags: number, behind = 0): number {
    const at = (this.bodyAt + behind) >> 2
    this.#words.fill(0, at, at + (OPEN_OUT.size >> 2))
    this.#words[at] = handle
    this.#words[at + 1] = Math.floor(handle / 2 ** 32)
    this.#words[at + (OPEN_OUT.flags >> 2)] = flags
    return behind + OPEN_OUT.size
  }

  /** One number of 32 bits, as WRITE, COPY_FILE_RANGE and the sizes of xattrs have it. */
  count(value: number): number {
    this.#words[this.bodyAt >> 2] = value
    this.#words[(this.bodyAt >> 2) + 1] = 0
    return 8
  }

  /** What {@link count} was told. */
  get counted(): number {
    return this.#words[this.bodyAt >> 2]
  }

  /** One number of 64 bits: LSEEK. */
  offset(value: number): number {
    this.#words[this.bodyAt >> 2] = value
    this.#words[(this.bodyAt >> 2) + 1] = Math.floor(value / 2 ** 32)
    return 8
  }

  data(bytes: Uint8Array): number {
    this.bytes.set(bytes, this.bodyAt)
    return bytes.length
  }

  /** From a `struct statfs` of the host (64-bit Linux): type, block size, blocks, free, available, files, free files (8 each), id (8), name length, fragment size (8 each). */
  statfs(host: Uint8Array): number {
    const from = new DataView(host.buffer, host.byteOffset)
    const words = this.#words
    const at = this.bodyAt >> 2
    words.fill(0, at, at + (STATFS_OUT.size >> 2))
    for (let index = 0; index < 10; index++) words[at + index] = from.getUint32(16 + index * 4, true)
    words[at + (STATFS_OUT.blockSize >> 2)] = from.getUint32(8, true)
    words[at + (STATFS_OUT.nameLength >> 2)] = from.getUint32(64, true)
    words[at + (STATFS_OUT.fragmentSize >> 2)] = from.getUint32(72, true)
    return STATFS_OUT.size
  }

  /** Starts a listing of at most `count` bytes. */
  startList(count: number): void {
    this.#end = this.bodyAt
    this.#limit = this.bodyAt + Math.min(count, MAX_READ_BYTES)
  }

  fits(nameLength: number, isPlus: boolean): boolean {
    return this.#end + recordLength(nameLength, isPlus) <= this.#limit
  }

  /** Adds a record that {@link fits}. The number, and the cookie that continues behind it, are pairs of words. `entry` undefined in READDIRPLUS leaves it to a later LOOKUP. */
  add(record: DirectoryRecord, isPlus: boolean, entry?: { answer: EntryAnswer; attributes: WireAttributes }): void {
    let at = this.#end >> 2
    const { name } = record
    const words = this.#words
    if (isPlus) {
      if (entry === undefined) words.fill(0, at, at + (ENTRY.size >> 2))
      else this.#entry(at, entry.answer, entry.attributes)
      at += ENTRY.size >> 2
    }
    words[at] = record.inoLow
    words[at + 1] = record.inoHigh
    words[at + (DIRENT.next >> 2)] = record.nextLow
    words[at + (DIRENT.next >> 2) + 1] = record.nextHigh
    words[at + (DIRENT.nameLength >> 2)] = name.length
    words[at + (DIRENT.type >> 2)] = record.type
    const from = (at << 2) + DIRENT.size
    const end = this.#end + recordLength(name.length, isPlus)
    this.bytes.set(name, from)
    this.bytes.fill(0, from + name.length, end)
    this.#end = end
  }

  endList(): number {
    return this.#end - this.bodyAt
  }

  #entry(at: number, answer: EntryAnswer, attributes: WireAttributes): void {
    const words = this.#words
    words.fill(0, at, at + (ENTRY.attr >> 2))
    words[at] = answer.low
    words[at + 1] = answer.high
    words[at + (ENTRY.entryValid >> 2)] = answer.seconds
    words[at + (ENTRY.attrValid >> 2)] = answer.seconds
    words.set(attributes.words, at + (ENTRY.attr >> 2))
  }
}

/** One name of a directory. */
export interface DirectoryRecord {
  readonly name: Uint8Array
  readonly inoLow: number
  readonly inoHigh: number
  readonly type: number
  readonly nextLow: number
  readonly nextHigh: number
}

function recordLength(nameLength: number, isPlus: boolean): number {
  return (isPlus ? ENTRY.size : 0) + DIRENT.size + ((nameLength + 7) & ~7)
}
