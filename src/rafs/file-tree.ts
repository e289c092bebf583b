import type { BlobInfo } from '../blob/index.ts'
import { EntryTable, FLAGS, type NodeId, WORD } from './entry-table.ts'
import { RafsError } from './errors.ts'
import { HashIndex, mix } from './hash-index.ts'
import { isType, MODE } from './mode.ts'
import { NAME_MAX } from './names.ts'
import type { NodeValues } from './node-values.ts'

export type { NodeId } from './entry-table.ts'

/** An image that is to be written. */
export interface RafsFiles {
  readonly files: FileTree
  readonly root: NodeId
  readonly blobs: readonly BlobInfo[]
}

/**
 * Files of an image or layer that is built, merged or written. Entries are numbers. Names are text with a character a byte (latin1), in any order until
 * {@link sort}. Several trees may live in one: each has its own root, and {@link move} takes entries from one to the other.
 */
export class FileTree extends EntryTable {
  readonly #byName = new HashIndex()

  /** An entry without name and parent. */
  addRoot(values: NodeValues): NodeId {
    const id = this.rows.add()
    this.#write(id, values)
    return id
  }

  /** Puts an entry into a directory, over one of that name: a directory over a directory keeps the children, anything else replaces what is there. */
  put(parent: NodeId, name: string, values: NodeValues): NodeId {
    const id = this.#place(parent, name)
    this.#write(id, values)
    return id
  }

  /** Puts a further name of a file into a directory, over an entry of that name. */
  link(parent: NodeId, name: string, target: NodeId): NodeId {
    const inode = this.inode(target)
    const id = this.#place(parent, name)
    if (id === inode) return id
    // What it was before, a directory perhaps, must not come back with the next entry.
    this.removeChildren(id)
    this.nameInode(id, inode)
    return id
  }

  /** Gives an entry without parent other values; a directory keeps its children. */
  setValues(root: NodeId, values: NodeValues): void {
    this.#write(root, values)
  }

  /** Puts an empty directory with the name and the attributes of another into a directory. */
  putDirectoryLike(parent: NodeId, other: NodeId): NodeId {
    const id = this.#place(parent, this.text(other))
    this.removeChildren(id)
    for (const word of [WORD.first, WORD.last]) this.rows.set(id, word, 0)
    this.setFlag(id, FLAGS.LINKED | FLAGS.PLACEHOLDER, false)
    this.copyAttributes(other, id)
    return id
  }

  /** 0 when there is none. */
  find(parent: NodeId, name: string): NodeId {
    return this.#byName.find(hashName(parent, name), (id) => this.#is(id, parent, name))
  }

  /** Takes an entry, with all that is below it, out of its directory. */
  remove(id: NodeId): void {
    if (id !== 0) this.setFlag(id, FLAGS.GONE, true)
  }

  removeChildren(directory: NodeId): void {
    if (!this.isDirectory(directory)) return
    for (let child = this.rows.get(directory, WORD.first); child !== 0; child = this.rows.get(child, WORD.next))
      this.remove(child)
    this.rows.set(directory, WORD.first, 0)
    this.rows.set(directory, WORD.last, 0)
  }

  /** Moves an entry with all that is below it into another directory, over an entry of its name. What its old directory lists is not known afterwards. */
  move(id: NodeId, to: NodeId): void {
    const name = this.text(id)
    const hash = hashName(to, name)
    const old = this.#byName.find(hash, (other) => this.#is(other, to, name))
    if (old !== 0) {
      this.remove(old)
      this.#byName.replace(hash, old, id)
    } else this.#byName.add(hash, id)
    this.#append(to, id, name)
  }

  /** No entry is to be found by its name any more: lets go of the memory for it. */
  closeIndex(): void {
    this.#byName.clear()
  }

  /** 0 when there is none. With {@link next}: all children of a directory. */
  firstChild(directory: NodeId): NodeId {
    return this.isDirectory(directory) ? this.#present(this.rows.get(directory, WORD.first)) : 0
  }

  /** The child after this one in its directory. */
  next(child: NodeId): NodeId {
    return this.#present(this.rows.get(child, WORD.next))
  }

  /** A copy of what {@link firstChild} and {@link next} give: for who changes the directory meanwhile. */
  children(directory: NodeId): NodeId[] {
    const found: NodeId[] = []
    for (let child = this.firstChild(directory); child !== 0; child = this.next(child)) found.push(child)
    return found
  }

