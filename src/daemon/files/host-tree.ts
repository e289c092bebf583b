import {
  actingAs,
  ERRNO,
  FILE_OPCODE,
  type FileReply,
  type FileRequest,
  GETATTR_HANDLE,
  GETATTR_IN,
  type HostFile,
  type HostFiles,
  LINK_IN,
  linkFd,
  makeDirectory,
  makeLink,
  makeNodeAt,
  MKDIR_IN,
  MKNOD_IN,
  OPCODE,
  readLink,
  removeDirectory,
  removeFile,
  renameAt,
  SET,
  SETATTR_IN,
  statFd,
  TYPE,
} from '../../kernel/index.ts'
import { fileSystemOf, setAttributes } from './attributes.ts'
import type { FileServer } from './file-server.ts'
import { FilesJournal } from './files-journal.ts'
import { type HostNode, HostNodes } from './host-nodes.ts'
import { HostOpen } from './host-open.ts'
import { HostStanding } from './host-standing.ts'
import { isSelf, renameOf } from './names.ts'
import { MADE, NotedChanges } from './noted-changes.ts'
import { handleOf, writeOpen } from './open-files.ts'
import { getXattr, listXattrs, removeXattr, setXattr } from './xattrs.ts'

const NOT_HIDDEN = (): boolean => false

/**
 * A directory of the host as a file system (passthrough): every file below it, with the host's own semantics. Who may do what is decided by the kernel that asks (`default_permissions`); this thread acts as
 * root, and what it creates belongs to the asker.
 */
export class HostTree implements FileServer {
  readonly #nodes: HostNodes
  readonly #files: HostFiles
  readonly #open: HostOpen
  #journal: FilesJournal | undefined
  #changes: NotedChanges<HostNode> | undefined

  /** `askAgain` makes the kernel forget the attributes of a node. Throws KernelError when the directory cannot be opened. */
  constructor(slot: number, directory: string, askAgain: (node: number) => void) {
    this.#nodes = new HostNodes(slot, directory)
    this.#files = this.#nodes.files
    this.#open = new HostOpen(this.#nodes, askAgain)
  }

  /** Writes from now on what is in hand. Without a journal, or where it cannot be, the next process does not know it. */
  keep(journal: string | undefined): void {
    this.#journal = this.#openJournal(journal)
    this.#nodes.keepIn(this.#journal)
    this.#open.keepIn(this.#journal)
  }

  /** The same, and goes on with what another process had in hand. */
  resume(journal: string | undefined): void {
    this.#journal = this.#openJournal(journal)
    this.#nodes.resume(this.#journal)
    this.#open.resume(this.#journal)
  }

  #openJournal(name: string | undefined): FilesJournal | undefined {
    const journal =
      name === undefined
        ? undefined
        : FilesJournal.open(name, (to) => {
            this.#nodes.write(to)
            this.#open.write(to)
          })
    this.#changes =
      journal === undefined ? undefined : new NotedChanges(new HostStanding(this.#nodes, this.#open), journal)
    return journal
  }

  setOwnDevice(device: string): void {
    this.#files.ownDevice = device
  }

  prepare(): undefined {
    return undefined
  }

  leave(): void {
    this.#journal?.leave()
    this.end()
  }

  end(): void {
    this.#journal?.end()
    this.#open.end()
    this.#files.end()
  }

  forget(node: number, lookups: number): void {
    this.#nodes.forget(node, lookups)
  }

  answerRoot(reply: FileReply): number {
    return this.#nodes.again(this.#nodes.root, reply)
  }

  answer(request: FileRequest, reply: FileReply): number {
    this.#files.trim()
    const node = this.#nodes.get(request.node)
    if (node === undefined) return -ERRNO.ESTALE
    const changes = this.#changes
    if (changes === undefined || !changes.has(request)) return this.#answer(node, request, reply)
    return changes.answer(node, request, reply, {
      make: () => this.#answer(node, request, reply),
      tell: (result) => this.#answerMade(node, request, reply, result),
    })
  }

  /** The answer to a change that another process made, and perhaps did not tell, with what it came to there. */
  #answerMade(directory: HostNode, request: FileRequest, reply: FileReply, made: number): number {
    if (request.opcode === FILE_OPCODE.WRITE) {
      const fd = this.#open.fd(handleOf(request))
      return fd === undefined ? -ERRNO.EBADF : writeOpen(fd, request, reply, made)
    }
    const nameAt = MADE.get(request.opcode)
    if (nameAt === undefined) return 0
    if (request.opcode === FILE_OPCODE.CREATE) {
      const fd = this.#files.fd(directory.file)
      return fd < 0 ? fd : this.#open.create(fd, request, reply, true)
    }
    const name = request.name(nameAt)
    return name === undefined ? -ERRNO.EINVAL : this.#nodes.found(this.#files.lookup(directory.file, name), reply)
  }

