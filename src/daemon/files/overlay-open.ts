import {
  closeFd,
  COPY_IN,
  CREATE_IN,
  ERRNO,
  FILE_OPCODE,
  type FileReply,
  type FileRequest,
  LSEEK_IN,
  O,
  OPCODE,
  OPEN_IN,
  OPENED,
  openAt,
  READ_IN,
  reopen,
  TYPE,
} from '../../kernel/index.ts'
import { ANSWERED_ELSEWHERE } from './file-server.ts'
import {
  allocateOpen,
  copyOpen,
  handleOf,
  hostFlags,
  lateName,
  type OpenFile,
  OpenFiles,
  readOpen,
  seekOpen,
  syncOpen,
  writeOpen,
} from './open-files.ts'
import type { FilesJournal } from './files-journal.ts'
import type { OverlayChanges } from './overlay-changes.ts'
import type { OverlayCopy } from './overlay-copy.ts'
import { mergedNames, OverlayListing } from './overlay-listing.ts'
import type { OverlayLower } from './overlay-lower.ts'
import type { OverlayNode } from './overlay-node.ts'
import type { OverlayNodes } from './overlay-nodes.ts'

/** A read of the image's data that must be fetched. */
export type ReadLater = (read: { ino: number; offset: number; count: number; low: number; high: number }) => void

/** The open files and directories of one overlay. A file of the image is open without a descriptor; it gets one when it has been copied. */
export class OverlayOpen {
  readonly #nodes: OverlayNodes
  readonly #lower: OverlayLower
  readonly #copy: OverlayCopy
  readonly #changes: OverlayChanges
  readonly #readLater: ReadLater
  readonly #onRead: (bytes: number) => void
  readonly #open = new OpenFiles<OverlayNode, OverlayListing>()

  constructor(parts: {
    readonly nodes: OverlayNodes
    readonly lower: OverlayLower
    readonly copy: OverlayCopy
    readonly changes: OverlayChanges
    readonly readLater: ReadLater
    readonly onRead: (bytes: number) => void
  }) {
    this.#nodes = parts.nodes
    this.#lower = parts.lower
    this.#copy = parts.copy
    this.#changes = parts.changes
    this.#readLater = parts.readLater
    this.#onRead = parts.onRead
  }

  keepIn(journal: FilesJournal | undefined): void {
    this.#open.keepIn(journal)
  }

