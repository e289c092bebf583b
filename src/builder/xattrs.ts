import { BuilderError } from './errors.ts'
import { shown, toKey } from './image-path.ts'
import type { Xattr } from './layer-tree.ts'
import type { OnLost } from './losses.ts'

/** What images can hold: EROFS keeps the prefix as a number. Source: docs/formats/rafs-v6.md, "Extended attributes". */
const PREFIXES = ['user.', 'trusted.', 'security.']
const WHOLE_NAMES: ReadonlySet<string> = new Set(['system.posix_acl_access', 'system.posix_acl_default'])
const MAX_NAME_BYTES = 255
const MAX_VALUE_BYTES = 65535
/** Of a name in a message. */
const MAX_SHOWN = 80
const NONE: readonly Xattr[] = []

/**
 * Attributes in the order of their names, so that equal sources give equal images. Those that an image cannot hold are left out, and `onLost` is told; without it they throw 'BAD_SOURCE'.
 */
export function sortedXattrs(xattrs: readonly Xattr[], pathShown: () => string, onLost?: OnLost): readonly Xattr[] {
  if (xattrs.length === 0) return NONE
  const kept = xattrs.filter((xattr) => {
    const why = problemOf(xattr)
    if (why === undefined) return true
    const what = `the extended attribute ${shown(toKey(xattr.name)).slice(0, MAX_SHOWN)} of ${pathShown()}`
    if (onLost === undefined)
      throw new BuilderError('BAD_SOURCE', `cannot keep ${what}: ${why}; remove it from the source`)
    onLost(`${what} (${why})`)
    return false
  })
  return kept.sort((a, b) => Buffer.compare(a.name, b.name))
}

function problemOf({ name, value }: Xattr): string | undefined {
  const key = toKey(name)
  if (!PREFIXES.some((prefix) => key.startsWith(prefix)) && !WHOLE_NAMES.has(key))
    return 'images hold user.*, trusted.*, security.* and POSIX ACLs'
  if (name.includes(0)) return 'its name has a NUL byte'
  if (name.length > MAX_NAME_BYTES) return `its name has ${name.length} bytes, ${MAX_NAME_BYTES} are the limit`
  return value.length > MAX_VALUE_BYTES
    ? `its value has ${value.length} bytes, ${MAX_VALUE_BYTES} are the limit`
    : undefined
}
