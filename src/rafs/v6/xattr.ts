import type { ByteReader } from '../byte-reader.ts'
import { RafsError } from '../errors.ts'
import type { InodeV6 } from './inode.ts'
import { XATTR_ENTRY, XATTR_HEADER_SIZE, XATTR_PREFIXES } from './layout.ts'

const PREFIXES = new Map(XATTR_PREFIXES.map(([index, prefix]) => [index, new Uint8Array(Buffer.from(prefix))]))

/** All extended attributes of an inode: full names, values as views. Throws 'BAD_XATTR'. */
export function readXattrs(from: ByteReader, inode: InodeV6): Array<{ name: Uint8Array; value: Uint8Array }> {
  const found: Array<{ name: Uint8Array; value: Uint8Array }> = []
  const end = inode.xattrAt + inode.xattrSize
  if (inode.xattrSize === 0) return found
  const bad = (why: string): RafsError =>
    new RafsError('BAD_XATTR', `inode ${inode.nid}: ${why}; the bootstrap is damaged or crafted`)
  if (from.u8(inode.xattrAt + 4) !== 0) throw bad('it shares xattrs, which RAFS does not')
  for (let at = inode.xattrAt + XATTR_HEADER_SIZE; at + XATTR_ENTRY.size <= end; ) {
    const nameLength = from.u8(at + XATTR_ENTRY.nameLength)
    const valueSize = from.u16(at + XATTR_ENTRY.valueSize)
    const prefix = PREFIXES.get(from.u8(at + XATTR_ENTRY.nameIndex))
    const nameAt = at + XATTR_ENTRY.size
    if (prefix === undefined) throw bad(`an xattr has name index ${from.u8(at + XATTR_ENTRY.nameIndex)}`)
    if (nameAt + nameLength + valueSize > end) throw bad('an xattr reaches beyond the inode')
    const name = new Uint8Array(prefix.length + nameLength)
    name.set(prefix)
    name.set(from.view(nameAt, nameLength), prefix.length)
    if (name.includes(0) || name.length > 255) throw bad('an xattr has a name that Linux does not take')
    found.push({ name, value: from.view(nameAt + nameLength, valueSize) })
    at = nameAt + Math.ceil((nameLength + valueSize) / 4) * 4
  }
  return found
}
