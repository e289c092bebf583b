import { type LayerNode, newNode } from './layer-tree.ts'
import { OVERLAY_OPAQUE, type WhiteoutSpec, whiteoutOf } from './whiteout.ts'

/** A tree with nothing in it, to lay the first layer over: that drops the markers which have nothing to delete. */
export function emptyRoot(like: LayerNode): LayerNode {
  return newNode(like.mode)
}

/**
 * Lays `upper` over `lower` and gives the result, which is made of the nodes of both: neither may be used on its own afterwards.
 * In each directory the markers of the upper layer act first, on the lower's entries only; then its other entries replace those of the same name. A
 * directory over a directory takes the upper's attributes and keeps the lower's children. The upper's root always wins, as a directory does.
 */
export function overlay(lower: LayerNode, upper: LayerNode, spec: WhiteoutSpec): LayerNode {
  const root = laid(lower, upper)
  const open: Array<readonly [LayerNode, LayerNode]> = [[root, upper]]
  for (let pair = open.pop(); pair !== undefined; pair = open.pop()) {
    const [merged, above] = pair
    const children = merged.children ?? new Map<string, LayerNode>()
    for (const [name, node] of applyMarkers(children, above, spec)) {
      const below = children.get(name)
      if (node.children === undefined) {
        children.set(name, node)
        continue
      }
      const directory = laid(below?.children === undefined ? undefined : below, node)
      children.set(name, directory)
      open.push([directory, node])
    }
  }
  return root
}

/** The upper's attributes with the lower's children. A directory that the upper only implies leaves the lower's attributes too, as unpacking it there would. */
function laid(lower: LayerNode | undefined, upper: LayerNode): LayerNode {
  if (upper.isImplied === true && lower !== undefined) return { ...lower, children: lower.children ?? new Map() }
  return { ...upper, children: lower?.children ?? new Map() }
}

/** Lets the markers of a directory act; gives the entries that are none. */
function applyMarkers(
  children: Map<string, LayerNode>,
  above: LayerNode,
  spec: WhiteoutSpec,
): Array<readonly [string, LayerNode]> {
  const entries: Array<readonly [string, LayerNode]> = []
  for (const [name, node] of above.children ?? []) {
    const whiteout = whiteoutOf(name, node, spec)
    switch (whiteout?.kind) {
      case undefined:
        entries.push([name, node])
        break
      case 'remove':
        children.delete(whiteout.name)
        break
      case 'opaque-parent':
        children.clear()
        break
      case 'opaque-self':
        children.get(name)?.children?.clear()
        entries.push([
          name,
          {
            ...node,
            xattrs: node.xattrs.filter((xattr) => Buffer.from(xattr.name).toString('latin1') !== OVERLAY_OPAQUE),
          },
        ])
        break
      default:
        whiteout satisfies never
    }
  }
  return entries
}
