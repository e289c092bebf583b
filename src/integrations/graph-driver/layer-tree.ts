/**
 * What a layer's directory holds so far, in memory: paths of entries are resolved here and not by the file system, so that no link in the layer can lead
 * out of its directory. Right as long as nobody else writes there. Names are text of one byte a character (latin1), whatever their encoding.
 */
export type LayerNode = DirectoryNode | LinkNode | OtherNode

export interface DirectoryNode {
  readonly kind: 'directory'
  /** Below the layer's directory, with a slash before each name; empty for the root. */
  readonly path: string
  readonly children: Map<string, LayerNode>
}
export interface LinkNode {
  readonly kind: 'symlink'
  readonly target: string
}
export interface OtherNode {
  readonly kind: 'file' | 'whiteout'
}

/** Where an entry goes: a name in a directory that exists. */
export interface Place {
  readonly parent: DirectoryNode
  /** Empty for the root itself. */
  readonly name: string
}

/** Makes a directory that an entry takes for granted; `over` is the whiteout that it replaces. */
export type MakeDirectory = (path: string, over: OtherNode | undefined) => void

/** As many as the kernel follows. */
const MAX_LINKS = 40

export class LayerTree {
  readonly root: DirectoryNode = { kind: 'directory', path: '', children: new Map() }
  readonly #makeDirectory: MakeDirectory
  /** Entries of one directory follow each other: its last resolution is kept. */
  #lastText: string | undefined
  #lastParent: DirectoryNode

  constructor(makeDirectory: MakeDirectory) {
    this.#makeDirectory = makeDirectory
    this.#lastParent = this.root
  }

  /** Resolves all but the last name of an entry's path, making what is missing. Throws for `..` and for parents that are no directories. */
  place(path: string): Place {
    let end = path.length
    while (end > 0 && (path[end - 1] === '/' || (path[end - 1] === '.' && (end === 1 || path[end - 2] === '/')))) end--
    const slash = path.lastIndexOf('/', end - 1)
    const name = path.slice(slash + 1, end)
    const text = path.slice(0, slash + 1)
    if (end === 0) return { parent: this.root, name: '' }
    if (name === '..' || (text.includes('..') && text.split('/').includes('..')))
      throw new Error(`the layer is hostile: its entry ${JSON.stringify(path.slice(0, 300))} has ".." in its path`)
    if (text !== this.#lastText) {
      this.#lastParent = this.#resolve(text, path)
      this.#lastText = text
    }
    return { parent: this.#lastParent, name }
  }

  /** Notes what is at a place now. */
  set({ parent, name }: Place, node: LayerNode): void {
    if (parent.children.has(name)) this.#lastText = undefined
    parent.children.set(name, node)
  }

  /** Forgets a place and all below it. */
  delete({ parent, name }: Place): void {
    this.#lastText = undefined
    parent.children.delete(name)
  }

  #resolve(text: string, entry: string): DirectoryNode {
    const trail = [this.root]
    const pending = text.split('/').toReversed()
    let links = 0
    for (let name = pending.pop(); name !== undefined; name = pending.pop()) {
      const at = trail.at(-1) ?? this.root
      if (name === '' || name === '.') continue
      if (name === '..') {
        // Only links' targets come here; the root's parent is the root.
        if (trail.length > 1) trail.pop()
        continue
      }
      const next = at.children.get(name)
      if (next?.kind === 'symlink') {
        if (++links > MAX_LINKS) throw blocked(entry, 'its parents are links in a circle')
        if (next.target.startsWith('/')) trail.length = 1
        pending.push(...next.target.split('/').toReversed())
      } else trail.push(this.#enter(at, name, next, entry))
    }
    return trail.at(-1) ?? this.root
  }

  #enter(at: DirectoryNode, name: string, next: DirectoryNode | OtherNode | undefined, entry: string): DirectoryNode {
    if (next?.kind === 'directory') return next
    if (next?.kind === 'file') throw blocked(entry, `${JSON.stringify(`${at.path}/${name}`)} is no directory`)
    const made: DirectoryNode = { kind: 'directory', path: `${at.path}/${name}`, children: new Map() }
    this.#makeDirectory(made.path, next)
    this.set({ parent: at, name }, made)
    return made
  }
}

function blocked(entry: string, why: string): Error {
  return new Error(`cannot unpack ${JSON.stringify(entry.slice(0, 300))}: ${why}`)
}
