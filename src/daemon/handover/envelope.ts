/** How the original stores state: envelopes with a checksum, and in them fields one after another, little-endian. Source: docs/formats/daemon-state.md. */
import { DaemonError } from '../errors.ts'
import { crc64 } from './crc64.ts'

/** magic 0 (u64), data version 8 (u16), body, checksum of all before it (u64). Section "Envelope". */
const ENVELOPE = { magic: 0, version: 8, body: 10, checksum: 8 } as const
const DATA_VERSION = 1
const MAGIC = process.arch === 'arm64' ? 0x0710_1984_aaaa_0001n : 0x0710_1984_8664_0001n

/** The original refuses longer texts. */
export const MAX_TEXT_BYTES = 16_384

/** Puts a body into its envelope. */
export function seal(body: Uint8Array): Buffer {
  const sealed = Buffer.alloc(ENVELOPE.body + body.length + ENVELOPE.checksum)
  sealed.writeBigUInt64LE(MAGIC, ENVELOPE.magic)
  sealed.writeUInt16LE(DATA_VERSION, ENVELOPE.version)
  sealed.set(body, ENVELOPE.body)
  const end = sealed.length - ENVELOPE.checksum
  sealed.writeBigUInt64LE(crc64(sealed.subarray(0, end)), end)
  return sealed
}

/** The body of an envelope; `what` names it in messages. Throws DaemonError 'HANDOVER'. */
export function unseal(sealed: Uint8Array, what: string): FieldReader {
  const bytes = Buffer.from(sealed.buffer, sealed.byteOffset, sealed.byteLength)
  const end = bytes.length - ENVELOPE.checksum
  if (end < ENVELOPE.body) throw damaged(what, `it has only ${bytes.length} bytes`, 'InvalidSnapshotSize')
  const checksum = crc64(bytes.subarray(0, end))
  if (bytes.readBigUInt64LE(end) !== checksum)
    throw damaged(what, 'its checksum is wrong: it was cut or changed on the way', `Crc64(${checksum})`)
  const magic = bytes.readBigUInt64LE(ENVELOPE.magic)
  if (magic !== MAGIC)
    throw damaged(
      what,
      `it starts with 0x${magic.toString(16)}, another machine's or version's`,
      `InvalidMagic(${magic})`,
    )
  const version = bytes.readUInt16LE(ENVELOPE.version)
  if (version !== DATA_VERSION)
    throw damaged(
      what,
      `its version is ${version}, and only ${DATA_VERSION} is known`,
      `InvalidDataVersion(${version})`,
    )
  return new FieldReader(bytes.subarray(ENVELOPE.body, end), what)
}

/** 'HANDOVER': the state of another daemon cannot be used. `reason` is the original's word for it. */
export function damaged(what: string, found: string, reason = 'Versionize'): DaemonError {
  return new DaemonError('HANDOVER', `cannot use ${what} of another daemon: ${found}`, {
    wire: `Deserialize(Custom { kind: Other, error: "Failed to load snapshot: ${reason}" })`,
  })
}

/** Collects fields. */
export class FieldWriter {
  readonly #parts: Buffer[] = []

  get bytes(): Buffer {
    return Buffer.concat(this.#parts)
  }

  u8(value: number): this {
    return this.#add(Buffer.from([value]))
  }
  flag(value: boolean): this {
    return this.u8(value ? 1 : 0)
  }
  u32(value: number): this {
    const field = Buffer.alloc(4)
    field.writeUInt32LE(value)
    return this.#add(field)
  }
  u64(value: bigint | number): this {
    const field = Buffer.alloc(8)
    field.writeBigUInt64LE(BigInt(value))
    return this.#add(field)
  }
  /** Length and bytes. */
  data(value: Uint8Array): this {
    return this.u64(value.length).#add(Buffer.from(value))
  }
  text(value: string): this {
    return this.data(Buffer.from(value))
  }
  list<T>(values: readonly T[], write: (to: FieldWriter, value: T) => void): this {
    this.u64(values.length)
    for (const value of values) write(this, value)
    return this
  }

  #add(part: Buffer): this {
    this.#parts.push(part)
    return this
  }
}

/** Takes fields out, never beyond the end. All methods throw DaemonError 'HANDOVER'. */
export class FieldReader {
  readonly #bytes: Buffer
  readonly #what: string
  #at = 0

  constructor(bytes: Buffer, what: string) {
    this.#bytes = bytes
    this.#what = what
  }

  get left(): number {
    return this.#bytes.length - this.#at
  }

  u8(): number {
    return this.#take(1).readUInt8()
  }
  flag(): boolean {
    const value = this.u8()
    if (value > 1) throw damaged(this.#what, `a yes-or-no field is ${value}`)
    return value === 1
  }
  u32(): number {
    return this.#take(4).readUInt32LE()
  }
  u64(): bigint {
    return this.#take(8).readBigUInt64LE()
  }
  /** A u64 that must be exact as a number. */
  number(): number {
    const value = this.u64()
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw damaged(this.#what, `a number in it is ${value}`)
    return Number(value)
  }
  data(): Buffer {
    return this.#take(this.number())
  }
  text(maxBytes: number): string {
    const length = this.number()
    if (length > maxBytes) throw damaged(this.#what, `a text in it has ${length} bytes, more than ${maxBytes}`)
    try {
      return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(this.#take(length))
    } catch (error) {
      if (error instanceof DaemonError) throw error
      throw damaged(this.#what, 'a text in it is not UTF-8')
    }
  }
  /** `itemBytes`: the least that an item takes, so that a wrong count cannot make us allocate. */
  list<T>(itemBytes: number, read: (from: FieldReader) => T): T[] {
    const count = this.number()
    if (count * itemBytes > this.left) throw damaged(this.#what, `a list in it has ${count} items, more than fit`)
    return Array.from({ length: count }, () => read(this))
  }

  #take(length: number): Buffer {
    if (length > this.left) throw damaged(this.#what, `it ends ${length - this.left} bytes too soon`)
    const taken = this.#bytes.subarray(this.#at, this.#at + length)
    this.#at += length
    return taken
  }
}
