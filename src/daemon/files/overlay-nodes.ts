import {
  closeFd,
  type EntryAnswer,
  ERRNO,
  type FileReply,
  type HostFile,
  HostFiles,
  TYPE,
  WireAttributes,
} from '../../kernel/index.ts'
import type { Ino } from '../../rafs/index.ts'
import type { FilesJournal } from './files-journal.ts'
import { entryOf, InodeNumbers, ROOT_NODE } from './file-server.ts'
import type { OverlayLower } from './overlay-lower.ts'
import { isOpaque, isWhiteout, originOf } from './overlay-marks.ts'
import { blank, type OverlayNode } from './overlay-node.ts'
import { OverlayWritten } from './overlay-written.ts'

/** All changes go through this mount, so the kernel knows of them; the limit is for what people do in the upper directory by hand. */
const BELIEVED_SECONDS = 5
const LOWER_DEVICE = 'image'

/** The nodes of one overlay: found by name in both layers, and by what they are, so that all names of a file lead to one node. */
export class OverlayNodes {
  readonly files: HostFiles
  readonly root: OverlayNode
  readonly #lower: OverlayLower
  readonly #slot: number
  readonly #numbers: InodeNumbers
  readonly #attributes = new WireAttributes()
  readonly #byId = new Map<number, OverlayNode>()
  readonly #byUpper = new Map<string, OverlayNode>()
  readonly #byLower = new Map<Ino, OverlayNode>()
  /** Names of image files that were removed: what is left is fewer than the image says. */
  readonly #removedLinks = new Map<Ino, number>()
  /** Found but not told to the kernel yet. */
  readonly #fresh = new Set<OverlayNode>()
  readonly #onDrop: (node: OverlayNode) => void
  readonly #written: OverlayWritten
  #last = ROOT_NODE

  constructor(parts: { slot: number; upper: string; lower: OverlayLower; onDrop: (node: OverlayNode) => void }) {
    this.#slot = parts.slot
    this.files = new HostFiles(parts.upper)
    this.#lower = parts.lower
    this.#written = new OverlayWritten(this.files, (ino) => this.#removedLinks.get(ino) ?? 0)
    this.#onDrop = parts.onDrop
    this.#numbers = new InodeNumbers(parts.slot)
    // the first two devices: their numbers are shown as they are, by each daemon
    for (const device of [LOWER_DEVICE, this.files.root.device]) this.#numbers.words(device, 0, 0)
    const lower = isOpaque(this.files.root.fd) ? undefined : parts.lower.root
    this.root = {
      ...blank(ROOT_NODE, TYPE.DIRECTORY),
      upper: this.files.root,
      lower,
      origin: parts.lower.root,
      lookups: 1,
    }
    this.#byId.set(ROOT_NODE, this.root)
  }

  get(id: number): OverlayNode | undefined {
    return this.#byId.get(id)
  }

  /** The node of a file or directory that only the image has, or that is merged with one of it; undefined = nobody knows it. */
  ofImage(ino: Ino): OverlayNode | undefined {
    return this.#byLower.get(ino)
  }

  /** From now on what the kernel is told of is written there. */
  keepIn(journal: FilesJournal | undefined): void {
    this.#written.keepIn(journal)
  }

  /** Writes all that is in hand. */
  write(to: FilesJournal): void {
    this.#written.all(this.#byId.values(), to)
  }

  /** Nodes that are met for the first time get numbers beyond this one. */
  numberBeyond(id: number): void {
    this.#last = Math.max(this.#last, id)
  }

  /** A node that another process told the kernel of. It stays: nobody knows how often. */
  restore(id: number, more: Partial<OverlayNode> & { type: number }, removed: number): OverlayNode {
    const node: OverlayNode = { ...blank(id, more.type), ...more, lookups: Number.POSITIVE_INFINITY, isWritten: true }
    if (removed > 0 && node.lower !== undefined) this.#removedLinks.set(node.lower, removed)
    this.#enter(node)
    return node
  }

  /** A directory was marked: what the image has in its place shows in it no more. */
  unmerge(node: OverlayNode): void {
    if (node.lower !== undefined) this.#byLower.delete(node.lower)
    node.lower = undefined
    this.#written.changed(node)
  }

  /** Nobody can tell any more what it is: who asks is told so. */
  lose(node: OverlayNode): void {
    if (node.lower !== undefined) this.#byLower.delete(node.lower)
    node.lower = undefined
    this.#written.gone(node)
  }

