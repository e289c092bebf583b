import type { BlobInfo } from '../blob/index.ts'
import { findChild, type LinkGroup, type RafsNode, type RafsTree } from '../rafs/index.ts'
import { fromKey, toKey } from './image-path.ts'
import type { LayerNode } from './layer-tree.ts'
import { matchPattern } from './prefetch.ts'

/** A layer's tree in the form that is written: names in order, hard links as groups. */
export function toRafsTree(root: LayerNode, blobs: readonly BlobInfo[]): RafsTree {
  const links = new LinkGroups(root)
  const convert = (name: string, node: LayerNode): RafsNode => ({
    name: fromKey(name),
    mode: node.mode,
    uid: node.uid,
    gid: node.gid,
    rdev: node.rdev,
    mtime: node.mtime,
    mtimeNsec: node.mtimeNsec,
    xattrs: node.xattrs,
    size: node.size,
    target: node.target,
    children: node.children === undefined ? undefined : [],
    chunks: node.chunks,
    link: links.of(node),
    isLinked: node.isLinked === true,
  })
  const top = convert('/', root)
  const open: Array<readonly [RafsNode, LayerNode]> = [[top, root]]
  for (let pair = open.pop(); pair !== undefined; pair = open.pop()) {
    const [to, from] = pair
    for (const [name, child] of sortedChildren(from)) {
      const converted = convert(name, child)
      if (child.isImplied === true) converted.isImplied = true
      to.children?.push(converted)
      if (child.children !== undefined) open.push([converted, child])
    }
  }
  return { root: top, blobs }
}

/** The other way; nodes of one link group become one node under several names. Chunk records are shared with the tree. */
export function fromRafsTree(tree: RafsTree): LayerNode {
  const groups = new Map<LinkGroup, LayerNode>()
  const convert = (node: RafsNode): LayerNode => {
    const known = node.link === undefined ? undefined : groups.get(node.link)
    if (known !== undefined) return known
    const converted: LayerNode = {
      mode: node.mode,
      uid: node.uid,
      gid: node.gid,
      rdev: node.rdev,
      mtime: node.mtime,
      mtimeNsec: node.mtimeNsec,
      size: node.size,
      xattrs: node.xattrs,
      target: node.target,
      chunks: node.chunks,
      children: node.children === undefined ? undefined : new Map(),
    }
    if (node.link !== undefined) groups.set(node.link, converted)
    return converted
  }
  const root = convert(tree.root)
  const open: Array<readonly [LayerNode, RafsNode]> = [[root, tree.root]]
  for (let pair = open.pop(); pair !== undefined; pair = open.pop()) {
    const [to, from] = pair
    for (const child of from.children ?? []) {
      const converted = convert(child)
      if (child.isImplied === true) converted.isImplied = true
      to.children?.set(toKey(child.name), converted)
      if (child.children !== undefined) open.push([converted, child])
    }
  }
  return root
}

/** Children in the order of the format: bytewise. Latin1 text compares as its bytes do. */
export function sortedChildren(node: LayerNode): Array<readonly [string, LayerNode]> {
  return [...(node.children ?? [])].sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0))
}

/** All paths with their nodes in the order of the format: a directory's children, then the directories among them, each the same way. */
export function* hybridPaths(root: LayerNode): Generator<readonly [path: string, node: LayerNode]> {
  yield ['/', root]
  const open: Array<readonly [string, LayerNode]> = [['', root]]
  for (let pair = open.pop(); pair !== undefined; pair = open.pop()) {
    const [prefix, directory] = pair
    const children = sortedChildren(directory)
    for (const [name, node] of children) yield [`${prefix}/${name}`, node]
    for (const [name, node] of children.reverse())
      if (node.children !== undefined) open.push([`${prefix}/${name}`, node])
  }
}

/** Nodes of the prefetch table, in the order of the patterns. A pattern that names an empty file, or nothing, has no entry. */
export function prefetchNodes(root: RafsNode, patterns: readonly string[]): RafsNode[] {
  const found: RafsNode[] = []
  for (const pattern of patterns) {
    let node: RafsNode | undefined = root
    for (const name of pattern.split('/').filter((part) => part !== '')) node = node && findChild(node, fromKey(name))
    if (node !== undefined && (node.chunks.length > 0 || !isFile(node))) found.push(node)
  }
  return found
}

function isFile(node: RafsNode): boolean {
  return (
    node.children === undefined && node.target === undefined && node.rdev === 0 && (node.mode & 0o170000) === 0o100000
  )
}

/** Files with content in the order in which a directory's data is stored: those under a pattern first, pattern by pattern. */
export function dumpOrder(root: LayerNode, patterns: readonly string[]): LayerNode[] {
  const numbers = new Map(patterns.map((path, number) => [path, number]))
  const files: Array<{ readonly node: LayerNode; readonly rank: number }> = []
  for (const [path, node] of hybridPaths(root)) {
    if (node.size === 0 || node.children !== undefined || node.target !== undefined) continue
    files.push({ node, rank: (numbers.size === 0 ? undefined : matchPattern(path, numbers)) ?? numbers.size })
  }
  return files.sort((a, b) => a.rank - b.rank).map(({ node }) => node)
}

/** Files with content under a pattern. */
export function prefetchedFiles(root: LayerNode, patterns: readonly string[]): LayerNode[] {
  const numbers = new Map(patterns.map((path, number) => [path, number]))
  const found: LayerNode[] = []
  for (const [path, node] of hybridPaths(root))
    if (node.chunks.length + node.size > 0 && node.children === undefined && node.target === undefined)
      if (matchPattern(path, numbers) !== undefined) found.push(node)
  return found
}

/** All nodes that are no directories, in the order of the format; one with several names several times. */
function* nodesOf(root: LayerNode): Generator<LayerNode> {
  const open = [root]
  for (let directory = open.pop(); directory !== undefined; directory = open.pop()) {
    const children = sortedChildren(directory)
    for (const [, node] of children) if (node.children === undefined) yield node
    for (const [, node] of children.reverse()) if (node.children !== undefined) open.push(node)
  }
}

/** Nodes that have several names. */
class LinkGroups {
  readonly #groups = new Map<LayerNode, LinkGroup>()

  constructor(root: LayerNode) {
    const seen = new Set<LayerNode>()
    for (const node of nodesOf(root)) {
      if (!seen.has(node)) seen.add(node)
      else if (!this.#groups.has(node)) this.#groups.set(node, { id: this.#groups.size + 1 })
    }
  }

  of(node: LayerNode): LinkGroup | undefined {
    return this.#groups.get(node)
  }
}
