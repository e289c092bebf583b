import { DaemonError } from './errors.ts'

/** A directory above the mounts, or the place of one. Plain values: serving threads get copies. */
export interface PseudoNode {
  readonly ino: number
  readonly parent: number
  readonly name: string
  /** Slot of the image that is mounted here; 0 = none. */
  readonly slot: number
}

const ROOT = 1
const MAX_DEPTH = 64
const MAX_NAME_BYTES = 255

/**
 * The file system above the images of a session: directories only, made as mounts need them. They stay when a mount goes (upstream's clients see an empty directory),
 * and may be mounted on again.
 */
export class PseudoTree {
  readonly #nodes = new Map<number, PseudoNode>([[ROOT, { ino: ROOT, parent: ROOT, name: '', slot: 0 }]])
  #lastIno = ROOT

  /** Another daemon's tree, which has been checked; nothing is mounted on it. */
  static of(directories: ReadonlyArray<Omit<PseudoNode, 'slot'>>, nextIno: number): PseudoTree {
    const tree = new PseudoTree()
    for (const { ino, parent, name } of directories) tree.#nodes.set(ino, { ino, parent, name, slot: 0 })
    tree.#lastIno = nextIno - 1
    return tree
  }

  get nodes(): readonly PseudoNode[] {
    return [...this.#nodes.values()]
  }

  /** The number of the directory that is made next. */
  get nextIno(): number {
    return this.#lastIno + 1
  }

  /** The node at a path, if there is one. */
  find(path: string): PseudoNode | undefined {
    let at = this.#get(ROOT)
    for (const name of namesOf(path)) {
      const child = this.#child(at.ino, name)
      if (child === undefined) return undefined
      at = child
    }
    return at
  }

  /** Puts an image at a path, making directories as needed; gives the nodes from the root down. Throws DaemonError 'EXISTS' below or above another mount. */
  mount(path: string, slot: number): readonly PseudoNode[] {
    let at = this.#get(ROOT)
    const way = [at]
    for (const name of namesOf(path)) {
      if (at.slot !== 0 && at.ino !== ROOT)
        throw new DaemonError(
          'EXISTS',
          `cannot mount at ${path}: ${this.pathOf(at)} is a mounted image; take a path beside it`,
        )
      at = this.#child(at.ino, name) ?? this.#make(at.ino, name)
      way.push(at)
    }
    const placed = { ...at, slot }
    this.#nodes.set(placed.ino, placed)
    way[way.length - 1] = placed
    return way
  }

  /** Takes the image away; the directory stays. */
  unmount(node: PseudoNode): void {
    this.#nodes.set(node.ino, { ...node, slot: 0 })
  }

  pathOf(node: PseudoNode): string {
    return node.ino === ROOT ? '/' : `${this.pathOf(this.#get(node.parent)).replace(/\/$/, '')}/${node.name}`
  }

  #make(parent: number, name: string): PseudoNode {
    const node = { ino: ++this.#lastIno, parent, name, slot: 0 }
    this.#nodes.set(node.ino, node)
    return node
  }

  #child(parent: number, name: string): PseudoNode | undefined {
    for (const node of this.#nodes.values())
      if (node.parent === parent && node.name === name && node.ino !== ROOT) return node
    return undefined
  }

  #get(ino: number): PseudoNode {
    const node = this.#nodes.get(ino)
    if (node === undefined) throw new DaemonError('NOT_FOUND', `there is no pseudo directory ${ino}`)
    return node
  }
}

/** Names of an absolute path; `/` gives none. Throws DaemonError 'BAD_REQUEST'. */
function namesOf(path: string): string[] {
  const refuse = (why: string): DaemonError =>
    new DaemonError('BAD_REQUEST', `${JSON.stringify(path.slice(0, 200))} is no mount point: ${why}`, {
      wire: 'VFS failed to handle request, PathWalk(Os { code: 22, kind: InvalidInput, message: "Invalid argument" })',
    })
  if (!path.startsWith('/')) throw refuse('it must start with "/"')
  const names = path.split('/').filter((name) => name !== '' && name !== '.')
  if (names.length > MAX_DEPTH) throw refuse(`it has more than ${MAX_DEPTH} parts`)
  for (const name of names) {
    if (name === '..' || name.includes('\0')) throw refuse('it has ".." or a NUL byte in it')
    if (Buffer.byteLength(name) > MAX_NAME_BYTES) throw refuse(`a part is longer than ${MAX_NAME_BYTES} bytes`)
  }
  return names
}
