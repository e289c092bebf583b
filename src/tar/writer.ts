import type { TarEntry, TarType } from './entry.ts'
import { BLOCK, HEADER, type HeaderField } from './header.ts'

/** What a written entry needs; the rest has a default. Names are bytes and are written as they are. */
export type TarHeader = Pick<TarEntry, 'path' | 'type'> &
  Partial<Omit<TarEntry, 'path' | 'type' | 'sparse' | 'archiveOffset'>>

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

/**
 * Writes an archive: POSIX ustar headers, and a PAX header before an entry that does not fit one (long or split names, large numbers, times before 1970 or with nanoseconds, xattrs).
 * The same calls give the same bytes.
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
  const records: Uint8Array[] = []
  const block = new Uint8Array(BLOCK)
  const own = encodeEntry(header, size, block, records)
  if (records.length === 0) return own
  const body = Buffer.concat(records)
  const extension = new Uint8Array(BLOCK)
  put(extension, 'name', Buffer.from('././@PaxHeader'))
  octal(extension, 'mode', 0o644)
  octal(extension, 'uid', 0)
  octal(extension, 'gid', 0)
  octal(extension, 'size', body.length)
  octal(extension, 'mtime', 0)
  seal(extension, 0x78)
  return Buffer.concat([extension, body, ZEROS.subarray(0, (BLOCK - (body.length % BLOCK)) % BLOCK), own])
}

function encodeEntry(header: TarHeader, size: number, block: Uint8Array, records: Uint8Array[]): Uint8Array {
  const { mtimeSeconds = 0, mtimeNanoseconds = 0, link = NOTHING } = header
  putPath(block, header.path, records)
  if (link.length > HEADER.link[1]) record(records, 'linkpath', link)
  put(block, 'link', link.subarray(0, HEADER.link[1]))
  octal(block, 'mode', header.mode ?? 0)
  number(block, 'uid', header.uid ?? 0, records)
  number(block, 'gid', header.gid ?? 0, records)
  number(block, 'size', size, records)
  if (mtimeSeconds < 0 || mtimeNanoseconds !== 0) {
    record(records, 'mtime', Buffer.from(formatTime(mtimeSeconds, mtimeNanoseconds)))
    octal(block, 'mtime', 0)
  } else number(block, 'mtime', mtimeSeconds, records)
  octal(block, 'devMajor', header.devMajor ?? 0)
  octal(block, 'devMinor', header.devMinor ?? 0)
  for (const { name, value } of header.xattrs ?? [])
    record(records, Buffer.concat([Buffer.from('SCHILY.xattr.'), name]), value)
  seal(block, TYPE_FLAGS[header.type])
  return block
}

function putPath(block: Uint8Array, path: Uint8Array, records: Uint8Array[]): void {
  if (path.length <= HEADER.name[1]) return put(block, 'name', path)
  // The prefix field takes what stands before a slash, when both parts fit.
  for (let slash = Math.min(path.length - 2, HEADER.prefix[1]); slash > 0; slash--) {
    if (path.length - slash - 1 > HEADER.name[1]) break
    if (path[slash] !== 0x2f) continue
    put(block, 'name', path.subarray(slash + 1))
    return put(block, 'prefix', path.subarray(0, slash))
  }
  record(records, 'path', path)
  put(block, 'name', path.subarray(0, HEADER.name[1]))
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
function number(
  block: Uint8Array,
  field: 'uid' | 'gid' | 'size' | 'mtime',
  value: number,
  records: Uint8Array[],
): void {
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

/** `LENGTH KEY=VALUE\n`, the length counting its own digits. */
function record(records: Uint8Array[], key: string | Uint8Array, value: Uint8Array): void {
  const rest = Buffer.concat([Buffer.from(' '), Buffer.from(key), Buffer.from('='), value, Buffer.from('\n')])
  let length = rest.length + String(rest.length).length
  while (length !== rest.length + String(length).length) length = rest.length + String(length).length
  records.push(Buffer.concat([Buffer.from(String(length)), rest]))
}

function seal(block: Uint8Array, type: number): void {
  block[HEADER.type[0]] = type
  block.set(Buffer.from('ustar\x0000'), HEADER.magic[0])
  block.fill(32, HEADER.checksum[0], HEADER.checksum[0] + 8)
  let sum = 0
  for (const byte of block) sum += byte
  block.set(Buffer.from(`${sum.toString(8).padStart(6, '0')}\0 `), HEADER.checksum[0])
}
