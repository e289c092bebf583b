import { type LinkGroup, type RafsNode } from '../tree.ts'
import { RafsError } from '../errors.ts'

/** A path's inode with its numbers. */
export interface NumberedInode {
  readonly node: RafsNode
  /** Position in the inode table, from 1. */
  readonly index: number
  /** Its index, or that of the first path of its hard link. */
  readonly ino: number
  /** Index of the directory; 0 for the root. */
  readonly parent: number
  /** Of a directory: index of its first child, given out even if it has none. */
  childIndex: number
  /** Paths that its hard link has. */
  readonly links: { count: number }
}

export interface InodeNumbers {
  /** In the order in which records are written. */
  readonly depthFirst: readonly NumberedInode[]
  /** Paths. */
  readonly count: number
  /** Paths, hard links once. */
  readonly inodeCount: number
  inoOf(node: RafsNode): number
}

/**
 * Numbers in the order of the format: a directory's children, then those of the directories among them, each the same way; records lie depth first.
 * Source: docs/formats/rafs-v5.md, "Inode". Iterative: depth is not bounded by the stack.
 */
export function numberInodes(root: RafsNode): InodeNumbers {
  const byNode = new Map<RafsNode, NumberedInode>()
  const groups = new Map<LinkGroup, NumberedInode>()
  let next = 1
  let inodeCount = 0
  const number = (node: RafsNode, parent: number): NumberedInode => {
    const index = next++
    const first = node.link === undefined ? undefined : groups.get(node.link)
    const inode = { node, index, ino: first?.ino ?? index, parent, childIndex: 0, links: first?.links ?? { count: 0 } }
    inode.links.count += 1
    if (first === undefined) inodeCount += 1
    if (node.link !== undefined && first === undefined) groups.set(node.link, inode)
    byNode.set(node, inode)
    return inode
  }
  const open = [number(root, 0)]
  for (let directory = open.pop(); directory !== undefined; directory = open.pop()) {
    directory.childIndex = next
    const { index } = directory
    const children = (directory.node.children ?? []).map((child) => number(child, index))
    for (const child of children.reverse()) if (child.node.children !== undefined) open.push(child)
  }
  const find = (node: RafsNode): NumberedInode => {
    const found = byNode.get(node)
    if (found === undefined) throw new RafsError('NOT_FOUND', 'a node is not in the tree that is written')
    return found
  }
  return {
    depthFirst: [...depthFirst(root)].map(find),
    count: next - 1,
    inodeCount,
    inoOf: (node) => find(node).ino,
  }
}

function* depthFirst(root: RafsNode): Generator<RafsNode> {
  const open = [root]
  for (let node = open.pop(); node !== undefined; node = open.pop()) {
    yield node
    const children = node.children ?? []
    for (let at = children.length - 1; at >= 0; at -= 1) open.push(children[at])
  }
}
