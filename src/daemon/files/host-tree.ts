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
  GETATTR_HANDLE,
  GETATTR_IN,
  type HostFile,
  HostFiles,
  LINK_IN,
  linkFd,
  makeDirectory,
  makeLink,
  makeNodeAt,
  MKDIR_IN,
  MKNOD_IN,
  O,
  OPCODE,
  OPEN_IN,
  openAt,
  O_TMPFILE,
  readLink,
  removeDirectory,
  removeFile,
  RENAME2_IN,
  RENAME_IN,
  renameAt,
  reopen,
  SET,
  SETATTR_IN,
  statFd,
  statFileSystem,
  TYPE,
  WireAttributes,
} from '../../kernel/index.ts'
import { setAttributes } from './attributes.ts'
import { entryOf, type FileServer, InodeNumbers, ROOT_NODE } from './file-server.ts'
import { HostListing } from './host-listing.ts'
import {
  allocateOpen,
  copyOpen,
  handleOf,
  hostFlags,
  OpenFiles,
  readOpen,
  seekOpen,
  syncOpen,
  writeOpen,
} from './open-files.ts'
import { getXattr, listXattrs, removeXattr, setXattr } from './xattrs.ts'

/** A file that the kernel knows. */
interface HostNode {
  readonly id: number
  readonly file: HostFile
  lookups: number
  /** Change time and size that the kernel was told last. */
  told: string
}

/** Seconds that the kernel may believe what it was told: the host's files change behind it. */
const BELIEVED_SECONDS = 5
const NOT_HIDDEN = (): boolean => false

/**
 * A directory of the host as a file system (passthrough): every file below it, with the host's own semantics. Who may do what is decided by the kernel that asks (`default_permissions`); this thread acts as
 * root, and what it creates belongs to the asker.
 */
export class HostTree implements FileServer {
  readonly #slot: number
  readonly #files: HostFiles
  readonly #numbers: InodeNumbers
  readonly #nodes = new Map<number, HostNode>()
  readonly #byKey = new Map<string, HostNode>()
  readonly #open = new OpenFiles<HostNode>()
  readonly #listings = new Map<number, HostListing>()
  readonly #attributes = new WireAttributes()
  readonly #askAgain: (node: number) => void
  #lastNode = ROOT_NODE