  /** As many names of an image's file were found to be left. */
  namesLeft(node: OverlayNode, left: number): void {
    if (node.lower === undefined || node.upper !== undefined) return
    this.#lower.look(node.lower)
    this.#removedLinks.set(node.lower, Math.max(0, this.#lower.of.nlink - left))
    node.isGone = left === 0
    this.#written.changed(node)
  }

  /** A file that has several names is about to get them in the upper directory, by this copy. Undefined: all is done, or taken back. */
  placing(node: OverlayNode, copy: number | undefined): void {
    this.#written.placing(node, copy)
  }

  /** What a name (with its NUL) leads to; undefined = nothing, or minus an errno. */
  find(parent: OverlayNode, name: Uint8Array): OverlayNode | number | undefined {
    const fd = parent.upper === undefined ? -ERRNO.ENOENT : this.files.lookup(parent.upper, name)
    if (fd >= 0) return this.#foundUpper(parent, name, fd)
    if (fd !== -ERRNO.ENOENT) return fd
    const ino = this.lowerOf(parent, name)
    if (ino === undefined) return undefined
    return this.#byLower.get(ino) ?? this.#add(parent, name, { type: this.#lower.look(ino), lower: ino, origin: ino })
  }

  /** The image's file of a name, whatever the upper directory says of that name. */
  lowerOf(parent: OverlayNode, name: Uint8Array): Ino | undefined {
    return parent.lower === undefined || parent.type !== TYPE.DIRECTORY
      ? undefined
      : this.#lower.lookup(parent.lower, name)
  }

  /** The image's file of which the upper file of a name is a copy, and whose number it shows. */
  originAt(parent: OverlayNode, name: Uint8Array): Ino | undefined {
    const below = this.lowerOf(parent, name)
    const fd = below === undefined || parent.upper === undefined ? -ERRNO.ENOENT : this.files.lookup(parent.upper, name)
    if (below === undefined || fd < 0) return undefined
    const isMerged = this.#lower.look(below) === TYPE.DIRECTORY && !isOpaque(fd)
    const origin = this.files.stat.type !== TYPE.DIRECTORY ? originOf(fd) : isMerged ? below : undefined
    closeFd(fd)
    return origin
  }

