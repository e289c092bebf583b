/** What a header, and the records that extend it, say of an entry. Source: docs/formats/tar.md, "Header" and "PAX". */
import type { TarEntry, TarType, TarXattr } from './entry.ts'
import { TarError } from './errors.ts'
import { numberField, textField } from './header.ts'
import { type PaxRecords, paxNumber, paxTime } from './pax.ts'

const NO_XATTRS: readonly TarXattr[] = []
const NOTHING = new Uint8Array(0)

/** Type of old GNU tar's sparse files. */
export const GNU_SPARSE = 0x53

/** Size field of an entry, or the record that replaces it. */
export function entrySize(header: Uint8Array, pax: PaxRecords, archiveOffset: number): number {
  const field = numberField(header, 'size', archiveOffset)
  const record = pax.values.get('size')
  const size = record === undefined ? field : paxNumber(record, 'size', archiveOffset)
  if (size < 0) throw new TarError('BAD_HEADER', archiveOffset, `its size is ${size}`)
  return size
}

/** Links, directories and devices store nothing, whatever their size field says: that is how every reader since v7 has it. */
export function storedSize(header: Uint8Array, size: number): number {
  return typeOf(header) === 'file' || isUnknown(header) ? size : 0
}

/** A header that only extends others. */
export function isExtension(header: Uint8Array): boolean {
  const type = header[156]
  return type === 0x78 || type === 0x67 || type === 0x4c || type === 0x4b || type === 0x58
}

export function maySparse(header: Uint8Array, pax: PaxRecords): boolean {
  return (
    header[156] === GNU_SPARSE ||
    (pax.values.size > 0 && (pax.values.has('GNU.sparse.realsize') || pax.values.has('GNU.sparse.size')))
  )
}

export function entryOf(
  header: Uint8Array,
  pax: PaxRecords,
  what: Pick<TarEntry, 'path' | 'type' | 'link' | 'size' | 'sparse'>,
  archiveOffset: number,
): TarEntry {
  const mtime = pax.values.get('mtime')
  const time = mtime === undefined ? undefined : paxTime(mtime, archiveOffset)
  const isDevice = header[156] === 0x33 || header[156] === 0x34
  return {
    path: what.path,
    type: what.type,
    link: what.link,
    mode: numberField(header, 'mode', archiveOffset) & 0o7777,
    uid: ownerOf(header, pax, 'uid', archiveOffset),
    gid: ownerOf(header, pax, 'gid', archiveOffset),
    size: what.size,
    mtimeSeconds: time?.seconds ?? numberField(header, 'mtime', archiveOffset),
    mtimeNanoseconds: time?.nanoseconds ?? 0,
    devMajor: isDevice ? device(header, 'devMajor', archiveOffset) : 0,
    devMinor: isDevice ? device(header, 'devMinor', archiveOffset) : 0,
    xattrs: pax.xattrs.size === 0 ? NO_XATTRS : [...pax.xattrs.values()],
    sparse: what.sparse,
    archiveOffset,
  }
}

function ownerOf(header: Uint8Array, pax: PaxRecords, key: 'uid' | 'gid', archiveOffset: number): number {
  const record = pax.values.get(key)
  const value = record === undefined ? numberField(header, key, archiveOffset) : paxNumber(record, key, archiveOffset)
  // Writers that stored 32-bit owners as signed numbers meant these.
  const owner = value < 0 && value >= -0x8000_0000 ? value + 0x1_0000_0000 : value
  if (owner < 0 || owner > 0xffff_ffff)
    throw new TarError('BAD_HEADER', archiveOffset, `its ${key} ${owner} does not fit 32 bits`)
  return owner
}

function device(header: Uint8Array, field: 'devMajor' | 'devMinor', archiveOffset: number): number {
  const value = numberField(header, field, archiveOffset)
  if (value < 0 || value > 0xffff_ffff) throw new TarError('BAD_HEADER', archiveOffset, `its ${field} is ${value}`)
  return value
}

export function typeOf(header: Uint8Array): TarType {
  switch (header[156]) {
    case 0x31:
      return 'hardlink'
    case 0x32:
      return 'symlink'
    case 0x33:
      return 'char'
    case 0x34:
      return 'block'
    case 0x35:
    case 0x44: // GNU incremental dump: a directory with a listing as its content
      return 'directory'
    case 0x36:
      return 'fifo'
    default:
      return 'file'
  }
}

/** Types whose content is stored though they are no files: GNU's dump directory. */
function isUnknown(header: Uint8Array): boolean {
  return header[156] === 0x44
}

/** Name, with the ustar prefix before it when the magic is POSIX's (GNU tar keeps other things there). */
export function shortPath(header: Uint8Array): Uint8Array {
  const name = textField(header, 'name')
  const isPosix = header[257] === 0x75 && header[258] === 0x73 && header[262] === 0 && header[263] === 0x30
  const prefix = isPosix ? textField(header, 'prefix') : NOTHING
  if (prefix.length === 0) return name.slice()
  const path = new Uint8Array(prefix.length + 1 + name.length)
  path.set(prefix)
  path[prefix.length] = 0x2f
  path.set(name, prefix.length + 1)
  return path
}