  /** `askAgain` makes the kernel forget the attributes of a node. Throws KernelError when the directory cannot be opened. */
  constructor(slot: number, directory: string, askAgain: (node: number) => void, limit?: number) {
    this.#slot = slot
    this.#askAgain = askAgain
    this.#files = new HostFiles(directory, limit)
    this.#numbers = new InodeNumbers(slot)
    const root: HostNode = { id: ROOT_NODE, file: this.#files.root, lookups: 1, told: '' }
    this.#nodes.set(root.id, root)
    this.#byKey.set(root.file.key, root)
  }

  /** Files that the kernel knows, and descriptors that are held for them. */
  get known(): { nodes: number; descriptors: number; open: number } {
    return { nodes: this.#nodes.size, descriptors: this.#files.descriptors, open: this.#open.count }
  }

  setOwnDevice(device: string): void {
    this.#files.ownDevice = device
  }

  prepare(): undefined {
    return undefined
  }

  end(): void {
    this.#open.end()
    this.#files.end()
  }

  forget(id: number, lookups: number): void {
    const node = this.#nodes.get(id)
    if (node === undefined || node.id === ROOT_NODE) return
    node.lookups -= lookups
    if (node.lookups > 0) return
    this.#nodes.delete(id)
    if (this.#byKey.get(node.file.key) === node) this.#byKey.delete(node.file.key)
    this.#files.close(node.file)
  }

  answerRoot(reply: FileReply): number {
    const root = this.#nodes.get(ROOT_NODE) as HostNode // made by the constructor, never forgotten
    const failed = this.#files.look(root.file)
    if (failed < 0) return failed
    this.#describe(root)
    return reply.entry(entryOf(this.#slot, ROOT_NODE, BELIEVED_SECONDS), this.#attributes)
  }

  answer(request: FileRequest, reply: FileReply): number {
    this.#files.trim()
    const node = this.#nodes.get(request.node)
    if (node === undefined) return -ERRNO.ESTALE
    switch (request.opcode) {
      case OPCODE.READ:
        return this.#withOpen(node, request, O.RDONLY, (fd) => readOpen(fd, request, reply))
      case FILE_OPCODE.WRITE:
        return this.#withOpen(node, request, O.WRONLY, (fd) => writeOpen(fd, request, reply))
      case OPCODE.GETATTR:
        return this.#getattr(node, request, reply)
      case OPCODE.OPEN:
        return this.#openFile(node, request, reply)
      case OPCODE.OPENDIR:
        return this.#openDirectory(node, reply)
      case OPCODE.RELEASE:
        return this.#open.release(handleOf(request))
      case OPCODE.RELEASEDIR:
        this.#listings.delete(handleOf(request))
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
      case OPCODE.IOCTL:
        return -ERRNO.ENOTTY
      default:
        return this.#answerByNode(node, request, reply)
    }
  }

  #answerByNode(node: HostNode, request: FileRequest, reply: FileReply): number {
    const fd = this.#files.fd(node.file)
    if (fd < 0) return fd
    switch (request.opcode) {
      case OPCODE.READLINK: {
        return node.file.type === TYPE.LINK ? readLink(fd, reply.room(4096)) : -ERRNO.EINVAL
      }
      case OPCODE.STATFS: {
        const found = new Uint8Array(120)
        const failed = statFileSystem(fd, found)
        return failed < 0 ? failed : reply.statfs(found)
      }
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
        return this.#rename(directory, request, RENAME_IN.size, 0)
      case FILE_OPCODE.RENAME2:
        return this.#rename(directory, request, RENAME2_IN.size, request.word(RENAME2_IN.flags))
      case FILE_OPCODE.CREATE:
        return this.#create(directory, fd, request, reply)
      case FILE_OPCODE.TMPFILE:
        return this.#createUnnamed(fd, request, reply)
      default:
        return -ERRNO.ENOSYS
    }
  }

  /** The node of the file whose attributes stand in the store's stat, known once more. Takes over the descriptor. */
  #know(fd: number): HostNode {
    const known = this.#byKey.get(this.#files.stat.key)
    if (known !== undefined && known.file.type === this.#files.stat.type) {
      this.#files.again(known.file, fd)
      known.lookups++
      return known
    }
    const node: HostNode = { id: ++this.#lastNode, file: this.#files.adopt(fd), lookups: 1, told: '' }
    this.#nodes.set(node.id, node)
    this.#byKey.set(node.file.key, node)
    return node
  }

  /** Writes the attributes that stand in the store's stat. */
  #describe(node: HostNode): void {
    const { stat } = this.#files
    node.told = stat.version
    this.#attributes.fromHost(stat)
    this.#numbers.fill(this.#attributes, stat.device, stat.inoLow, stat.inoHigh)
  }

  #entry(fd: number, reply: FileReply): number {
    if (fd < 0) return fd
    const node = this.#know(fd)
    this.#describe(node)
    return reply.entry(entryOf(this.#slot, node.id, BELIEVED_SECONDS), this.#attributes)
  }

  #lookup(directory: HostNode, request: FileRequest, reply: FileReply): number {
    const name = request.name(0)
    if (name !== undefined) return this.#entry(this.#files.lookup(directory.file, name), reply)
    // "." comes from NFS servers; ".." would need a way up, which there is none of
    return Buffer.from(request.text(0)).toString() === '.\0' ? this.#again(directory, reply) : -ERRNO.ESTALE
  }

  /** An entry of a node that is known. */
  #again(node: HostNode, reply: FileReply): number {
    const failed = this.#files.look(node.file)
    if (failed < 0) return failed
    node.lookups++
    this.#describe(node)
    return reply.entry(entryOf(this.#slot, node.id, BELIEVED_SECONDS), this.#attributes)
  }

  #made(
    directory: HostNode,
    name: Uint8Array | undefined,
    reply: FileReply,
    make: (name: Uint8Array) => number,
  ): number {
    if (name === undefined) return -ERRNO.EINVAL
    const failed = make(name)
    return failed < 0 ? failed : this.#entry(this.#files.lookup(directory.file, name), reply)
  }

  #link(fd: number, request: FileRequest, reply: FileReply): number {
    const name = request.name(LINK_IN.size)
    const node = this.#nodes.get(request.nodeAt(LINK_IN.node))
    if (name === undefined || node === undefined) return name === undefined ? -ERRNO.EINVAL : -ERRNO.ESTALE
    const from = this.#files.fd(node.file)
    const failed = from < 0 ? from : linkFd(from, fd, name)
    return failed < 0 ? failed : this.#again(node, reply)
  }

  /** A file that somebody may have open is kept reachable, whatever becomes of its names. */
  #keep(directory: HostFile, name: Uint8Array): void {
    const fd = this.#files.lookup(directory, name)
    if (fd < 0) return
    const known = this.#byKey.get(this.#files.stat.key)
    closeFd(fd)
    if (known !== undefined && (known.file.type === TYPE.DIRECTORY || this.#files.stat.nlink < 2))
      this.#files.pin(known.file)
  }

  #remove(directory: HostFile, name: Uint8Array | undefined, remove: (name: Uint8Array) => number): number {
    if (name === undefined) return -ERRNO.EINVAL
    this.#keep(directory, name)
    return remove(name)
  }

  #rename(directory: HostNode, request: FileRequest, at: number, flags: number): number {
    const name = request.name(at)
    const newName = name === undefined ? undefined : request.name(at + name.length)
    const to = this.#nodes.get(request.nodeAt(RENAME_IN.directory))
    if (name === undefined || newName === undefined) return -ERRNO.EINVAL
    if (to === undefined) return -ERRNO.ESTALE
    const [fd, toFd] = [this.#files.fd(directory.file), this.#files.fd(to.file)]
    if (fd < 0 || toFd < 0) return Math.min(fd, toFd)
    this.#keep(to.file, newName)
    return renameAt(fd, name, toFd, newName, flags)
  }

  #getattr(node: HostNode, request: FileRequest, reply: FileReply): number {
    const usesHandle = (request.word(GETATTR_IN.flags) & GETATTR_HANDLE) !== 0
    const open = usesHandle ? this.#open.get(request.number(GETATTR_IN.handle)) : undefined
    return this.#answerAttributes(
      node,
      open === undefined ? this.#files.look(node.file) : statFd(open.fd, this.#files.stat),
      reply,
    )
  }

