import type { ChunkRecord } from './dictionary.ts'
import { BuilderError } from './errors.ts'
import { imagePath, shown } from './image-path.ts'

export const FILE_TYPES = {
  mask: 0o170000,
  directory: 0o040000,
  file: 0o100000,
  symlink: 0o120000,
  char: 0o020000,
  block: 0o060000,
  fifo: 0o010000,
  socket: 0o140000,
} as const

/** An extended attribute; full name (`user.x`). */
export interface Xattr {
  readonly name: Uint8Array
  readonly value: Uint8Array
}

/** What a file is, without its name. Hard links are one node under several names. */
export interface LayerNode {
  /** Type and permission bits. */
  mode: number
  uid: number
  gid: number
  /** Linux dev_t, 32 bits. */
  rdev: number
  mtime: number
  mtimeNsec: number
  /** Files: bytes of content. */
  size: number
  /** Sorted by name. */
  xattrs: readonly Xattr[]
  /** Symlinks. */
  target: Uint8Array | undefined
  /** Files. */
  chunks: readonly ChunkRecord[]
  /** Directories: by name, bytes as latin1 text; in any order. */
  children: Map<string, LayerNode> | undefined
  /** An archive lists a hard link to it. */
  isLinked?: boolean
  /** Its archive had no entry for this directory. */
  isImplied?: boolean
}

export function newNode(mode: number): LayerNode {
  return {
    mode,
    uid: 0,
    gid: 0,
    rdev: 0,
    mtime: 0,
    mtimeNsec: 0,
    size: 0,
    xattrs: [],
    target: undefined,
    chunks: [],
    children: (mode & FILE_TYPES.mask) === FILE_TYPES.directory ? new Map() : undefined,
  }
}

/** A directory that an archive implies but does not list. */
export function impliedDirectory(): LayerNode {
  return newNode(FILE_TYPES.directory | 0o755)
}

export function isType(node: LayerNode, type: Exclude<keyof typeof FILE_TYPES, 'mask'>): boolean {
  return (node.mode & FILE_TYPES.mask) === FILE_TYPES[type]
}

/** Links in one path that are followed, as in Linux. */
const MAX_LINKS = 40

/** A layer's tree as an archive builds it up, entry by entry, later entries over earlier ones. */
export class LayerTree {
  readonly root: LayerNode = impliedDirectory()

  /** Puts a node at a path. A directory over a directory keeps the children; anything else replaces what is there. */
  put(names: readonly string[], node: LayerNode): void {
    const name = names.at(-1)
    if (name === undefined) {
      if (node.children === undefined)
        throw new BuilderError('BAD_SOURCE', 'the archive has an entry for its root that is no directory')
      Object.assign(this.root, { ...node, children: this.root.children })
      return
    }
    const siblings = this.#directory(names.slice(0, -1), names)
    const existing = siblings.get(name)
    if (existing?.children !== undefined && node.children !== undefined)
      Object.assign(existing, { ...node, children: existing.children, isImplied: false })
    else siblings.set(name, node)
  }

  /** The node at a path; links among its parents are followed, one at its end is not. */
  find(names: readonly string[]): LayerNode | undefined {
    const name = names.at(-1)
    if (name === undefined) return this.root
    return this.#walk(names.slice(0, -1), names, false)?.get(name)
  }

  /** What is at this place now: for a caller that will put something else there later. */
  holds(names: readonly string[], node: LayerNode): boolean {
    return this.find(names) === node
  }

  #directory(parents: readonly string[], whole: readonly string[]): Map<string, LayerNode> {
    const found = this.#walk(parents, whole, true)
    if (found === undefined)
      throw new BuilderError(
        'BAD_SOURCE',
        `the entry ${shown(`/${whole.join('/')}`)} lies below something that is no directory`,
      )
    return found
  }

  /** Children of a directory. Missing ones are made when `make` is set; symlinks are followed within the layer, as an unpacking tool would. */
  #walk(parents: readonly string[], whole: readonly string[], make: boolean): Map<string, LayerNode> | undefined {
    let links = 0
    const queue = [...parents]
    const path: Array<Map<string, LayerNode>> = [childrenOf(this.root)]
    while (queue.length > 0) {
      const name = queue.shift() ?? ''
      const here = path.at(-1) ?? childrenOf(this.root)
      if (name === '..') {
        if (path.length > 1) path.pop()
        continue
      }
      let next = here.get(name)
      if (next === undefined) {
        if (!make) return undefined
        next = impliedDirectory()
        next.isImplied = true
        here.set(name, next)
      }
      if (next.target !== undefined) {
        links += 1
        if (links > MAX_LINKS)
          throw new BuilderError(
            'BAD_SOURCE',
            `the entry ${shown(`/${whole.join('/')}`)} lies below a loop of symlinks`,
          )
        const target = Buffer.from(next.target).toString('latin1')
        if (target.startsWith('/')) path.length = 1
        queue.unshift(...target.split('/').filter((part) => part !== '' && part !== '.'))
        continue
      }
      if (next.children === undefined) return undefined
      path.push(next.children)
    }
    return path.at(-1)
  }
}

function childrenOf(directory: LayerNode): Map<string, LayerNode> {
  directory.children ??= new Map()
  return directory.children
}

/** Hard links whose targets come later in the archive, or never. */
export class PendingLinks {
  readonly #tree: LayerTree
  readonly #pending: Array<{
    readonly names: readonly string[]
    readonly target: readonly string[]
    readonly placeholder: LayerNode
  }> = []
  readonly #placeholders = new Set<LayerNode>()

  constructor(tree: LayerTree) {
    this.#tree = tree
  }

  /** Links now when the target is there, else at the end, unless a later entry takes the place. */
  link(path: Uint8Array, targetPath: Uint8Array): void {
    const names = imagePath(path)
    const target = imagePath(targetPath)
    const node = this.#tree.find(target)
    if (node !== undefined && !this.#placeholders.has(node)) {
      this.#share(names, node, target)
      return
    }
    const placeholder = newNode(FILE_TYPES.file)
    this.#placeholders.add(placeholder)
    this.#tree.put(names, placeholder)
    this.#pending.push({ names, target, placeholder })
  }

  /** Resolves what is left. Chains of links resolve in as many rounds; a round without progress ends it with 'BAD_SOURCE'. */
  finish(): void {
    let open = this.#pending.filter(({ names, placeholder }) => this.#tree.holds(names, placeholder))
    while (open.length > 0) {
      const before = open.length
      open = open.filter(({ names, target, placeholder }) => {
        const node = this.#tree.find(target)
        if (node === undefined || this.#placeholders.has(node)) return true
        if (this.#tree.holds(names, placeholder)) this.#share(names, node, target)
        return false
      })
      const [first] = open
      if (open.length === before && first !== undefined) {
        throw new BuilderError(
          'BAD_SOURCE',
          `the hard link ${shown(`/${first.names.join('/')}`)} points to ${shown(`/${first.target.join('/')}`)}, which the archive does not have`,
        )
      }
    }
  }

  #share(names: readonly string[], node: LayerNode, target: readonly string[]): void {
    if (node.children !== undefined)
      throw new BuilderError(
        'BAD_SOURCE',
        `the hard link ${shown(`/${names.join('/')}`)} points to the directory ${shown(`/${target.join('/')}`)}`,
      )
    node.isLinked = true
    if (this.#tree.find(names) !== node) this.#tree.put(names, node)
  }
}
