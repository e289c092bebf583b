import {
  actingAs,
  cName,
  closeFd,
  COPY_IN,
  CREATE_IN,
  ERRNO,
  FILE_OPCODE,
  type FileReply,
  type FileRequest,
  O,
  OPCODE,
  OPEN_IN,
  openAt,
  O_TMPFILE,
  reopen,
  statFd,
  TYPE,
} from '../../kernel/index.ts'
import type { FilesJournal } from './files-journal.ts'
import { HostListing } from './host-listing.ts'
import type { HostNode, HostNodes } from './host-nodes.ts'
import {
  allocateOpen,
  copyOpen,
  handleOf,
  hostFlags,
  lateName,
  OpenFiles,
  readOpen,
  seekOpen,
  syncOpen,
  writeOpen,
} from './open-files.ts'

/** The open files and directories of one shared directory. */
export class HostOpen {
  readonly #nodes: HostNodes
  readonly #open = new OpenFiles<HostNode, HostListing>()
  readonly #askAgain: (node: number) => void

  /** `askAgain` makes the kernel forget the attributes of a node. */
  constructor(nodes: HostNodes, askAgain: (node: number) => void) {
    this.#nodes = nodes
    this.#askAgain = askAgain
  }

  keepIn(journal: FilesJournal | undefined): void {
    this.#open.keepIn(journal)
  }

