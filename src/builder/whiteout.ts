import { FILE_TYPES, type Xattr } from './layer-tree.ts'

/** How deletions are marked: by names (`.wh.x`), by overlayfs's 0:0 devices and opaque attribute, or not at all. */
export type WhiteoutSpec = 'oci' | 'overlayfs' | 'none'

/** What a marker does to the lower layer: removes one name, empties the directory it lies in (`.wh..wh..opq`), or empties the directory that it is. */
export type Whiteout =
  | { readonly kind: 'remove'; readonly name: string }
  | { readonly kind: 'opaque-parent' }
  | { readonly kind: 'opaque-self' }

const OCI_PREFIX = '.wh.'
const OCI_OPAQUE = '.wh..wh..opq'
/** Attribute of an opaque directory, and its value. Source: Documentation/filesystems/overlayfs.rst of Linux. */
export const OVERLAY_OPAQUE = 'trusted.overlay.opaque'
const OPAQUE_VALUE = 'y'

/** What of an entry tells whether it is a marker. */
interface MaybeMarker {
  readonly mode: number
  readonly rdev: number
  readonly xattrs: () => readonly Xattr[]
}

/** The marker that an entry is, or undefined. Names are bytes: the original leaves markers of names that are not UTF-8 in the image, and what they delete with them. */
export function whiteoutOf(name: string, entry: MaybeMarker, spec: WhiteoutSpec): Whiteout | undefined {
  if (spec === 'oci') {
    if (!name.startsWith(OCI_PREFIX)) return undefined
    if (name === OCI_OPAQUE) return { kind: 'opaque-parent' }
    return { kind: 'remove', name: name.slice(OCI_PREFIX.length) }
  }
  if (spec === 'overlayfs') {
    const type = entry.mode & FILE_TYPES.mask
    if (type === FILE_TYPES.char && entry.rdev === 0) return { kind: 'remove', name }
    if (type === FILE_TYPES.directory && isOpaque(entry.xattrs())) return { kind: 'opaque-self' }
  }
  return undefined
}

function isOpaque(xattrs: readonly Xattr[]): boolean {
  return xattrs.some(
    ({ name, value }) =>
      Buffer.from(name).toString('latin1') === OVERLAY_OPAQUE && Buffer.from(value).toString('latin1') === OPAQUE_VALUE,
  )
}
