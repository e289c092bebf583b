import type { TarEntry, TarType, TarXattr } from './entry.ts'
import { BLOCK, HEADER, type HeaderField } from './header.ts'

/** What a written entry needs; the rest has a default. Names are bytes and are written as they are. */
export type TarHeader = Pick<TarEntry, 'path' | 'type'> &
  Partial<Omit<TarEntry, 'path' | 'type' | 'sparse' | 'archiveOffset'>> & {
    /** Names of the owners, of which 32 bytes are kept; readers fall back on the numbers. */
    readonly userName?: string
    readonly groupName?: string
  }

/** Takes the archive's bytes in order; the writer waits for it. The array may be reused after it has resolved. */
export type TarSink = (bytes: Uint8Array) => Promise<void> | void

const TYPE_FLAGS: Readonly<Record<TarType, number>> = {
  file: 0x30,
  hardlink: 0x31,
  symlink: 0x32,
  char: 0x33,
  block: 0x34,
  directory: 0x35,
  fifo: 0x36,
}
const NOTHING = new Uint8Array(0)
const ZEROS = new Uint8Array(2 * BLOCK)
const SLASH = 0x2f
const EQUALS = 0x3d

/** What an entry's PAX header says: `KEY=VALUE`. */
interface PaxRecord {
  readonly key: Uint8Array
  readonly value: Uint8Array
}

/**
 * Writes an archive: POSIX ustar headers, and a PAX header before an entry that does not fit one (long names, large numbers, times before 1970 or with nanoseconds, xattrs).
 * The same calls give the same bytes, those of the original's `unpack`.
 */
export class TarWriter {
  readonly #sink: TarSink

  constructor(sink: TarSink) {
    this.#sink = sink
  }

  /** Adds an entry; `content` must have exactly `header.size` bytes (RangeError otherwise, and the archive is unusable). */
  async add(header: TarHeader, content: AsyncIterable<Uint8Array> | Iterable<Uint8Array> = []): Promise<void> {
    const size = header.type === 'file' ? (header.size ?? 0) : 0
    await this.#sink(encodeHeaders(header, size))
    let written = 0
    for await (const bytes of content) {
      written += bytes.length
      if (written > size) break
      await this.#sink(bytes)
    }
    if (written !== size)
      throw new RangeError(
        `cannot write ${Buffer.from(header.path).toString()} to the tar: ${written} bytes of content, ${size} announced`,
      )
    if (size % BLOCK !== 0) await this.#sink(ZEROS.subarray(0, BLOCK - (size % BLOCK)))
  }

  /** Writes the two zero blocks that end an archive. */
  async finish(): Promise<void> {
    await this.#sink(ZEROS)
  }
}

function encodeHeaders(header: TarHeader, size: number): Uint8Array {
  const records: PaxRecord[] = []
  const block = new Uint8Array(BLOCK)
  const own = encodeEntry(header, size, block, records)
  if (records.length === 0) return own
  const body = encodeRecords(records)
  const extension = new Uint8Array(BLOCK)
  put(extension, 'name', extensionName(textOf(block, 'name')))
  octal(extension, 'mode', 0o644)
  octal(extension, 'uid', 0)
  octal(extension, 'gid', 0)
  octal(extension, 'size', body.length)
  octal(extension, 'mtime', 0)
  seal(extension, 0x78)
  return Buffer.concat([extension, body, ZEROS.subarray(0, (BLOCK - (body.length % BLOCK)) % BLOCK), own])
}

function encodeEntry(header: TarHeader, size: number, block: Uint8Array, records: PaxRecord[]): Uint8Array {
  const { mtimeSeconds = 0, mtimeNanoseconds = 0, link = NOTHING } = header
  text(block, 'name', header.path, records)
  text(block, 'link', link, records)
  octal(block, 'mode', header.mode ?? 0)
  number(block, 'uid', header.uid ?? 0, records)
  number(block, 'gid', header.gid ?? 0, records)
  number(block, 'size', size, records)
  if (mtimeSeconds < 0 || mtimeNanoseconds !== 0) {
    record(records, 'mtime', Buffer.from(formatTime(mtimeSeconds, mtimeNanoseconds)))
    octal(block, 'mtime', 0)
  } else number(block, 'mtime', mtimeSeconds, records)
  put(block, 'userName', cut(Buffer.from(header.userName ?? ''), HEADER.userName[1]))
  put(block, 'groupName', cut(Buffer.from(header.groupName ?? ''), HEADER.groupName[1]))
  octal(block, 'devMajor', header.devMajor ?? 0)
  octal(block, 'devMinor', header.devMinor ?? 0)
  for (const xattr of header.xattrs ?? []) records.push(xattrRecord(xattr))
  seal(block, TYPE_FLAGS[header.type])
  return block
}

