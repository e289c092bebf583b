/**
 * The 512-byte header as a table, and its numbers. Source: docs/formats/tar.md, "Header".
 */
import { TarError } from './errors.ts'

export const BLOCK = 512

/** Field → [offset, length]. */
export const HEADER = {
  name: [0, 100],
  mode: [100, 8],
  uid: [108, 8],
  gid: [116, 8],
  size: [124, 12],
  mtime: [136, 12],
  checksum: [148, 8],
  type: [156, 1],
  link: [157, 100],
  magic: [257, 8],
  userName: [265, 32],
  groupName: [297, 32],
  devMajor: [329, 8],
  devMinor: [337, 8],
  prefix: [345, 155],
  /** Old GNU: four runs of (offset, length), a flag that more blocks follow, and the real size. */
  gnuSparse: [386, 4 * 24],
  gnuIsExtended: [482, 1],
  gnuRealSize: [483, 12],
} as const

export type HeaderField = keyof typeof HEADER

const SPACE = 32
const ZERO = 48
/** Every other byte of a word. */
const LOW_BYTES = 0x00ff_00ff

/** The bytes of a text field up to its NUL. A view. */
export function textField(header: Uint8Array, field: HeaderField): Uint8Array {
  const [at, length] = HEADER[field]
  let end = at
  while (end < at + length && header[end] !== 0) end++
  return header.subarray(at, end)
}

/** A numeric field of the header at `archiveOffset`: octal, or base-256 when the first byte's high bit is set. An empty one is 0. */
export function numberField(header: Uint8Array, field: HeaderField, archiveOffset: number): number {
  const [at, length] = HEADER[field]
  return parseNumber(header, at, length, field, archiveOffset)
}

/** See {@link numberField}; for fields outside the table (sparse runs). Throws 'BAD_HEADER' for anything but a safe integer. */
export function parseNumber(
  header: Uint8Array,
  at: number,
  length: number,
  field: string,
  archiveOffset: number,
): number {
  const first = header[at] // inside the block
  if (first >= 0x80) return parseBase256(header, at, length, field, archiveOffset)
  let index = at
  const end = at + length
  while (index < end && header[index] === SPACE) index++
  let value = 0
  for (; index < end; index++) {
    const digit = header[index] - ZERO
    if (digit < 0 || digit > 7) break
    value = value * 8 + digit
  }
  for (; index < end; index++) {
    const byte = header[index]
    if (byte === 0) break
    if (byte !== SPACE) throw new TarError('BAD_HEADER', archiveOffset, `its ${field} is not an octal number`)
  }
  return value
}

/** Two's complement, big-endian; the first byte's high bit only says that it is base-256, the next one is the sign. */
function parseBase256(header: Uint8Array, at: number, length: number, field: string, archiveOffset: number): number {
  const first = header[at]
  const isNegative = (first & 0x40) !== 0
  let value = isNegative ? (first & 0x7f) - 0x80 : first & 0x7f
  for (let index = at + 1; index < at + length; index++) {
    value = value * 256 + header[index]
    if (!Number.isSafeInteger(value))
      throw new TarError('BAD_HEADER', archiveOffset, `its ${field} does not fit 53 bits`)
  }
  return value
}

/** True when the stored checksum is the sum of the header's bytes (its own field as spaces), unsigned, or signed as old tars wrote it. */
export function checksumFits(header: Uint8Array): boolean {
  const [from, length] = HEADER.checksum
  let unsigned = SPACE * length + sumOfBytes(header)
  for (let index = from; index < from + length; index++) unsigned -= header[index]
  const stored = storedChecksum(header)
  return stored === unsigned || stored === unsigned - 256 * negativeBytes(header)
}

/** By words where they are aligned: this is where a reader of small files spends its time. */
function sumOfBytes(block: Uint8Array): number {
  if (block.byteOffset % 4 !== 0) return sumOfUnaligned(block)
  const words = new Uint32Array(block.buffer, block.byteOffset, BLOCK / 4)
  // Two sums each, of 16 bits: two bytes of 128 words come to 65,280 at most.
  let sums = 0
  for (let index = 0; index < BLOCK / 4; index++)
    sums = (sums + (words[index] & LOW_BYTES) + ((words[index] >>> 8) & LOW_BYTES)) | 0
  return (sums & 0xffff) + (sums >>> 16)
}

/** A header stands anywhere in a buffer that was filled behind a file's content. */
function sumOfUnaligned(block: Uint8Array): number {
  let sum = 0
  for (let index = 0; index < BLOCK; index++) sum += block[index]
  return sum
}

/** Octal digits between spaces, up to the first NUL; -1 when they are anything else: a wrong checksum, not a bad field. */
function storedChecksum(header: Uint8Array): number {
  const [from, length] = HEADER.checksum
  let index = from
  const end = from + length
  while (index < end && header[index] === SPACE) index++
  const first = index
  let value = 0
  for (; index < end; index++) {
    const digit = header[index] - ZERO
    if (digit < 0 || digit > 7) break
    value = value * 8 + digit
  }
  if (index === first) return -1
  while (index < end && header[index] === SPACE) index++
  return index === end || header[index] === 0 ? value : -1
}

/** Bytes that are negative as signed ones, outside the checksum itself. */
function negativeBytes(header: Uint8Array): number {
  const [from, length] = HEADER.checksum
  let count = 0
  for (let index = 0; index < BLOCK; index++)
    if (header[index] >= 128 && (index < from || index >= from + length)) count++
  return count
}

/** True for 512 zero bytes. */
export function isZeroBlock(block: Uint8Array): boolean {
  for (let index = 0; index < BLOCK; index++) if (block[index] !== 0) return false
  return true
}
