import type { FileTree, NodeId } from '../file-tree.ts'

/**
 * Numbers in the order of the format: a directory's children, then those of the directories among them, each the same way; records lie depth first. Source: docs/formats/rafs-v5.md, "Inode".
 * By entry number: 16 bytes an entry. Iterative: depth is not bounded by the stack.
 */
export class InodeNumbers {
  readonly #files: FileTree
  readonly #root: NodeId
  readonly #indexes: Uint32Array
  readonly #childIndexes: Uint32Array
  /** By inode: the entry that is met first, and how many there are. */
  readonly #firsts: Uint32Array
  readonly #links: Uint32Array
  /** Paths. */
  count = 0
  /** Paths, hard links once. */
  inodeCount = 0

  constructor(files: FileTree, root: NodeId) {
    this.#files = files
    this.#root = root
    this.#indexes = new Uint32Array(files.end)
    this.#childIndexes = new Uint32Array(files.end)
    this.#firsts = new Uint32Array(files.end)
    this.#links = new Uint32Array(files.end)
    this.#numberAll()
  }

  /** Position in the inode table, from 1. */
  index(id: NodeId): number {
    return this.#indexes[id]
  }

  /** The index, or that of the first path of a hard link. */
  ino(id: NodeId): number {
    return this.#indexes[this.#firsts[this.#files.inode(id)]]
  }

  /** Index of the directory; 0 for the root. */
  parent(id: NodeId): number {
    return id === this.#root ? 0 : this.#indexes[this.#files.parent(id)]
  }

  /** Index of a directory's first child, given out even if it has none. */
  childIndex(id: NodeId): number {
    return this.#childIndexes[id]
  }

  /** Paths of its file. */
  links(id: NodeId): number {
    return this.#links[this.#files.inode(id)]
  }

  /** In the order in which records are written. */
  *depthFirst(): Generator<NodeId> {
    const open = [this.#root]
    for (let id = open.pop(); id !== undefined; id = open.pop()) {
      yield id
      for (const child of this.#files.children(id).reverse()) open.push(child)
    }
  }

  #numberAll(): void {
    const files = this.#files
    this.#number(this.#root)
    const open = [this.#root]
    for (let directory = open.pop(); directory !== undefined; directory = open.pop()) {
      files.sort(directory)
      this.#childIndexes[directory] = this.count + 1
      const directories: NodeId[] = []
      for (let child = files.firstChild(directory); child !== 0; child = files.next(child)) {
        this.#number(child)
        if (files.isDirectory(child)) directories.push(child)
      }
      while (directories.length > 0) open.push(directories.pop() ?? 0)
    }
  }

  #number(id: NodeId): void {
    const inode = this.#files.inode(id)
    this.#indexes[id] = ++this.count
    if (this.#firsts[inode] === 0) {
      this.#firsts[inode] = id
      this.inodeCount += 1
    }
    this.#links[inode] += 1
  }
}
