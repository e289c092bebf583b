import { FILE_TYPES, type LayerNode } from './layer-tree.ts'

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

/** The marker that an entry is, or undefined. Names are bytes: the original leaves markers of names that are not UTF-8 in the image, and what they delete with them. */
export function whiteoutOf(name: string, node: LayerNode, spec: WhiteoutSpec): Whiteout | undefined {
  if (spec === 'oci') {
    if (!name.startsWith(OCI_PREFIX)) return undefined
    if (name === OCI_OPAQUE) return { kind: 'opaque-parent' }
    return { kind: 'remove', name: name.slice(OCI_PREFIX.length) }
  }
  if (spec === 'overlayfs') {
    if ((node.mode & FILE_TYPES.mask) === FILE_TYPES.char && node.rdev === 0) return { kind: 'remove', name }
    if (node.children !== undefined && isOpaque(node)) return { kind: 'opaque-self' }
  }
  return undefined
}

function isOpaque(node: LayerNode): boolean {
  return node.xattrs.some(
    ({ name, value }) =>
      Buffer.from(name).toString('latin1') === OVERLAY_OPAQUE && Buffer.from(value).toString('latin1') === OPAQUE_VALUE,
  )
}
