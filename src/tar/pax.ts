/**
 * PAX extended headers: records `LENGTH KEY=VALUE\n`, the length in decimal and counting itself. Values are bytes, and may hold newlines.
 * Source: docs/formats/tar.md, "PAX".
 */
import type { TarXattr } from './entry.ts'
import { TarError } from './errors.ts'

/** What the records of one or more headers say; later ones win, an empty value takes an earlier one back. */
export interface PaxRecords {
  readonly values: Map<string, Uint8Array>
  /** `SCHILY.xattr.*` and `LIBARCHIVE.xattr.*`, in order. */
  readonly xattrs: Map<string, TarXattr>
  /** GNU sparse 0.0: pairs of offset and number of bytes, in order. */
  readonly sparsePairs: number[]
}

export function emptyPax(): PaxRecords {
  return { values: new Map(), xattrs: new Map(), sparsePairs: [] }
}

const NEWLINE = 10
const SPACE = 32
const EQUALS = 61
const SCHILY = 'SCHILY.xattr.'
const LIBARCHIVE = 'LIBARCHIVE.xattr.'

/** Adds the records of a header's body. Throws TarError 'BAD_EXTENSION' naming what is wrong. */
export function parsePax(body: Uint8Array, into: PaxRecords, archiveOffset: number): void {
  let at = 0
  while (at < body.length) {
    // Some writers pad the body with NULs instead of ending it.
    if (body[at] === 0) return
    const { start, end } = recordBounds(body, at, archiveOffset)
    const equals = body.indexOf(EQUALS, start)
    if (equals < 0 || equals >= end) throw new TarError('BAD_EXTENSION', archiveOffset, 'a PAX record has no "="')
    addRecord(into, body.subarray(start, equals), body.subarray(equals + 1, end), archiveOffset)
    at = end + 1
  }
}

/** Start of the key and end of the value of the record at `at`. */
function recordBounds(body: Uint8Array, at: number, archiveOffset: number): { start: number; end: number } {
  let length = 0
  let index = at
  for (; index < body.length && body[index] !== SPACE; index++) {
    const digit = body[index] - 48
    if (digit < 0 || digit > 9 || index - at > 9)
      throw new TarError('BAD_EXTENSION', archiveOffset, 'a PAX record does not start with its length')
    length = length * 10 + digit
  }
  const end = at + length - 1
  if (index === at || end <= index || end >= body.length || body[end] !== NEWLINE) {
    throw new TarError('BAD_EXTENSION', archiveOffset, `a PAX record of ${length} bytes does not end with a newline`)
  }
  return { start: index + 1, end }
}

function addRecord(into: PaxRecords, keyBytes: Uint8Array, value: Uint8Array, archiveOffset: number): void {
  const key = Buffer.from(keyBytes).toString('latin1')
  if (key.startsWith(SCHILY)) {
    into.xattrs.set(key.slice(SCHILY.length), { name: keyBytes.slice(SCHILY.length), value: value.slice() })
  } else if (key.startsWith(LIBARCHIVE)) {
    const name = decodePercent(key.slice(LIBARCHIVE.length))
    const decoded = new Uint8Array(Buffer.from(Buffer.from(value).toString('latin1'), 'base64'))
    // The same attribute as SCHILY's, which is exact; written second by archivers that write both.
    if (!into.xattrs.has(name.toString('latin1')))
      into.xattrs.set(name.toString('latin1'), { name: new Uint8Array(name), value: decoded })
  } else if (key === 'GNU.sparse.offset' || key === 'GNU.sparse.numbytes') {
    into.sparsePairs.push(paxNumber(value, key, archiveOffset))
  } else if (value.length === 0) into.values.delete(key)
  else into.values.set(key, value.slice())
}

function decodePercent(text: string): Buffer {
  return Buffer.from(
    text.replace(/%([0-9A-Fa-f]{2})/g, (_all, hex: string) => String.fromCharCode(Number.parseInt(hex, 16))),
    'latin1',
  )
}

/** A decimal record value as a safe integer. */
export function paxNumber(value: Uint8Array, key: string, archiveOffset: number): number {
  const text = Buffer.from(value).toString('latin1')
  const number = Number(text)
  if (!/^-?\d+$/.test(text) || !Number.isSafeInteger(number))
    throw new TarError('BAD_EXTENSION', archiveOffset, `PAX ${key} is "${text.slice(0, 40)}", not a number`)
  return number
}

/** A time like `-1.5`: whole seconds below it, and the nanoseconds from there. Digits beyond nanoseconds are cut towards the past. */
export function paxTime(value: Uint8Array, archiveOffset: number): { seconds: number; nanoseconds: number } {
  const text = Buffer.from(value).toString('latin1')
  const match = /^(-?)(\d+)(?:\.(\d*))?$/.exec(text)
  if (match === null)
    throw new TarError('BAD_EXTENSION', archiveOffset, `PAX mtime is "${text.slice(0, 40)}", not a time`)
  const whole = Number(match[2])
  const fraction = Number((match[3] ?? '').slice(0, 9).padEnd(9, '0'))
  if (!Number.isSafeInteger(whole))
    throw new TarError('BAD_EXTENSION', archiveOffset, `PAX mtime ${text.slice(0, 40)} does not fit 53 bits`)
  if (match[1] === '') return { seconds: whole, nanoseconds: fraction }
  return fraction === 0 ? { seconds: -whole, nanoseconds: 0 } : { seconds: -whole - 1, nanoseconds: 1e9 - fraction }
}