  #foundUpper(parent: OverlayNode, name: Uint8Array, fd: number): OverlayNode | undefined {
    const { stat } = this.files
    const known = this.#byUpper.get(stat.key)
    if (known?.upper !== undefined) {
      this.files.again(known.upper, fd)
      return known
    }
    if (isWhiteout(stat)) {
      closeFd(fd)
      return undefined
    }
    const { type } = stat
    const upper = this.files.adopt(fd)
    if (type !== TYPE.DIRECTORY) return this.#add(parent, name, { type, upper, origin: originOf(fd) })
    const below = isOpaque(fd) ? undefined : this.lowerOf(parent, name)
    const lower = below !== undefined && this.#lower.look(below) === TYPE.DIRECTORY ? below : undefined
    const copied = lower === undefined ? undefined : this.#byLower.get(lower)
    if (copied === undefined) return this.#add(parent, name, { type, upper, lower, origin: lower })
    this.setUpper(copied, upper) // it was copied behind our back
    return copied
  }

  #add(parent: OverlayNode, name: Uint8Array, more: Partial<OverlayNode> & { type: number }): OverlayNode {
    const node: OverlayNode = { ...blank(++this.#last, more.type), ...more, parent, name: Buffer.from(name) }
    this.#enter(node)
    this.#fresh.add(node)
    return node
  }

  #enter(node: OverlayNode): void {
    if (node.parent !== undefined) node.parent.children++
    this.#byId.set(node.id, node)
    if (node.upper !== undefined) this.#byUpper.set(node.upper.key, node)
    if (node.lower !== undefined) this.#byLower.set(node.lower, node)
  }

  /** It has been copied: from now on it is the upper file. */
  setUpper(node: OverlayNode, upper: HostFile): void {
    node.upper = upper
    node.placing = undefined
    this.#byUpper.set(upper.key, node)
    if (node.type !== TYPE.DIRECTORY && node.lower !== undefined) {
      this.#byLower.delete(node.lower)
      node.lower = undefined
    }
    this.#written.changed(node)
    this.#fresh.add(node)
  }

  moved(node: OverlayNode, parent: OverlayNode, name: Uint8Array): void {
    const before = node.parent
    parent.children++
    node.parent = parent
    node.name = Buffer.from(name)
    if (before === undefined) return
    before.children--
    this.#dropUnused(before)
  }

  /** A name of an image's file was removed. */
  removedName(node: OverlayNode): void {
    if (node.lower === undefined) return
    const removed = (this.#removedLinks.get(node.lower) ?? 0) + 1
    this.#removedLinks.set(node.lower, removed)
    if (this.#lower.look(node.lower) === TYPE.DIRECTORY || removed >= this.#lower.of.nlink) node.isGone = true
    this.#written.counted(node)
    this.#fresh.add(node)
  }

  /** An entry for the kernel, which counts as a lookup. */
  entry(node: OverlayNode, reply: FileReply): number {
    const failed = this.describe(node)
    if (failed < 0) return failed
    this.#tell(node)
    return reply.entry(entryOf(this.#slot, node.id, BELIEVED_SECONDS), this.#attributes)
  }

  /** The answer to GETATTR. */
  attributes(node: OverlayNode, reply: FileReply): number {
    const failed = this.describe(node)
    return failed < 0 ? failed : reply.attributes(BELIEVED_SECONDS, this.#attributes)
  }

  /** An entry in a listing, which counts as a lookup. */
  listed(node: OverlayNode): { answer: EntryAnswer; attributes: WireAttributes } | undefined {
    if (this.describe(node) < 0) return undefined
    this.#tell(node)
    return { answer: entryOf(this.#slot, node.id, BELIEVED_SECONDS), attributes: this.#attributes }
  }

  #tell(node: OverlayNode): void {
    node.lookups++
    this.#written.told(node)
  }

  /** Notes the attributes that the kernel is to be told; 0 or minus an errno. */
  describe(node: OverlayNode): number {
    const attributes = this.#attributes
    if (node.upper !== undefined) {
      const failed = this.files.look(node.upper)
      if (failed < 0) return failed
      attributes.fromHost(this.files.stat)
      // subdirectories of a merged directory are in two places, and 1 tells programs not to count on the number
      if (node.type === TYPE.DIRECTORY && node.lower !== undefined) attributes.nlink(1)
    } else if (node.lower !== undefined) {
      this.#lower.look(node.lower)
      const removed = this.#removedLinks.get(node.lower) ?? 0
      this.#lower.describe(attributes, node.isGone ? 0 : Math.max(1, this.#lower.of.nlink - removed))
    } else return -ERRNO.ESTALE
    const [low, high] = this.number(node)
    attributes.number(low, high)
    return 0
  }

  /** The number that users see, in two words. Of an upper file, its attributes must stand in the files' stat. */
  number(node: OverlayNode): [low: number, high: number] {
    if (node.origin !== undefined) return this.lowerNumber(node.origin)
    const { stat } = this.files
    return this.#numbers.words(stat.device, stat.inoLow, stat.inoHigh)
  }

  lowerNumber(ino: Ino): [low: number, high: number] {
    return this.#numbers.words(LOWER_DEVICE, ino % 2 ** 32, Math.floor(ino / 2 ** 32))
  }

  upperNumber(low: number, high: number): [low: number, high: number] {
    return this.#numbers.words(this.files.root.device, low, high)
  }

  forget(id: number, lookups: number): void {
    const node = this.#byId.get(id)
    if (node === undefined || node === this.root) return
    node.lookups -= lookups
    this.#dropUnused(node)
  }

  /** Between two requests: what was found on the way and not told to the kernel goes. */
  rest(): void {
    for (const node of this.#fresh) {
      this.#fresh.delete(node)
      this.#dropUnused(node)
    }
    this.files.trim()
  }

  end(): void {
    for (const node of this.#byId.values()) this.#onDrop(node)
    this.#byId.clear()
    this.files.end()
  }

  /** Its record is the only place that outlives this process where the names are counted which the image's file has left. */
  #isCounted({ lower, isGone, type }: OverlayNode): boolean {
    return lower !== undefined && !isGone && type !== TYPE.DIRECTORY && (this.#removedLinks.get(lower) ?? 0) > 0
  }

  #dropUnused(node: OverlayNode): void {
    if (node === this.root || node.lookups > 0 || node.children > 0 || node.copying !== undefined) return
    if (this.#isCounted(node)) return
    if (!this.#byId.delete(node.id)) return
    this.#fresh.delete(node)
    if (node.lower !== undefined && this.#byLower.get(node.lower) === node) this.#byLower.delete(node.lower)
    if (node.upper !== undefined) {
      if (this.#byUpper.get(node.upper.key) === node) this.#byUpper.delete(node.upper.key)
      this.files.close(node.upper)
    }
    this.#onDrop(node)
    this.#written.gone(node)
    const { parent } = node
    if (parent === undefined) return
    parent.children--
    this.#dropUnused(parent)
  }
}