  #answerAttributes(node: HostNode, failed: number, reply: FileReply): number {
    if (failed < 0) return failed
    this.#describe(node)
    return reply.attributes(BELIEVED_SECONDS, this.#attributes)
  }

  #setattr(node: HostNode, fd: number, request: FileRequest, reply: FileReply): number {
    const usesHandle = (request.word(SETATTR_IN.valid) & SET.HANDLE) !== 0
    const open = usesHandle ? this.#open.get(request.number(SETATTR_IN.handle))?.fd : undefined
    if ((request.word(SETATTR_IN.valid) & SET.SIZE) !== 0 && node.file.type !== TYPE.FILE) return -ERRNO.EINVAL
    const failed = setAttributes(request, fd, node.file.type, open)
    return failed < 0 ? failed : this.#answerAttributes(node, this.#files.look(node.file), reply)
  }

  #openFile(node: HostNode, request: FileRequest, reply: FileReply): number {
    const flags = request.word(OPEN_IN.flags)
    if (node.file.type !== TYPE.FILE) return -ERRNO.EINVAL
    const path = this.#files.fd(node.file)
    const fd = path < 0 ? path : reopen(path, hostFlags(flags))
    // whoever opens a file sees what the host has made of it by then
    if (fd >= 0 && statFd(fd, this.#files.stat) === 0 && this.#files.stat.version !== node.told) this.#askAgain(node.id)
    return fd < 0 ? fd : reply.opened(this.#open.add({ node, fd, flags }), 0)
  }

  #create(directory: HostNode, fd: number, request: FileRequest, reply: FileReply): number {
    const name = request.name(CREATE_IN.size)
    if (name === undefined) return -ERRNO.EINVAL
    const flags = request.word(CREATE_IN.flags)
    const mode = request.word(CREATE_IN.mode) & 0o7777
    const made = actingAs(request.uid, request.gid, () => openAt(fd, name, hostFlags(flags) | O.CREAT | O.EXCL, mode))
    if (made >= 0) return this.#created(made, flags, reply)
    if (made !== -ERRNO.EEXIST || (flags & O.EXCL) !== 0) return made
    // somebody of the host was first
    const path = this.#files.lookup(directory.file, name)
    if (path < 0) return path
    const isFile = this.#files.stat.type === TYPE.FILE
    const opened = isFile ? reopen(path, hostFlags(flags)) : -ERRNO.EINVAL
    closeFd(path)
    return opened < 0 ? opened : this.#created(opened, flags, reply)
  }

  #createUnnamed(fd: number, request: FileRequest, reply: FileReply): number {
    const flags = request.word(CREATE_IN.flags)
    const mode = request.word(CREATE_IN.mode) & 0o7777
    const excl = flags & O.EXCL
    const made = actingAs(request.uid, request.gid, () =>
      openAt(fd, cName('.'), hostFlags(flags) | O_TMPFILE | excl, mode),
    )
    return made < 0 ? made : this.#created(made, flags, reply)
  }

  /** The answer to CREATE, of a file that is open. */
  #created(fd: number, flags: number, reply: FileReply): number {
    const path = this.#files.lookupOpen(fd)
    if (path < 0) {
      closeFd(fd)
      return path
    }
    const node = this.#know(path)
    if (this.#files.stat.nlink === 0) this.#files.pin(node.file)
    this.#describe(node)
    const entry = reply.entry(entryOf(this.#slot, node.id, BELIEVED_SECONDS), this.#attributes)
    return reply.opened(this.#open.add({ node, fd, flags }), 0, entry)
  }

  /** Works with the descriptor of the request's handle; a session without OPEN has none, then with one for this call only. */
  #withOpen(node: HostNode, request: FileRequest, flags: number, act: (fd: number) => number): number {
    const handle = handleOf(request)
    const open = this.#open.get(handle)
    if (open !== undefined) return act(open.fd)
    if (handle !== 0) return -ERRNO.EBADF
    if (node.file.type !== TYPE.FILE && node.file.type !== TYPE.DIRECTORY) return -ERRNO.EINVAL
    const path = this.#files.fd(node.file)
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

  #openDirectory(node: HostNode, reply: FileReply): number {
    const path = this.#files.fd(node.file)
    const fd = path < 0 ? path : reopen(path, O.RDONLY)
    if (fd < 0) return fd
    const handle = this.#open.add({ node, fd, flags: O.RDONLY })
    this.#listings.set(handle, new HostListing(fd))
    return reply.opened(handle, 0)
  }

  #readDirectory(node: HostNode, request: FileRequest, reply: FileReply): number {
    const isPlus = request.opcode === OPCODE.READDIRPLUS
    return this.#withOpen(node, request, O.RDONLY, (fd) => {
      const listing = this.#listings.get(handleOf(request)) ?? new HostListing(fd)
      return listing.answer(request, reply, {
        isPlus,
        number: (low, high) => this.#numbers.words(node.file.device, low, high),
        entry: (name) => {
          const path = this.#files.lookup(node.file, name)
          if (path < 0) return undefined
          const child = this.#know(path)
          this.#describe(child)
          return { answer: entryOf(this.#slot, child.id, BELIEVED_SECONDS), attributes: this.#attributes }
        },
      })
    })
  }
}