  #answer(node: HostNode, request: FileRequest, reply: FileReply): number {
    switch (request.opcode) {
      case OPCODE.GETATTR:
        return this.#getattr(node, request, reply)
      case OPCODE.IOCTL:
        return -ERRNO.ENOTTY
      default:
        return this.#open.answer(node, request, reply) ?? this.#answerByNode(node, request, reply)
    }
  }

  #answerByNode(node: HostNode, request: FileRequest, reply: FileReply): number {
    const fd = this.#files.fd(node.file)
    if (fd < 0) return fd
    switch (request.opcode) {
      case OPCODE.READLINK: {
        return node.file.type === TYPE.LINK ? readLink(fd, reply.room(4096)) : -ERRNO.EINVAL
      }
      case OPCODE.STATFS:
        return fileSystemOf(fd, reply)
      case OPCODE.GETXATTR:
        return getXattr(fd, request, reply)
      case OPCODE.LISTXATTR:
        return listXattrs(fd, request, reply, NOT_HIDDEN)
      case FILE_OPCODE.SETXATTR:
        return setXattr(fd, request)
      case FILE_OPCODE.REMOVEXATTR:
        return removeXattr(fd, request)
      case FILE_OPCODE.SETATTR:
        return this.#setattr(node, fd, request, reply)
      default:
        return this.#answerByName(node, fd, request, reply)
    }
  }

  #answerByName(directory: HostNode, fd: number, request: FileRequest, reply: FileReply): number {
    const { uid, gid } = request
    switch (request.opcode) {
      case OPCODE.LOOKUP:
        return this.#lookup(directory, request, reply)
      case FILE_OPCODE.MKDIR:
        return this.#made(directory, request.name(MKDIR_IN.size), reply, (name) =>
          actingAs(uid, gid, () => makeDirectory(fd, name, request.word(MKDIR_IN.mode) & 0o7777)),
        )
      case FILE_OPCODE.MKNOD:
        return this.#made(directory, request.name(MKNOD_IN.size), reply, (name) =>
          actingAs(uid, gid, () => makeNodeAt(fd, name, request.word(MKNOD_IN.mode), request.word(MKNOD_IN.device))),
        )
      case FILE_OPCODE.SYMLINK: {
        return this.#made(directory, request.name(0), reply, (name) =>
          actingAs(uid, gid, () => makeLink(fd, name, request.text(name.length))),
        )
      }
      case FILE_OPCODE.LINK:
        return this.#link(fd, request, reply)
      case FILE_OPCODE.UNLINK:
        return this.#remove(directory.file, request.name(0), (name) => removeFile(fd, name))
      case FILE_OPCODE.RMDIR:
        return this.#remove(directory.file, request.name(0), (name) => removeDirectory(fd, name))
      case FILE_OPCODE.RENAME:
      case FILE_OPCODE.RENAME2:
        return this.#rename(directory, request)
      case FILE_OPCODE.CREATE:
        return this.#open.create(fd, request, reply)
      case FILE_OPCODE.TMPFILE:
        return this.#open.createUnnamed(fd, request, reply)
      default:
        return -ERRNO.ENOSYS
    }
  }

  #lookup(directory: HostNode, request: FileRequest, reply: FileReply): number {
    const name = request.name(0)
    if (name !== undefined) return this.#nodes.found(this.#files.lookup(directory.file, name), reply)
    return isSelf(request) ? this.#nodes.again(directory, reply) : -ERRNO.ESTALE
  }

  #made(
    directory: HostNode,
    name: Uint8Array | undefined,
    reply: FileReply,
    make: (name: Uint8Array) => number,
  ): number {
    if (name === undefined) return -ERRNO.EINVAL
    const failed = make(name)
    return failed < 0 ? failed : this.#nodes.found(this.#files.lookup(directory.file, name), reply)
  }

  #link(fd: number, request: FileRequest, reply: FileReply): number {
    const name = request.name(LINK_IN.size)
    const node = this.#nodes.get(request.nodeAt(LINK_IN.node))
    if (name === undefined || node === undefined) return name === undefined ? -ERRNO.EINVAL : -ERRNO.ESTALE
    const from = this.#files.fd(node.file)
    const failed = from < 0 ? from : linkFd(from, fd, name)
    return failed < 0 ? failed : this.#nodes.again(node, reply)
  }

  #remove(directory: HostFile, name: Uint8Array | undefined, remove: (name: Uint8Array) => number): number {
    if (name === undefined) return -ERRNO.EINVAL
    this.#nodes.keep(directory, name)
    return remove(name)
  }

  #rename(directory: HostNode, request: FileRequest): number {
    const move = renameOf(request)
    if (move === undefined) return -ERRNO.EINVAL
    const { name, newName, flags } = move
    const to = this.#nodes.get(move.to)
    if (to === undefined) return -ERRNO.ESTALE
    const [fd, toFd] = [this.#files.fd(directory.file), this.#files.fd(to.file)]
    if (fd < 0 || toFd < 0) return Math.min(fd, toFd)
    this.#nodes.keep(to.file, newName)
    return renameAt(fd, name, toFd, newName, flags)
  }

  #getattr(node: HostNode, request: FileRequest, reply: FileReply): number {
    const usesHandle = (request.word(GETATTR_IN.flags) & GETATTR_HANDLE) !== 0
    const open = usesHandle ? this.#open.fd(request.number(GETATTR_IN.handle)) : undefined
    return this.#nodes.attributes(
      node,
      open === undefined ? this.#files.look(node.file) : statFd(open, this.#files.stat),
      reply,
    )
  }

  #setattr(node: HostNode, fd: number, request: FileRequest, reply: FileReply): number {
    const usesHandle = (request.word(SETATTR_IN.valid) & SET.HANDLE) !== 0
    const open = usesHandle ? this.#open.fd(request.number(SETATTR_IN.handle)) : undefined
    if ((request.word(SETATTR_IN.valid) & SET.SIZE) !== 0 && node.file.type !== TYPE.FILE) return -ERRNO.EINVAL
    const failed = setAttributes(request, fd, node.file.type, open)
    return failed < 0 ? failed : this.#nodes.attributes(node, this.#files.look(node.file), reply)
  }
}
