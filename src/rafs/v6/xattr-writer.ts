import { RafsError } from '../errors.ts'
import { compareNames } from '../names.ts'
import type { RafsXattr } from '../tree.ts'
import { XATTR_ENTRY, XATTR_HEADER_SIZE, XATTR_PREFIXES } from './layout.ts'

const PREFIXES = XATTR_PREFIXES.map(([index, prefix]) => [index, new Uint8Array(Buffer.from(prefix))] as const)

/** The xattr area of an inode, entries sorted by name; empty without xattrs. Throws RafsError 'UNSUPPORTED' for a name whose prefix the format has not, 'TOO_LARGE'. */
export function encodeXattrs(xattrs: readonly RafsXattr[], path: () => string): Uint8Array {
  if (xattrs.length === 0) return NOTHING
  const sorted = xattrs.length === 1 ? xattrs : [...xattrs].sort((a, b) => compareNames(a.name, b.name))
  let size = XATTR_HEADER_SIZE
  const entries = sorted.map(({ name, value }) => {
    const [index, prefix] = PREFIXES.find(([, candidate]) => startsWith(name, candidate)) ?? [0, NOTHING]
    const shown = JSON.stringify(Buffer.from(name).toString('utf8'))
    if (index === 0)
      throw new RafsError(
        'UNSUPPORTED',
        `${path()}: RAFS cannot hold xattr ${shown}: only user., trusted., security. and POSIX ACLs`,
      )
    const suffix = name.subarray(prefix.length)
    if (name.length > 255 || value.length > 0xffff)
      throw new RafsError(
        'TOO_LARGE',
        `${path()}: xattr ${shown} with ${value.length} bytes is larger than RAFS v6 can hold (65535)`,
      )
    const at = size
    size += Math.ceil((XATTR_ENTRY.size + suffix.length + value.length) / 4) * 4
    return { at, index, suffix, value }
  })
  if ((size - XATTR_HEADER_SIZE) / 4 + 1 > 0xffff)
    throw new RafsError('TOO_LARGE', `${path()}: its xattrs take ${size} bytes, more than RAFS v6 can hold`)
  const area = new Uint8Array(size)
  for (const { at, index, suffix, value } of entries) {
    area[at + XATTR_ENTRY.nameLength] = suffix.length
    area[at + XATTR_ENTRY.nameIndex] = index
    area[at + XATTR_ENTRY.valueSize] = value.length & 0xff
    area[at + XATTR_ENTRY.valueSize + 1] = value.length >> 8
    area.set(suffix, at + XATTR_ENTRY.size)
    area.set(value, at + XATTR_ENTRY.size + suffix.length)
  }
  return area
}

const NOTHING = new Uint8Array(0)

function startsWith(name: Uint8Array, prefix: Uint8Array): boolean {
  return name.length >= prefix.length && prefix.every((byte, index) => name[index] === byte)
}
