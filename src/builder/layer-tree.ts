import { FileTree, newValues, type NodeId, type NodeValues } from '../rafs/index.ts'
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

/** A directory that an archive implies but does not list. */
const IMPLIED: NodeValues = newValues(FILE_TYPES.directory | 0o755)

/** A new tree in `files` with nothing but its root. */
export function impliedRoot(files: FileTree): NodeId {
  return files.addRoot(IMPLIED)
}

/** Links in one path that are followed, as in Linux. */
const MAX_LINKS = 40

/** A layer's tree as an archive builds it up, entry by entry, later entries over earlier ones. */
export class LayerTree {
  readonly files: FileTree
  readonly root: NodeId
  /** What ended the last walk: it is no directory. */
  #end: NodeId = 0
  /** The directory of the entry before, by the names of its path: most archives list siblings together. Its path leads through directories only. */
  #sibling: { readonly names: readonly string[]; readonly directory: NodeId } | undefined

  constructor(files: FileTree) {
    this.files = files
    this.root = impliedRoot(files)
  }

  /** Puts an entry at a path. A directory over a directory keeps the children; anything else replaces what is there. */
  put(names: readonly string[], values: NodeValues): NodeId {
    const name = names.at(-1)
    if (name !== undefined) {
      const directory = this.#directory(names)
      const end = this.files.end
      const id = this.files.put(directory, name, values)
      // It was there before: as a directory on the way, perhaps.
      if (id < end) this.#sibling = undefined
      return id
    }
    if ((values.mode & FILE_TYPES.mask) !== FILE_TYPES.directory)
      throw new BuilderError('BAD_SOURCE', 'the archive has an entry for its root that is no directory')
    this.files.setValues(this.root, values)
    return this.root
  }

  /** Puts a further name of a file at a path. */
  link(names: readonly string[], target: NodeId): void {
    const name = names.at(-1)
    if (name === undefined)
      throw new BuilderError('BAD_SOURCE', 'the archive has an entry for its root that is no directory')
    this.files.link(this.#directory(names), name, target)
    this.#sibling = undefined
  }

  /** The entry at a path, 0 when there is none; links among its parents are followed, one at its end is not. */
  find(names: readonly string[]): NodeId {
    const name = names.at(-1)
    if (name === undefined) return this.root
    const directory = this.#walk(names, false)
    return directory === 0 ? 0 : this.files.find(directory, name)
  }

  /** The placeholder that a path ends at or would lead through, 0 when there is none. */
  placeholder(names: readonly string[]): NodeId {
    const found = this.find(names) || this.#end
    return this.files.isPlaceholder(found) ? found : 0
  }

  #directory(names: readonly string[]): NodeId {
    if (this.#sibling !== undefined && areSiblings(names, this.#sibling.names)) return this.#sibling.directory
    const found = this.#walk(names, true)
    if (found === 0)
      throw new BuilderError(
        'BAD_SOURCE',
        `the entry ${shown(`/${names.join('/')}`)} lies below something that is no directory`,
      )
    return found
  }

  /** The directory that the last name lies in. Missing ones are made when `make` is set; symlinks are followed within the layer, as an unpacking tool would. */
  #walk(names: readonly string[], make: boolean): NodeId {
    const { files } = this
    this.#end = 0
    this.#sibling = undefined
    let here = this.root
    let links = 0
    let queue: readonly string[] = names
    let last = names.length - 1
    for (let at = 0; at < last; at += 1) {
      const name = queue[at] ?? ''
      if (name === '..') {
        here = files.parent(here) || here
        continue
      }
      let next = files.find(here, name)
      if (next === 0) {
        if (!make) return 0
        next = files.put(here, name, IMPLIED)
        files.setImplied(next)
      }
      const target = files.target(next)
      if (target !== undefined) {
        links += 1
        if (links > MAX_LINKS)
          throw new BuilderError(
            'BAD_SOURCE',
            `the entry ${shown(`/${names.join('/')}`)} lies below a loop of symlinks`,
          )
        const text = Buffer.from(target).toString('latin1')
        if (text.startsWith('/')) here = this.root
        queue = [...text.split('/').filter((part) => part !== '' && part !== '.'), ...queue.slice(at + 1)]
        last = queue.length - 1
        at = -1
        continue
      }
      if (!files.isDirectory(next)) {
        this.#end = next
        return 0
      }
      here = next
    }
    if (links === 0) this.#sibling = { names, directory: here }
    return here
  }
}

function areSiblings(a: readonly string[], b: readonly string[]): boolean {
  if (a.length !== b.length) return false
  for (let at = a.length - 2; at >= 0; at -= 1) if (a[at] !== b[at]) return false
  return true
}

/** Hard links whose targets come later in the archive, or never. */
export class PendingLinks {
  readonly #tree: LayerTree
  /** By the placeholder's number. */
  readonly #pending = new Map<NodeId, { readonly names: readonly string[]; readonly target: readonly string[] }>()

  constructor(tree: LayerTree) {
    this.#tree = tree
  }

  /** Links now when the target is there, else at the end, unless a later entry takes the place. */
  link(path: Uint8Array, targetPath: Uint8Array): void {
    const names = imagePath(path)
    const target = imagePath(targetPath)
    const found = this.#target(target)
    if (found !== 0) {
      this.#share(names, found, target)
      return
    }
    const placeholder = this.#tree.put(names, newValues(FILE_TYPES.file))
    this.#tree.files.setPlaceholder(placeholder)
    this.#pending.set(placeholder, { names, target })
  }

  /** Resolves what is left, each link once what it waits for is there. Throws BuilderError 'BAD_SOURCE' for those that stay. */
  finish(): void {
    const { files } = this.#tree
    const left = new Map(
      [...this.#pending].filter(([id, { names }]) => this.#isAt(names, id) && files.isPlaceholder(id)),
    )
    /** By the link that they wait for. */
    const waiting = new Map<NodeId, NodeId[]>()
    const open = [...left.keys()].reverse()
    for (let id = open.pop(); id !== undefined; id = open.pop()) {
      const link = left.get(id)
      if (link === undefined) continue
      const found = this.#target(link.target)
      if (found === 0) {
        const blocker = this.#tree.placeholder(link.target)
        const others = waiting.get(blocker)
        if (others === undefined) waiting.set(blocker, [id])
        else others.push(id)
        continue
      }
      if (this.#isAt(link.names, id)) this.#share(link.names, found, link.target)
      left.delete(id)
      for (const other of waiting.get(id) ?? []) open.push(other)
      waiting.delete(id)
    }
    const [first] = left.values()
    if (first === undefined) return
    throw new BuilderError(
      'BAD_SOURCE',
      `the hard link ${shown(`/${first.names.join('/')}`)} points to ${shown(`/${first.target.join('/')}`)}, which the archive does not have`,
    )
  }

  #isAt(names: readonly string[], id: NodeId): boolean {
    return this.#tree.find(names) === id
  }

  #target(names: readonly string[]): NodeId {
    const found = this.#tree.find(names)
    return this.#tree.files.isPlaceholder(found) ? 0 : found
  }

  #share(names: readonly string[], found: NodeId, target: readonly string[]): void {
    const { files } = this.#tree
    if (files.isDirectory(found))
      throw new BuilderError(
        'BAD_SOURCE',
        `the hard link ${shown(`/${names.join('/')}`)} points to the directory ${shown(`/${target.join('/')}`)}`,
      )
    files.setLinked(found)
    if (this.#tree.find(names) !== found) this.#tree.link(names, found)
  }
}