/** A key ends at the first "=": a name that has one itself needs the form that encodes it. */
function xattrRecord({ name, value }: TarXattr): PaxRecord {
  if (!name.includes(EQUALS)) return { key: Buffer.concat([Buffer.from('SCHILY.xattr.'), name]), value }
  const encoded = Array.from(name, (byte) => `%${byte.toString(16).padStart(2, '0')}`).join('')
  return {
    key: Buffer.from(`LIBARCHIVE.xattr.${encoded}`),
    value: Buffer.from(Buffer.from(value.buffer, value.byteOffset, value.length).toString('base64')),
  }
}

/** A path or link: whole where it fits, else cut, and whole in a PAX record. */
function text(block: Uint8Array, field: 'name' | 'link', bytes: Uint8Array, records: PaxRecord[]): void {
  if (bytes.length > HEADER[field][1]) record(records, field === 'name' ? 'path' : 'linkpath', bytes)
  put(block, field, cut(bytes, HEADER[field][1]))
}

/** At most `length` bytes, and no part of a UTF-8 character at the end. */
function cut(bytes: Uint8Array, length: number): Uint8Array {
  if (bytes.length <= length) return bytes
  let end = length
  while (end > length - 3 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end--
  return bytes.subarray(0, ((bytes[end] ?? 0) & 0xc0) === 0x80 ? length : end)
}

/** `a/PaxHeaders.0/b` for `a/b`: what a reader that does not know PAX makes of the extension. */
function extensionName(name: Uint8Array): Uint8Array {
  const end = name.at(-1) === SLASH ? name.length - 1 : name.length
  const base = name.subarray(0, end).lastIndexOf(SLASH) + 1
  const parts = [name.subarray(0, base), Buffer.from('PaxHeaders.0/'), name.subarray(base, end)]
  return cut(Buffer.concat(parts), HEADER.name[1])
}

function textOf(block: Uint8Array, field: HeaderField): Uint8Array {
  const [at, length] = HEADER[field]
  const end = block.indexOf(0, at)
  return block.subarray(at, end < 0 ? at + length : Math.min(end, at + length))
}

function put(block: Uint8Array, field: HeaderField, bytes: Uint8Array): void {
  block.set(bytes, HEADER[field][0])
}

function octal(block: Uint8Array, field: HeaderField, value: number): void {
  const [at, length] = HEADER[field]
  block.set(
    Buffer.from(
      value
        .toString(8)
        .padStart(length - 1, '0')
        .slice(-(length - 1)),
    ),
    at,
  )
}

/** In octal where it fits, else in a PAX record (and 0 in the field). */
function number(block: Uint8Array, field: 'uid' | 'gid' | 'size' | 'mtime', value: number, records: PaxRecord[]): void {
  const fits = value < 8 ** (HEADER[field][1] - 1)
  octal(block, field, fits ? value : 0)
  if (!fits) record(records, field, Buffer.from(String(value)))
}

function formatTime(seconds: number, nanoseconds: number): string {
  const fraction = (n: number): string => String(n).padStart(9, '0').replace(/0+$/, '')
  if (nanoseconds === 0) return String(seconds)
  if (seconds >= 0) return `${seconds}.${fraction(nanoseconds)}`
  return `-${-seconds - 1}.${fraction(1e9 - nanoseconds)}`
}

function record(records: PaxRecord[], key: string, value: Uint8Array): void {
  records.push({ key: Buffer.from(key), value })
}

/** Records `LENGTH KEY=VALUE\n`, sorted by their keys; the length counts its own digits. */
function encodeRecords(records: PaxRecord[]): Uint8Array {
  const lines = records
    .sort((a, b) => Buffer.compare(a.key, b.key))
    .map(({ key, value }) => {
      const rest = Buffer.concat([Buffer.from(' '), key, Buffer.from('='), value, Buffer.from('\n')])
      let length = rest.length + String(rest.length).length
      while (length !== rest.length + String(length).length) length = rest.length + String(length).length
      return Buffer.concat([Buffer.from(String(length)), rest])
    })
  return Buffer.concat(lines)
}

function seal(block: Uint8Array, type: number): void {
  block[HEADER.type[0]] = type
  block.set(Buffer.from('ustar\x0000'), HEADER.magic[0])
  block.fill(32, HEADER.checksum[0], HEADER.checksum[0] + 8)
  let sum = 0
  for (const byte of block) sum += byte
  block.set(Buffer.from(`${sum.toString(8).padStart(6, '0')}\0 `), HEADER.checksum[0])
}