  /** Opens again what another process had open, as far as it still is there. */
  resume(journal: FilesJournal): void {
    this.#open.resume(journal, (id, flags) => {
      const node = this.#nodes.get(id)
      if (node?.type === TYPE.DIRECTORY) return { node, fd: -1, flags, listing: new OverlayListing() }
      if (node === undefined) return undefined
      const file: OpenFile<OverlayNode, OverlayListing> = { node, fd: -1, flags }
      return this.#reach(file) < 0 ? undefined : file
    })
  }

  write(to: FilesJournal): void {
    this.#open.write(to)
  }

  /** The descriptor of a handle, if it has one. */
  fd(handle: number): number | undefined {
    const fd = this.#open.get(handle)?.fd
    return fd === undefined || fd < 0 ? undefined : fd
  }

  end(): void {
    this.#open.end()
  }

  /** Answers what works with open files; undefined when the request is something else. */
  answer(node: OverlayNode, request: FileRequest, reply: FileReply): number | undefined {
    switch (request.opcode) {
      case OPCODE.READ:
        return this.#read(node, request, reply)
      case FILE_OPCODE.WRITE:
        return this.#withUpper(node, request, (fd) => writeOpen(fd, request, reply))
      case FILE_OPCODE.FALLOCATE:
        return this.#withUpper(node, request, (fd) => allocateOpen(fd, request))
      case OPCODE.OPEN:
        return this.#openFile(node, request, reply)
      case OPCODE.OPENDIR:
        return this.#openDirectory(node, request, reply)
      case OPCODE.RELEASE:
      case OPCODE.RELEASEDIR:
        return this.#open.release(handleOf(request))
      case OPCODE.READDIR:
      case OPCODE.READDIRPLUS:
        return this.#readDirectory(node, request, reply)
      case OPCODE.FLUSH:
        return 0
      case FILE_OPCODE.FSYNC:
      case FILE_OPCODE.FSYNCDIR:
        return this.#sync(node, request)
      case OPCODE.LSEEK:
        return this.#seek(node, request, reply)
      case FILE_OPCODE.COPY_FILE_RANGE:
        return this.#copyRange(request, reply)
      default:
        return undefined
    }
  }

  #openFile(node: OverlayNode, request: FileRequest, reply: FileReply): number {
    if (node.type !== TYPE.FILE) return -ERRNO.EINVAL
    const again = this.#open.again(request)
    if (again !== undefined) return reply.opened(again, OPENED.KEEP_CACHE)
    const flags = request.word(OPEN_IN.flags)
    const file: OpenFile<OverlayNode, OverlayListing> = { node, fd: -1, flags }
    const failed = this.#reach(file)
    return failed < 0 ? failed : reply.opened(this.#open.add(file, request), OPENED.KEEP_CACHE)
  }

  /** Opens the upper file, once there is one. 0 or minus an errno. */
  #reach(file: OpenFile<OverlayNode, OverlayListing>): number {
    if (file.fd >= 0 || file.node.upper === undefined) return 0
    const path = this.#nodes.files.fd(file.node.upper)
    const fd = path < 0 ? path : reopen(path, hostFlags(file.flags))
    if (fd < 0) return fd
    file.fd = fd
    return 0
  }

  /** CREATE. */
  create(parent: OverlayNode, request: FileRequest, reply: FileReply): number {
    const name = request.name(CREATE_IN.size)
    if (name === undefined) return -ERRNO.EINVAL
    const flags = request.word(CREATE_IN.flags)
    const mode = request.word(CREATE_IN.mode) & 0o7777
    let opened = -1
    const made = this.#changes.make(parent, name, request, (directory, at) => {
      opened = openAt(directory, at, hostFlags(flags) | O.CREAT | O.EXCL, mode)
      return opened
    })
    if (made < 0) return lateName(made, flags)
    const answered = this.#created(parent, name, opened, request, reply)
    if (answered < 0) closeFd(opened)
    return answered
  }

  /** The answer to a CREATE whose file another process made, and perhaps did not tell. */
  createAgain(parent: OverlayNode, request: FileRequest, reply: FileReply): number {
    const name = request.name(CREATE_IN.size)
    return name === undefined ? -ERRNO.EINVAL : this.#created(parent, name, -1, request, reply)
  }

  /** The answer to CREATE; `opened` = -1: the file is not open yet. */
  #created(parent: OverlayNode, name: Uint8Array, opened: number, request: FileRequest, reply: FileReply): number {
    const node = this.#nodes.find(parent, name)
    if (typeof node !== 'object') return node ?? -ERRNO.ENOENT
    if (node.type !== TYPE.FILE) return -ERRNO.EINVAL
    const entry = this.#nodes.entry(node, reply)
    if (entry < 0) return entry
    const again = opened < 0 ? this.#open.again(request) : undefined
    if (again !== undefined) return reply.opened(again, OPENED.KEEP_CACHE, entry)
    const file = { node, fd: opened, flags: request.word(CREATE_IN.flags) }
    const failed = this.#reach(file)
    return failed < 0 ? failed : reply.opened(this.#open.add(file, request), OPENED.KEEP_CACHE, entry)
  }

  #read(node: OverlayNode, request: FileRequest, reply: FileReply): number {
    if (node.upper !== undefined) return this.#withOpen(node, request, O.RDONLY, (fd) => readOpen(fd, request, reply))
    if (node.lower === undefined) return -ERRNO.ESTALE
    const offset = request.number(READ_IN.offset)
    const count = reply.room(request.word(READ_IN.count)).length
    const bytes = this.#lower.read(node.lower, offset, count, reply.bodyAddress)
    if (bytes !== undefined) {
      this.#onRead(bytes)
      return bytes
    }
    this.#readLater({ ino: node.lower, offset, count, low: request.uniqueLow, high: request.uniqueHigh })
    return ANSWERED_ELSEWHERE
  }

  #withUpper(node: OverlayNode, request: FileRequest, act: (fd: number) => number): number {
    const raised = this.#copy.raise(node)
    return raised < 0 ? raised : this.#withOpen(node, request, O.WRONLY, act)
  }

  /** Works with the open file of the request's handle; where the session has no handles, with the node's, opened for this call. */
  #withOpen(node: OverlayNode, request: FileRequest, flags: number, act: (fd: number) => number): number {
    const handle = handleOf(request)
    const file = this.#open.get(handle)
    if (file === undefined && handle !== 0) return -ERRNO.EBADF
    const used = file ?? { node, fd: -1, flags }
    const failed = this.#reach(used)
    if (failed < 0) return failed
    const result = act(used.fd)
    if (file === undefined) closeFd(used.fd)
    return result
  }

  #sync(node: OverlayNode, request: FileRequest): number {
    return node.upper === undefined ? 0 : this.#withOpen(node, request, O.RDONLY, (fd) => syncOpen(fd, request))
  }

  #seek(node: OverlayNode, request: FileRequest, reply: FileReply): number {
    if (node.upper !== undefined) return this.#withOpen(node, request, O.RDONLY, (fd) => seekOpen(fd, request, reply))
    if (node.lower === undefined) return -ERRNO.ESTALE
    this.#lower.look(node.lower)
    const { size } = this.#lower.of
    const offset = request.number(LSEEK_IN.offset)
    if (offset >= size) return -ERRNO.ENXIO
    return reply.offset(request.word(LSEEK_IN.whence) === SEEK_DATA ? offset : size)
  }

  /** From a file of the image the kernel copies by reading. */
  #copyRange(request: FileRequest, reply: FileReply): number {
    const from = this.#open.get(request.number(COPY_IN.handle))
    const to = this.#open.get(request.number(COPY_IN.toHandle))
    if (from === undefined || to === undefined) return -ERRNO.EBADF
    if (request.topAt(COPY_IN.toNode) !== request.nodeTop || from.node.upper === undefined) return -ERRNO.EXDEV
    const raised = this.#copy.raise(to.node)
    const failed = raised < 0 ? raised : Math.min(this.#reach(from), this.#reach(to))
    return failed < 0 ? failed : copyOpen(from.fd, to.fd, request, reply)
  }

  #openDirectory(node: OverlayNode, request: FileRequest, reply: FileReply): number {
    const listing = new OverlayListing()
    const again = this.#open.again(request)
    return reply.opened(again ?? this.#open.add({ node, fd: -1, flags: O.RDONLY, listing }, request), 0)
  }

  #readDirectory(node: OverlayNode, request: FileRequest, reply: FileReply): number {
    const described = this.#nodes.describe(node)
    if (described < 0) return described
    const listing = this.#open.get(handleOf(request))?.listing ?? new OverlayListing()
    return listing.answer(request, reply, {
      isPlus: request.opcode === OPCODE.READDIRPLUS,
      self: this.#nodes.number(node),
      read: () => mergedNames(this.#nodes, this.#lower, node),
      look: (name) => {
        const found = this.#nodes.find(node, name)
        return typeof found === 'object' ? this.#nodes.listed(found) : undefined
      },
    })
  }
}

const SEEK_DATA = 3
