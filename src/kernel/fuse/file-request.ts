import { REQUEST } from './wire.ts'

const BODY = REQUEST.size

/** A number that does not fit: a file of more than 2^53 bytes, or a hostile length. Answered with EFBIG. */
export class TooLarge extends Error {
  override readonly name = 'TooLarge'
}

/** One whole request, in memory of its own. Offsets are those of file-wire.ts, from the start of the body. Throws RangeError for a body that is shorter than its kind needs. */
export class FileRequest {
  readonly bytes: Buffer

  constructor(bytes: Uint8Array) {
    this.bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  }

  get opcode(): number {
    return this.bytes.readUInt32LE(REQUEST.opcode)
  }
  get uniqueLow(): number {
    return this.bytes.readUInt32LE(REQUEST.unique)
  }
  get uniqueHigh(): number {
    return this.bytes.readUInt32LE(REQUEST.unique + 4)
  }
  get node(): number {
    return this.nodeAt(REQUEST.node - BODY)
  }
  get nodeTop(): number {
    return this.topAt(REQUEST.node - BODY)
  }
  get uid(): number {
    return this.bytes.readUInt32LE(REQUEST.uid)
  }
  get gid(): number {
    return this.bytes.readUInt32LE(REQUEST.gid)
  }

  word(at: number): number {
    return this.bytes.readUInt32LE(BODY + at)
  }
  /** A node id without its top byte. */
  nodeAt(at: number): number {
    return this.word(at) + (this.word(at + 4) & 0xff_ffff) * 2 ** 32
  }
  topAt(at: number): number {
    return this.word(at + 4) >>> 24
  }
  /** A size, offset or handle. Throws TooLarge above 2^53. */
  number(at: number): number {
    const value = this.word(at) + this.word(at + 4) * 2 ** 32
    if (!Number.isSafeInteger(value)) throw new TooLarge(`the kernel asks for ${value}`)
    return value
  }
  /** 64 bits, with a sign. */
  signed(at: number): bigint {
    return this.bytes.readBigInt64LE(BODY + at)
  }

  /** A name with its NUL, from this offset on: one component, neither `.` nor `..`; undefined when it is anything else. */
  name(at: number): Uint8Array | undefined {
    const text = this.text(at)
    const length = text.length - 1
    if (length < 1 || text.indexOf(0x2f) !== -1) return undefined
    const isDots = text[0] === 0x2e && (length === 1 || (length === 2 && text[1] === 0x2e))
    return isDots ? undefined : text
  }
  /** A text with its NUL, from this offset on. Throws RangeError when it has no end. */
  text(at: number): Uint8Array {
    const end = this.bytes.indexOf(0, BODY + at)
    if (end < BODY + at) throw new RangeError('a text without an end')
    return this.bytes.subarray(BODY + at, end + 1)
  }
  /** `count` bytes from this offset on. Throws RangeError when there are fewer. */
  data(at: number, count: number): Uint8Array {
    if (BODY + at + count > this.bytes.length) throw new RangeError(`${count} bytes of data announced, fewer are there`)
    return this.bytes.subarray(BODY + at, BODY + at + count)
  }
}
