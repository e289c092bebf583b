import { BuilderError } from './errors.ts'
import { shown, toKey } from './image-path.ts'
import type { Xattr } from './layer-tree.ts'

/** What images can hold: EROFS keeps the prefix as a number. Source: docs/formats/rafs-v6.md, "Extended attributes". */
const PREFIXES = ['user.', 'trusted.', 'security.']
const WHOLE_NAMES: ReadonlySet<string> = new Set(['system.posix_acl_access', 'system.posix_acl_default'])
const MAX_NAME_BYTES = 255
const MAX_VALUE_BYTES = 65535
const NONE: readonly Xattr[] = []

/**
 * Attributes in the order of their names, so that equal sources give equal images. Throws 'BAD_SOURCE' for one that an image cannot hold: leaving it out
 * would change the file.
 */
export function sortedXattrs(xattrs: readonly Xattr[], pathShown: () => string): readonly Xattr[] {
  if (xattrs.length === 0) return NONE
  for (const { name, value } of xattrs) {
    const key = toKey(name)
    const refuse = (why: string): BuilderError =>
      new BuilderError('BAD_SOURCE', `cannot keep the extended attribute ${shown(key)} of ${pathShown()}: ${why}`)
    if (!PREFIXES.some((prefix) => key.startsWith(prefix)) && !WHOLE_NAMES.has(key))
      throw refuse('images hold user.*, trusted.*, security.* and POSIX ACLs; remove it from the source')
    if (name.length > MAX_NAME_BYTES) throw refuse(`its name has ${name.length} bytes, ${MAX_NAME_BYTES} are the limit`)
    if (value.length > MAX_VALUE_BYTES)
      throw refuse(`its value has ${value.length} bytes, ${MAX_VALUE_BYTES} are the limit`)
  }
  return [...xattrs].sort((a, b) => Buffer.compare(a.name, b.name))
}
