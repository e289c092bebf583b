/** Stacks of layers at random: few names, so that they meet; deletions, opaque directories, directories that an archive only implies. */
import { once, oneOf, type Random } from './random.ts'
import { newTreeNode, pathsOf, randomTree, type TreeNode, type TreeShape } from './random-tree.ts'

const NAMES = ['a', 'b', 'c', 'd', 'e', 'f.g', '\xff\xfe', 'long'.repeat(30)] as const

/** What stacks are like. */
export interface StackShape {
  /** Layers: from two to this. */
  readonly layers: number
  /** Entries that a layer may have. */
  readonly nodes: number
  readonly name: (random: Random) => string
}

export const FEW_NAMES: StackShape = { layers: 5, nodes: 25, name: (random) => oneOf(random, NAMES) }

/** So many that all layers together crowd the tables by which entries are found; names differ in a byte or two. */
export function manyNames(count: number): StackShape {
  const name = (random: Random): string => `name ${String.fromCharCode(0x21 + random(2))}${String(random(count))}`
  return { layers: 8, nodes: count, name: (random) => (once(random, 4) ? oneOf(random, NAMES) : name(random)) }
}
const TYPES: TreeShape['types'] = ['directory', 'directory', 'directory', 'file', 'file', 'symlink', 'char', 'fifo']

/** Lowest first. Directories that an archive implies have the attributes of what they lie over, as containerd unpacks them. */
export function randomLayers(random: Random, shape: StackShape = FEW_NAMES): TreeNode[] {
  const layers: TreeNode[] = []
  let below: TreeNode | undefined
  for (let count = 2 + random(shape.layers - 1); count > 0; count--) {
    const layer = randomLayer(random, shape, below !== undefined || once(random, 3))
    settleImplied(layer, below)
    layers.push(layer)
    below = laidOver(below, layer)
  }
  return layers
}

function randomLayer(random: Random, shape: StackShape, deletes: boolean): TreeNode {
  const root = randomTree(random, {
    nodes: 1 + random(shape.nodes),
    types: deletes ? [...TYPES, 'whiteout', 'whiteout'] : TYPES,
    name: shape.name,
    linked: new Set(['file']),
    xattrs: true,
  })
  for (const [path, node] of pathsOf(root)) {
    node.mtimeNsec = 0
    if (node.type !== 'directory') continue
    if (once(random, 6)) node.isOpaque = true
    // An archive cannot imply a directory in which it has nothing.
    else if (path === '/' || node.children.size > 0) node.isImplied = once(random, 4)
  }
  root.isOpaque = false
  return root
}

function settleImplied(node: TreeNode, below: TreeNode | undefined, isRoot = true): void {
  const lies = below?.type === 'directory' ? below : undefined
  if (node.isImplied) {
    // A snapshot's root is made anew.
    const { mode, uid, gid, mtime, xattrs } = (isRoot ? undefined : lies) ?? newTreeNode('directory')
    Object.assign(node, { mode, uid, gid, mtime, xattrs })
  }
  for (const [name, child] of node.children)
    if (child.type === 'directory') settleImplied(child, node.isOpaque ? undefined : lies?.children.get(name), false)
}

/** What shows, in so far as the next layer's implied directories ask for it. */
function laidOver(lower: TreeNode | undefined, upper: TreeNode): TreeNode {
  const merges = lower?.type === 'directory' && upper.type === 'directory' && !upper.isOpaque
  const children = new Map(merges ? lower.children : [])
  for (const [name, node] of upper.children) {
    if (node.type === 'whiteout') children.delete(name)
    else if (node.type === 'directory') children.set(name, laidOver(children.get(name), node))
    else children.set(name, node)
  }
  return { ...upper, children }
}
