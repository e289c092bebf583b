import {
  closeFd,
  type EntryAnswer,
  type FileReply,
  type FileRequest,
  O,
  READ_IN,
  readDirectory,
  reopen,
  seekFd,
  type WireAttributes,
} from '../../kernel/index.ts'

/** `struct linux_dirent64`: number 8, cookie of the next 8, length of the record 2, type 1, name and NUL. Source: getdents64(2). */
const RECORD = { ino: 0, next: 8, length: 16, type: 18, name: 19 } as const
const BUFFER_BYTES = 32 * 1024
const SEEK_SET = 0
const DOT = 0x2e

/** How a listing's records are shown. */
export interface ShownRecords {
  readonly isPlus: boolean
  /** The number that users see, of a file on the directory's device. */
  readonly number: (low: number, high: number) => [low: number, high: number]
  /** READDIRPLUS: looks a name (with its NUL) up, which counts as a lookup; undefined = it cannot be: the kernel will ask again. */
  readonly entry: (name: Uint8Array) => { answer: EntryAnswer; attributes: WireAttributes } | undefined
}

/** Reads one open directory of the host, piece by piece, with the host's own cookies: as big as it may be, no more than a buffer is in memory. */
export class HostListing {
  readonly #fd: number
  readonly #buffer = Buffer.alloc(BUFFER_BYTES)
  #at = 0
  #end = 0
  /** Cookie behind the last record that was given. */
  #low = 0
  #high = 0
  #started = false

  constructor(fd: number) {
    this.#fd = fd
  }

  /** Answers READDIR or READDIRPLUS. */
  answer(request: FileRequest, reply: FileReply, shown: ShownRecords): number {
    const failed = this.#goTo(request.word(READ_IN.offset), request.word(READ_IN.offset + 4))
    if (failed < 0) return failed
    reply.startList(request.word(READ_IN.count))
    for (;;) {
      if (this.#at >= this.#end) {
        const got = readDirectory(this.#fd, this.#buffer)
        if (got < 0) return reply.endList() > 0 ? reply.endList() : got
        if (got === 0) return reply.endList()
        this.#at = 0
        this.#end = got
      }
      if (!this.#give(reply, shown)) return reply.endList()
    }
  }

  #goTo(low: number, high: number): number {
    const isNext = low === this.#low && high === this.#high
    const isFresh = low === 0 && high === 0 && this.#started
    this.#started = true
    if (isNext && !isFresh) return 0
    this.#at = 0
    this.#end = 0
    this.#low = low
    this.#high = high
    const found = seekFd(this.#fd, (BigInt(high | 0) << 32n) | BigInt(low), SEEK_SET)
    return found < 0 && found > -4096 ? found : 0
  }

  /** False: the answer is full. */
  #give(reply: FileReply, { isPlus, number, entry }: ShownRecords): boolean {
    const buffer = this.#buffer
    const at = this.#at
    const next = at + buffer.readUInt16LE(at + RECORD.length)
    const nameAt = at + RECORD.name
    const nameEnd = buffer.indexOf(0, nameAt)
    const name = buffer.subarray(nameAt, nameEnd)
    if (!reply.fits(name.length, isPlus)) return false
    const isDot = isDots(name)
    const found = isPlus && !isDot ? entry(buffer.subarray(nameAt, nameEnd + 1)) : undefined
    this.#low = buffer.readUInt32LE(at + RECORD.next)
    this.#high = buffer.readUInt32LE(at + RECORD.next + 4)
    this.#at = next
    const [inoLow, inoHigh] = number(buffer.readUInt32LE(at + RECORD.ino), buffer.readUInt32LE(at + RECORD.ino + 4))
    const type = buffer[at + RECORD.type]
    reply.add({ name, inoLow, inoHigh, type, nextLow: this.#low, nextHigh: this.#high }, isPlus, found)
    return true
  }
}

/** Visits all entries of a directory that a descriptor names but `.` and `..`; the name is a copy. 0 or minus an errno. */
export function readDirectoryNames(
  path: number,
  visit: (name: Uint8Array, type: number, inoLow: number, inoHigh: number) => void,
): number {
  const fd = reopen(path, O.RDONLY)
  if (fd < 0) return fd
  const buffer = Buffer.alloc(BUFFER_BYTES)
  let got = readDirectory(fd, buffer)
  for (; got > 0; got = readDirectory(fd, buffer)) {
    for (let at = 0; at < got; at += buffer.readUInt16LE(at + RECORD.length)) {
      const name = buffer.subarray(at + RECORD.name, buffer.indexOf(0, at + RECORD.name))
      if (isDots(name)) continue
      const [low, high] = [buffer.readUInt32LE(at + RECORD.ino), buffer.readUInt32LE(at + RECORD.ino + 4)]
      visit(Buffer.from(name), buffer[at + RECORD.type], low, high)
    }
  }
  closeFd(fd)
  return got
}

function isDots(name: Uint8Array): boolean {
  return name[0] === DOT && (name.length === 1 || (name.length === 2 && name[1] === DOT))
}
