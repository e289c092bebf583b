import { READ_IN, REQUEST, XATTR_IN } from './wire.ts'

const BODY = REQUEST.size

/**
 * One request in a thread's request buffer; the same object for all requests of the thread. Everything it gives is valid until the handler returns.
 * 64-bit numbers that are only echoed (`unique`) stay two words; a node id is one number, exact below 2^53, and its top byte.
 */
export class FuseRequest {
  readonly bytes: Buffer
  readonly #words: Uint32Array

  constructor(buffer: ArrayBuffer) {
    this.bytes = Buffer.from(buffer)
    this.#words = new Uint32Array(buffer)
  }

  get opcode(): number {
    return this.#words[REQUEST.opcode >> 2]
  }
  get uniqueLow(): number {
    return this.#words[REQUEST.unique >> 2]
  }
  get uniqueHigh(): number {
    return this.#words[(REQUEST.unique >> 2) + 1]
  }
  /** The low 56 bits of the node id. Servers with many file systems in one session number those in the top byte: {@link nodeTop}. */
  get node(): number {
    return this.#words[REQUEST.node >> 2] + (this.#words[(REQUEST.node >> 2) + 1] & 0xff_ffff) * 2 ** 32
  }
  get nodeTop(): number {
    return this.#words[(REQUEST.node >> 2) + 1] >>> 24
  }
  get uid(): number {
    return this.#words[REQUEST.uid >> 2]
  }
  get gid(): number {
    return this.#words[REQUEST.gid >> 2]
  }
  /** Of the thread that asks; 0 for one of a namespace that we cannot see. */
  get pid(): number {
    return this.#words[REQUEST.pid >> 2]
  }

  /** Bytes of the whole request. */
  get length(): number {
    return this.#words[0]
  }
  /** Bytes of the body. */
  get bodyLength(): number {
    return this.#words[0] - BODY
  }
  /** A u32 of the body. */
  word(at: number): number {
    return this.#words[(BODY + at) >> 2]
  }

  /** LOOKUP: the name. */
  name(): Uint8Array {
    return this.#text(BODY)
  }
  /** GETXATTR: the attribute's name. */
  xattrName(): Uint8Array {
    return this.#text(BODY + XATTR_IN.size)
  }
  /** GETXATTR, LISTXATTR: room that the caller has; 0 asks for the size only. */
  get xattrCount(): number {
    return this.word(XATTR_IN.count)
  }
  /** READ, READDIR, READDIRPLUS. Above 2^53 it is not exact, and beyond every file. */
  get offset(): number {
    return this.word(READ_IN.offset) + this.word(READ_IN.offset + 4) * 2 ** 32
  }
  get count(): number {
    return this.word(READ_IN.count)
  }

  #text(from: number): Uint8Array {
    let end = this.#words[0]
    while (end > from && this.bytes[end - 1] === 0) end--
    return this.bytes.subarray(from, end)
  }
}