  /** Puts all children of a directory into bytewise order of their names, the order of the format. */
  sort(directory: NodeId): void {
    if (!this.flag(directory, FLAGS.UNSORTED)) return
    const children = this.children(directory).sort((a, b) => this.compare(a, b) || this.#twice(a))
    this.setFlag(directory, FLAGS.UNSORTED, false)
    this.rows.set(directory, WORD.first, children[0] ?? 0)
    this.rows.set(directory, WORD.last, children.at(-1) ?? 0)
    for (const [at, child] of children.entries()) this.rows.set(child, WORD.next, children[at + 1] ?? 0)
  }

  /** All entries below and with a root in the order of the format: a directory's children, then the directories among them, each the same way. Sorts them. */
  *hybridOrder(root: NodeId): Generator<NodeId> {
    yield root
    const open = [root]
    for (let directory = open.pop(); directory !== undefined; directory = open.pop()) {
      this.sort(directory)
      const first = open.length
      for (let child = this.firstChild(directory); child !== 0; child = this.next(child)) {
        yield child
        if (this.isDirectory(child)) open.push(child)
      }
      reverseFrom(open, first)
    }
  }

  #append(directory: NodeId, id: NodeId, name: string): void {
    const rows = this.rows
    const last = rows.get(directory, WORD.last)
    rows.set(id, WORD.parent, directory)
    rows.set(id, WORD.next, 0)
    if (last === 0) rows.set(directory, WORD.first, id)
    else {
      rows.set(last, WORD.next, id)
      const order = this.compareText(last, name)
      if (order > 0) this.setFlag(directory, FLAGS.UNSORTED, true)
      else if (order === 0 && !this.flag(last, FLAGS.GONE)) this.#twice(id)
    }
    rows.set(directory, WORD.last, id)
  }

  /** Nobody could read an image with such a directory. Whoever orders names meets equal ones next to each other. */
  #twice(id: NodeId): never {
    const name = JSON.stringify(Buffer.from(this.text(id), 'latin1').toString())
    throw new RafsError('BAD_DIRECTORY', `a directory would hold ${name} twice; nothing is written, please report this`)
  }

  #present(id: NodeId): NodeId {
    let at = id
    while (at !== 0 && this.flag(at, FLAGS.GONE)) at = this.rows.get(at, WORD.next)
    return at
  }

  #is(id: NodeId, parent: NodeId, name: string): boolean {
    if (this.rows.get(id, WORD.parent) !== parent || this.nameLength(id) !== name.length) return false
    return this.compareText(id, name) === 0 && !this.flag(id, FLAGS.GONE)
  }

  /** A row for that name in that directory: a new one, or that of the entry which is there. */
  #place(parent: NodeId, name: string): NodeId {
    const hash = hashName(parent, name)
    const old = this.#byName.find(hash, (id) => this.#is(id, parent, name))
    if (old !== 0 && !this.flag(old, FLAGS.SHARED)) {
      this.rows.set(old, WORD.inode, 0)
      return old
    }
    checkName(name)
    const id = this.rows.add()
    this.setName(id, name)
    if (old !== 0) {
      this.remove(old)
      this.#byName.replace(hash, old, id)
    } else this.#byName.add(hash, id)
    this.#append(parent, id, name)
    return id
  }

  #write(id: NodeId, values: NodeValues): void {
    const staysDirectory = this.isDirectory(id) && isType(values.mode, MODE.DIRECTORY)
    if (!staysDirectory) this.removeChildren(id)
    this.write(id, values, staysDirectory)
  }
}

function checkName(name: string): void {
  if (name.length === 0 || name.length > NAME_MAX)
    throw new RafsError('TOO_LARGE', `a name of ${name.length} bytes: Linux and RAFS take 1 to ${NAME_MAX}`)
  if (name === '.' || name === '..') throw new RafsError('BAD_DIRECTORY', `"${name}" cannot be a name`)
  if (name.includes('/') || name.includes('\0'))
    throw new RafsError(
      'BAD_DIRECTORY',
      `${JSON.stringify(Buffer.from(name, 'latin1').toString())} cannot be a name: it has a slash or NUL`,
    )
}

function hashName(parent: NodeId, name: string): number {
  let hash = mix(0, parent)
  for (let index = 0; index < name.length; index++) hash = mix(hash, name.charCodeAt(index))
  return hash
}

function reverseFrom(list: number[], first: number): void {
  for (let low = first, high = list.length - 1; low < high; low++, high--) {
    const kept = list[low]
    list[low] = list[high]
    list[high] = kept
  }
}
