import { type FileTree, newValues, type NodeId } from '../rafs/index.ts'
import { OVERLAY_OPAQUE, type WhiteoutSpec, whiteoutOf } from './whiteout.ts'

/** A tree with nothing in it, to lay the first layer over: that drops the markers which have nothing to delete. */
export function emptyRoot(files: FileTree, like: NodeId): NodeId {
  return files.addRoot(newValues(files.mode(like)))
}

/**
 * Lays `upper` over `lower`, which becomes the result; the upper is not to be used afterwards. In each directory the markers of the upper layer act first, on the lower's entries only; then
 * its other entries replace those of the same name. A directory over a directory takes the upper's attributes, unless the upper only implies it, and keeps the lower's children. The upper's root always wins, as a
 * directory does.
 */
export function overlay(files: FileTree, lower: NodeId, upper: NodeId, spec: WhiteoutSpec): void {
  files.copyAttributes(upper, lower)
  const open: Array<readonly [lower: NodeId, upper: NodeId]> = [[lower, upper]]
  for (let pair = open.pop(); pair !== undefined; pair = open.pop()) {
    const [merged, above] = pair
    for (const id of applyMarkers(files, merged, above, spec)) {
      const below = files.find(merged, files.text(id))
      if (!files.isDirectory(id)) files.move(id, merged)
      else if (below !== 0 && files.isDirectory(below)) {
        if (!files.isImplied(id)) files.copyAttributes(id, below)
        open.push([below, id])
      } else open.push([files.putDirectoryLike(merged, id), id])
    }
  }
}

/** Lets the markers of a directory act; gives the entries that are none. */
function applyMarkers(files: FileTree, merged: NodeId, above: NodeId, spec: WhiteoutSpec): NodeId[] {
  const entries: NodeId[] = []
  for (const id of files.children(above)) {
    const name = files.text(id)
    const whiteout = whiteoutOf(
      name,
      { mode: files.mode(id), rdev: files.rdev(id), xattrs: () => files.xattrs(id) },
      spec,
    )
    switch (whiteout?.kind) {
      case undefined:
        entries.push(id)
        break
      case 'remove':
        files.remove(files.find(merged, whiteout.name))
        break
      case 'opaque-parent':
        files.removeChildren(merged)
        break
      case 'opaque-self':
        files.removeChildren(files.find(merged, name))
        files.setXattrs(
          id,
          files.xattrs(id).filter((xattr) => Buffer.from(xattr.name).toString('latin1') !== OVERLAY_OPAQUE),
        )
        entries.push(id)
        break
      default:
        whiteout satisfies never
    }
  }
  return entries
}
