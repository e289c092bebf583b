/** Offsets in `struct statx`, bytes. Source: statx(2). */
const AT = {
  blockSize: 4,
  nlink: 16,
  uid: 20,
  gid: 24,
  mode: 28,
  ino: 32,
  size: 40,
  blocks: 48,
  atime: 64,
  btime: 80,
  ctime: 96,
  mtime: 112,
  rdevMajor: 128,
  rdevMinor: 132,
  devMajor: 136,
  devMinor: 140,
} as const

/** STATX_BASIC_STATS and STATX_BTIME. */
export const STATS = 0xfff

/** What the kernel says of one file of the host; a reused, mutable record. 64-bit numbers are kept as two words: they go on as they came. */
export class HostStat {
  readonly words = new Uint32Array(64)

  get mode(): number {
    return this.words[AT.mode >> 2] & 0xffff
  }
  get type(): number {
    return this.mode & 0o170000
  }
  get nlink(): number {
    return this.words[AT.nlink >> 2]
  }
  get uid(): number {
    return this.words[AT.uid >> 2]
  }
  get gid(): number {
    return this.words[AT.gid >> 2]
  }
  get blockSize(): number {
    return this.words[AT.blockSize >> 2]
  }
  get inoLow(): number {
    return this.words[AT.ino >> 2]
  }
  get inoHigh(): number {
    return this.words[(AT.ino >> 2) + 1]
  }
  /** Exact below 2^53. */
  get ino(): number {
    return this.inoLow + this.inoHigh * 2 ** 32
  }
  /** Of 512 bytes, that it takes on the disk. */
  get blocks(): number {
    return this.words[AT.blocks >> 2] + this.words[(AT.blocks >> 2) + 1] * 2 ** 32
  }
  /** Seconds since 1970 of the last change of its content; negative before. */
  get mtimeSeconds(): number {
    return this.words[AT.mtime >> 2] + (this.words[(AT.mtime >> 2) + 1] | 0) * 2 ** 32
  }
  /** Of that second. */
  get mtimeNanoseconds(): number {
    return this.words[(AT.mtime >> 2) + 2]
  }
  /** Bytes, exact below 2^53. */
  get size(): number {
    return this.words[AT.size >> 2] + this.words[(AT.size >> 2) + 1] * 2 ** 32
  }
  get device(): string {
    return `${this.words[AT.devMajor >> 2]}:${this.words[AT.devMinor >> 2]}`
  }
  /** Which file this is, among all of the host. */
  get key(): string {
    return `${this.device}:${this.inoHigh.toString(16)}:${this.inoLow.toString(16)}`
  }
  /** Changes when the file does. */
  get version(): string {
    const at = AT.ctime >> 2
    return `${this.words[at]}.${this.words[at + 2]}:${this.size}`
  }
  /** Which file this is, also where numbers of removed files are given again: its number and its birth (zero where the file system does not tell it), 20 bytes. */
  get identity(): Uint8Array {
    const [ino, birth] = [AT.ino >> 2, AT.btime >> 2]
    const words = [...this.words.subarray(ino, ino + 2), ...this.words.subarray(birth, birth + 3)]
    return new Uint8Array(Uint32Array.from(words).buffer)
  }
  /** When it was made; where the file system does not tell it, when it was changed last. Milliseconds since 1970. */
  get bornMs(): number {
    const birth = this.#milliseconds(AT.btime)
    return birth === 0 ? this.changedMs : birth
  }
  /** When its names, attributes or content were changed last. Milliseconds since 1970. */
  get changedMs(): number {
    return this.#milliseconds(AT.ctime)
  }
  #milliseconds(at: number): number {
    const [low, high, nanoseconds] = this.words.subarray(at >> 2)
    return (low + (high | 0) * 2 ** 32) * 1000 + nanoseconds / 1e6
  }
  /** A dev_t of 32 bits, as FUSE and mknod(2) write it. */
  get rdev(): number {
    return deviceNumber(this.words[AT.rdevMajor >> 2], this.words[AT.rdevMinor >> 2])
  }
  /** Of the file system that it is on, the same way. */
  get dev(): number {
    return deviceNumber(this.words[AT.devMajor >> 2], this.words[AT.devMinor >> 2])
  }
  /** Two `struct timespec`, as utimensat(2) takes them. */
  accessAndModification(): Uint8Array {
    const times = new Uint32Array(8)
    for (const [index, at] of [AT.atime, AT.mtime].entries()) {
      times.set(this.words.subarray(at >> 2, (at >> 2) + 3), index * 4)
    }
    return new Uint8Array(times.buffer)
  }
  /** First of the two words of size, in {@link words}; those of blocks follow. */
  get sizeWord(): number {
    return AT.size >> 2
  }
  /** First of the three words (seconds low and high, nanoseconds) of a time. */
  timeWord(which: 'atime' | 'mtime' | 'ctime'): number {
    return AT[which] >> 2
  }
}

function deviceNumber(major: number, minor: number): number {
  return ((minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12)) >>> 0
}
