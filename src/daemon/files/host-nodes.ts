import { closeFd, type FileReply, type HostFile, HostFiles, TYPE, WireAttributes } from '../../kernel/index.ts'
import type { FilesJournal } from './files-journal.ts'
import { entryOf, InodeNumbers, ROOT_NODE } from './file-server.ts'

/** A file that the kernel knows. */
export interface HostNode {
  readonly id: number
  readonly file: HostFile
  lookups: number
  /** Change time and size that the kernel was told last. */
  told: string
  /** By which another process finds it; undefined on file systems that have none, or another one than the directory's. */
  readonly handle: Uint8Array | undefined
}

/** Seconds that the kernel may believe what it was told: the host's files change behind it. */
const BELIEVED_SECONDS = 5

/** Numbers of nodes after a takeover begin at the time in these: no process has given so many. */
const NODES_A_MILLISECOND = 4096

/** The nodes of one shared directory, found by what they are: all names of a file lead to one node. */
export class HostNodes {
  readonly files: HostFiles
  readonly root: HostNode
  readonly #slot: number
  readonly #numbers: InodeNumbers
  readonly #byId = new Map<number, HostNode>()
  readonly #byKey = new Map<string, HostNode>()
  readonly #attributes = new WireAttributes()
  #journal: FilesJournal | undefined
  #last = ROOT_NODE

  /** Throws KernelError when the directory cannot be opened. */
  constructor(slot: number, directory: string) {
    this.#slot = slot
    this.files = new HostFiles(directory)
    this.#numbers = new InodeNumbers(slot)
    this.root = { id: ROOT_NODE, file: this.files.root, lookups: 1, told: '', handle: undefined }
    this.#byId.set(this.root.id, this.root)
    this.#byKey.set(this.root.file.key, this.root)
  }

  /**
   * Goes on from what another process had in hand: its nodes have their numbers again, and stay, since nobody knows how often the kernel was told of them. Numbers that were lost are not given to others.
   */
  resume(journal: FilesJournal | undefined): void {
    this.#journal = journal
    this.#last = Math.max(this.#last, Date.now() * NODES_A_MILLISECOND)
    for (const [id, handle] of journal?.before.nodes ?? []) {
      this.#last = Math.max(this.#last, id) // the clock may have been set back
      const fd = this.files.openHandle(handle)
      if (fd < 0) continue // it is gone
      const known = this.#byKey.get(this.files.stat.key)
      const file = known?.file ?? this.files.adopt(fd)
      if (known !== undefined) closeFd(fd)
      this.files.trim() // or there are no descriptors for the last ones
      this.#enter({ id, file, lookups: Number.POSITIVE_INFINITY, told: '', handle })
    }
  }

  /** From now on what is in hand is written there. */
  keepIn(journal: FilesJournal | undefined): void {
    this.#journal = journal
  }

  /** Writes all that is in hand. */
  write(to: FilesJournal): void {
    for (const { id, handle } of this.#byId.values()) if (handle !== undefined) to.node(id, handle)
  }

  #enter(node: HostNode): void {
    this.#byId.set(node.id, node)
    this.#byKey.set(node.file.key, node)
  }

  get(id: number): HostNode | undefined {
    return this.#byId.get(id)
  }

  forget(id: number, lookups: number): void {
    const node = this.#byId.get(id)
    if (node === undefined || node === this.root) return
    node.lookups -= lookups
    if (node.lookups > 0) return
    this.#byId.delete(id)
    if (node.handle !== undefined) this.#journal?.forgotten(id)
    if (this.#byKey.get(node.file.key) === node) this.#byKey.delete(node.file.key)
    this.files.close(node.file)
  }

  /** The node of the file whose attributes stand in the files' stat, known once more. Takes over the descriptor. */
  know(fd: number): HostNode {
    const { stat } = this.files
    const known = this.#byKey.get(stat.key)
    if (known !== undefined && known.file.type === stat.type) {
      this.files.again(known.file, fd)
      known.lookups++
      return known
    }
    const handle = this.#journal === undefined ? undefined : this.files.handleOf(fd)
    const node: HostNode = { id: ++this.#last, file: this.files.adopt(fd), lookups: 1, told: '', handle }
    this.#enter(node)
    if (handle !== undefined) this.#journal?.node(node.id, handle)
    return node
  }

  /** The attributes that stand in the files' stat, as the kernel is told them; valid until the next call. */
  describe(node: HostNode): WireAttributes {
    const { stat } = this.files
    node.told = stat.version
    this.#attributes.fromHost(stat)
    this.#numbers.fill(this.#attributes, stat.device, stat.inoLow, stat.inoHigh)
    return this.#attributes
  }

  /** Does the file look otherwise than the kernel was told? Its attributes stand in the files' stat. */
  hasChanged(node: HostNode): boolean {
    return this.files.stat.version !== node.told
  }

  /** The number that users see, of a file on the device of `beside`. */
  number(beside: HostNode, low: number, high: number): [low: number, high: number] {
    return this.#numbers.words(beside.file.device, low, high)
  }

  entryOf(node: HostNode): ReturnType<typeof entryOf> {
    return entryOf(this.#slot, node.id, BELIEVED_SECONDS)
  }

  /** An entry of the file that a lookup found: its descriptor, or minus an errno. */
  found(fd: number, reply: FileReply): number {
    if (fd < 0) return fd
    const node = this.know(fd)
    return reply.entry(this.entryOf(node), this.describe(node))
  }

  /** An entry of a node that is known. */
  again(node: HostNode, reply: FileReply): number {
    const failed = this.files.look(node.file)
    if (failed < 0) return failed
    node.lookups++
    return reply.entry(this.entryOf(node), this.describe(node))
  }

  /** The answer to GETATTR after the files' stat was filled, or what that failed with. */
  attributes(node: HostNode, looked: number, reply: FileReply): number {
    return looked < 0 ? looked : reply.attributes(BELIEVED_SECONDS, this.describe(node))
  }

  /** A file that somebody may have open is kept reachable, whatever becomes of its names. */
  keep(directory: HostFile, name: Uint8Array): void {
    const fd = this.files.lookup(directory, name)
    if (fd < 0) return
    const known = this.#byKey.get(this.files.stat.key)
    closeFd(fd)
    if (known !== undefined && (known.file.type === TYPE.DIRECTORY || this.files.stat.nlink < 2))
      this.files.pin(known.file)
  }
}