  /** Opens again what another process had open, as far as it still is there. */
  resume(journal: FilesJournal | undefined): void {
    this.#open.resume(journal, (id, flags) => {
      const node = this.#nodes.get(id)
      const path = node === undefined ? -1 : this.#nodes.files.fd(node.file)
      const fd = path < 0 ? path : reopen(path, hostFlags(flags))
      if (node === undefined || fd < 0) return undefined
      return node.file.type === TYPE.DIRECTORY ? { node, fd, flags, listing: new HostListing(fd) } : { node, fd, flags }
    })
  }

  write(to: FilesJournal): void {
    this.#open.write(to)
  }

  /** The descriptor of a handle. */
  fd(handle: number): number | undefined {
    return this.#open.get(handle)?.fd
  }

  end(): void {
    this.#open.end()
  }

  /** Answers what works with open files; undefined when the request is something else. */
  answer(node: HostNode, request: FileRequest, reply: FileReply): number | undefined {
    switch (request.opcode) {
      case OPCODE.READ:
        return this.#withOpen(node, request, O.RDONLY, (fd) => readOpen(fd, request, reply))
      case FILE_OPCODE.WRITE:
        return this.#withOpen(node, request, O.WRONLY, (fd) => writeOpen(fd, request, reply))
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
        return this.#withOpen(node, request, O.RDONLY, (fd) => syncOpen(fd, request))
      case FILE_OPCODE.FALLOCATE:
        return this.#withOpen(node, request, O.WRONLY, (fd) => allocateOpen(fd, request))
      case OPCODE.LSEEK:
        return this.#withOpen(node, request, O.RDONLY, (fd) => seekOpen(fd, request, reply))
      case FILE_OPCODE.COPY_FILE_RANGE:
        return this.#copy(request, reply)
      default:
        return undefined
    }
  }

  #openFile(node: HostNode, request: FileRequest, reply: FileReply): number {
    const flags = request.word(OPEN_IN.flags)
    if (node.file.type !== TYPE.FILE) return -ERRNO.EINVAL
    const again = this.#open.again(request)
    if (again !== undefined) return reply.opened(again, 0)
    const path = this.#nodes.files.fd(node.file)
    const fd = path < 0 ? path : reopen(path, hostFlags(flags))
    // whoever opens a file sees what the host has made of it by then
    if (fd >= 0 && statFd(fd, this.#nodes.files.stat) === 0 && this.#nodes.hasChanged(node)) this.#askAgain(node.id)
    return fd < 0 ? fd : reply.opened(this.#open.add({ node, fd, flags }, request), 0)
  }

  /** CREATE in a directory that `fd` names. `isMade`: it was made, and another process had no time to tell. */
  create(fd: number, request: FileRequest, reply: FileReply, isMade = false): number {
    const name = request.name(CREATE_IN.size)
    if (name === undefined) return -ERRNO.EINVAL
    const flags = request.word(CREATE_IN.flags)
    const mode = request.word(CREATE_IN.mode) & 0o7777
    if (isMade) {
      const again = openAt(fd, name, hostFlags(flags), 0)
      return again < 0 ? again : this.#created(again, request, reply)
    }
    const made = actingAs(request.uid, request.gid, () => openAt(fd, name, hostFlags(flags) | O.CREAT | O.EXCL, mode))
    return made < 0 ? lateName(made, flags) : this.#created(made, request, reply)
  }

  /** TMPFILE. */
  createUnnamed(fd: number, request: FileRequest, reply: FileReply): number {
    const flags = request.word(CREATE_IN.flags)
    const mode = request.word(CREATE_IN.mode) & 0o7777
    const excl = flags & O.EXCL
    const made = actingAs(request.uid, request.gid, () =>
      openAt(fd, cName('.'), hostFlags(flags) | O_TMPFILE | excl, mode),
    )
    return made < 0 ? made : this.#created(made, request, reply)
  }

  /** The answer to CREATE, of a file that is open. */
  #created(fd: number, request: FileRequest, reply: FileReply): number {
    const path = this.#nodes.files.lookupOpen(fd)
    if (path < 0) {
      closeFd(fd)
      return path
    }
    const node = this.#nodes.know(path)
    if (this.#nodes.files.stat.nlink === 0) this.#nodes.files.pin(node.file)
    const entry = reply.entry(this.#nodes.entryOf(node), this.#nodes.describe(node))
    const again = this.#open.again(request)
    if (again !== undefined) closeFd(fd)
    const flags = request.word(CREATE_IN.flags)
    return reply.opened(again ?? this.#open.add({ node, fd, flags }, request), 0, entry)
  }

  /** Works with the descriptor of the request's handle; a session without OPEN has none, then with one for this call only. */
  #withOpen(node: HostNode, request: FileRequest, flags: number, act: (fd: number) => number): number {
    const handle = handleOf(request)
    const open = this.#open.get(handle)
    if (open !== undefined) return act(open.fd)
    if (handle !== 0) return -ERRNO.EBADF
    if (node.file.type !== TYPE.FILE && node.file.type !== TYPE.DIRECTORY) return -ERRNO.EINVAL
    const path = this.#nodes.files.fd(node.file)
    const fd = path < 0 ? path : reopen(path, flags)
    if (fd < 0) return fd
    const result = act(fd)
    closeFd(fd)
    return result
  }

  #copy(request: FileRequest, reply: FileReply): number {
    const from = this.#open.get(request.number(COPY_IN.handle))
    const to = this.#open.get(request.number(COPY_IN.toHandle))
    if (request.topAt(COPY_IN.toNode) !== request.nodeTop) return -ERRNO.EXDEV
    return from === undefined || to === undefined ? -ERRNO.EBADF : copyOpen(from.fd, to.fd, request, reply)
  }

  #openDirectory(node: HostNode, request: FileRequest, reply: FileReply): number {
    const again = this.#open.again(request)
    if (again !== undefined) return reply.opened(again, 0)
    const path = this.#nodes.files.fd(node.file)
    const fd = path < 0 ? path : reopen(path, O.RDONLY)
    if (fd < 0) return fd
    return reply.opened(this.#open.add({ node, fd, flags: O.RDONLY, listing: new HostListing(fd) }, request), 0)
  }

  #readDirectory(node: HostNode, request: FileRequest, reply: FileReply): number {
    const isPlus = request.opcode === OPCODE.READDIRPLUS
    return this.#withOpen(node, request, O.RDONLY, (fd) => {
      const listing = this.#open.get(handleOf(request))?.listing ?? new HostListing(fd)
      return listing.answer(request, reply, {
        isPlus,
        number: (low, high) => this.#nodes.number(node, low, high),
        entry: (name) => {
          const path = this.#nodes.files.lookup(node.file, name)
          if (path < 0) return undefined
          const child = this.#nodes.know(path)
          return { answer: this.#nodes.entryOf(child), attributes: this.#nodes.describe(child) }
        },
      })
    })
  }
}
