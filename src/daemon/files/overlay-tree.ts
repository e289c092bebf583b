import {
  closeFd,
  COPY_IN,
  CREATE_IN,
  ERRNO,
  FILE_OPCODE,
  type FileReply,
  type FileRequest,
  type HostFile,
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
  OPENED,
  openAt,
  READ_IN,
  readLink,
  RENAME2_IN,
  RENAME_IN,
  reopen,
  SET,
  SETATTR_IN,
  statFileSystem,
  TYPE,
  WireAttributes,
  XATTR_IN,
} from '../../kernel/index.ts'
import { setAttributes } from './attributes.ts'
import { ANSWERED_ELSEWHERE, entryOf, type FileServer } from './file-server.ts'
import {
  allocateOpen,
  copyOpen,
  handleOf,
  hostFlags,
  type OpenFile,
  OpenFiles,
  readOpen,
  seekOpen,
  syncOpen,
  writeOpen,
} from './open-files.ts'
import { OverlayChanges } from './overlay-changes.ts'
import { CopyError, type FetchLower, OverlayCopy } from './overlay-copy.ts'
import { mergedNames, OverlayListing } from './overlay-listing.ts'
import { type LowerImage, OverlayLower } from './overlay-lower.ts'
import { isPrivate } from './overlay-marks.ts'
import { type OverlayNode, OverlayNodes } from './overlay-nodes.ts'
import { OverlayWork } from './overlay-work.ts'
import { answerNames, getXattr, listXattrs, removeXattr, setXattr } from './xattrs.ts'

/** A read of the image's data that must be fetched. */
export type ReadLater = (read: { ino: number; offset: number; count: number; low: number; high: number }) => void

export interface OverlayParts {
  readonly slot: number
  readonly image: LowerImage
  readonly upper: string
  readonly work: string
  /** Gives data of the image for a copy. */
  readonly fetch: FetchLower
  /** Somebody else answers this read. */
  readonly readLater: ReadLater
  /** A read was answered from the image's cache. */
  readonly onRead: (bytes: number) => void
}

/** All changes go through this mount, so the kernel knows of them; the limit is for what people do in the upper directory by hand. */
const BELIEVED_SECONDS = 5

/**
 * An image that can be written to: what is changed is copied to an upper directory of the host first, in the form of overlayfs. Files of the image are read by the engine, those of the upper directory by their
 * descriptors.
 */
export class OverlayTree implements FileServer {
  readonly #parts: OverlayParts
  readonly #lower: OverlayLower
  readonly #work: OverlayWork
  readonly #nodes: OverlayNodes
  readonly #copy: OverlayCopy
  readonly #changes: OverlayChanges
  readonly #open = new OpenFiles<OverlayNode>()
  readonly #listings = new Map<number, OverlayListing>()
  readonly #attributes = new WireAttributes()

  /** Throws KernelError, RafsError, or an error of the file system. */
  constructor(parts: OverlayParts) {
    this.#parts = parts
    const { slot, upper } = parts
    const lower = new OverlayLower(parts.image)
    const work = new OverlayWork(parts.work, upper)
    try {
      this.#nodes = new OverlayNodes({
        slot,
        upper,
        lower,
        onDrop: ({ copy }) => (copy === undefined ? undefined : this.#copy.drop(copy)),
      })
    } catch (error) {
      work.end()
      throw error
    }
    this.#lower = lower
    this.#work = work
    this.#copy = new OverlayCopy({ nodes: this.#nodes, lower, work, fetch: parts.fetch })
    this.#changes = new OverlayChanges({ nodes: this.#nodes, lower, work, copy: this.#copy })
  }

  setOwnDevice(device: string): void {
    this.#nodes.files.ownDevice = device
  }

  forget(node: number, lookups: number): void {
    this.#nodes.forget(node, lookups)
  }

  end(): void {
    this.#open.end()
    this.#nodes.end()
    this.#work.end()
  }

  /** The data of what is about to be changed. A copy that the disk has no room for is told by its errno. */
  prepare(request: FileRequest): Promise<void> | undefined {
    const node = this.#nodes.get(request.node)
    if (node === undefined) return undefined
    switch (request.opcode) {
      case FILE_OPCODE.WRITE:
      case FILE_OPCODE.FALLOCATE:
      case FILE_OPCODE.SETXATTR:
      case FILE_OPCODE.REMOVEXATTR:
        return this.#copy.fetch(node)
      case FILE_OPCODE.SETATTR: {
        // what is cut off need not be fetched, if nothing can fail before
        const cuts = (request.word(SETATTR_IN.valid) & (SET.SIZE | SET.UID | SET.GID)) === SET.SIZE
        return this.#copy.fetch(node, cuts ? request.number(SETATTR_IN.length) : undefined)
      }
      case FILE_OPCODE.LINK: {
        const linked = this.#nodes.get(request.nodeAt(LINK_IN.node))
        return linked === undefined ? undefined : this.#copy.fetch(linked)
      }
      case FILE_OPCODE.COPY_FILE_RANGE: {
        const to = this.#nodes.get(request.nodeAt(COPY_IN.toNode))
        return to === undefined ? undefined : this.#copy.fetch(to)
      }
      case FILE_OPCODE.RENAME:
      case FILE_OPCODE.RENAME2:
        return this.#prepareRename(node, request)
      default:
        return undefined
    }
  }

  #prepareRename(from: OverlayNode, request: FileRequest): Promise<void> | undefined {
    const move = this.#renameOf(request)
    if (typeof move === 'number') return undefined // answer tells
    const found = [this.#nodes.find(from, move.name), this.#nodes.find(move.to, move.newName)]
    const [source, target] = found.map((node) => (typeof node === 'object' ? this.#copy.fetch(node) : undefined))
    // a target that is replaced need not be copied: only an exchange keeps it
    return move.flags === 2 && target !== undefined ? Promise.all([source, target]).then(() => undefined) : source
  }

  #renameOf(request: FileRequest): { name: Uint8Array; to: OverlayNode; newName: Uint8Array; flags: number } | number {
    const hasFlags = request.opcode === FILE_OPCODE.RENAME2
    const at = hasFlags ? RENAME2_IN.size : RENAME_IN.size
    const name = request.name(at)
    const newName = name === undefined ? undefined : request.name(at + name.length)
    const to = this.#nodes.get(request.nodeAt(RENAME_IN.directory))
    if (name === undefined || newName === undefined) return -ERRNO.EINVAL
    if (to === undefined) return -ERRNO.ESTALE
    return { name, to, newName, flags: hasFlags ? request.word(RENAME2_IN.flags) : 0 }
  }

  answerRoot(reply: FileReply): number {
    return this.#entry(this.#nodes.root, reply)
  }

  answer(request: FileRequest, reply: FileReply): number {
    this.#nodes.rest()
    const node = this.#nodes.get(request.node)
    if (node === undefined) return -ERRNO.ESTALE
    switch (request.opcode) {
      case OPCODE.READ:
        return this.#read(node, request, reply)
      case FILE_OPCODE.WRITE:
        return this.#withUpper(node, request, (fd) => writeOpen(fd, request, reply))
      case FILE_OPCODE.FALLOCATE:
        return this.#withUpper(node, request, (fd) => allocateOpen(fd, request))
      case OPCODE.GETATTR:
        return this.#getattr(node, reply)
      case FILE_OPCODE.SETATTR:
        return this.#setattr(node, request, reply)
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
        return this.#sync(node, request)
      case OPCODE.LSEEK:
        return this.#seek(node, request, reply)
      case FILE_OPCODE.COPY_FILE_RANGE:
        return this.#copyRange(request, reply)
      case OPCODE.STATFS: {
        const found = new Uint8Array(120)
        const failed = statFileSystem(this.#nodes.files.directoryFd, found)
        return failed < 0 ? failed : reply.statfs(found)
      }
      case OPCODE.IOCTL:
        return -ERRNO.ENOTTY
      default:
        return this.#answerByName(node, request, reply)
    }
  }

  #answerByName(node: OverlayNode, request: FileRequest, reply: FileReply): number {
    switch (request.opcode) {
      case OPCODE.LOOKUP:
        return this.#lookup(node, request, reply)
      case OPCODE.READLINK:
        return this.#readlink(node, reply)
      case OPCODE.GETXATTR:
        return this.#getXattr(node, request, reply)
      case OPCODE.LISTXATTR:
        return this.#listXattrs(node, request, reply)
      case FILE_OPCODE.SETXATTR:
      case FILE_OPCODE.REMOVEXATTR:
        return this.#changeXattr(node, request)
      case FILE_OPCODE.MKDIR:
        return this.#make(node, request.name(MKDIR_IN.size), request, reply, (directory, name) =>
          makeDirectory(directory, name, request.word(MKDIR_IN.mode) & 0o7777),
        )
      case FILE_OPCODE.MKNOD:
        return this.#makeNode(node, request, reply)
      case FILE_OPCODE.SYMLINK:
        return this.#make(node, request.name(0), request, reply, (directory, name) =>
          makeLink(directory, name, request.text((request.name(0) ?? name).length)),
        )
      case FILE_OPCODE.LINK:
        return this.#link(node, request, reply)
      case FILE_OPCODE.UNLINK:
      case FILE_OPCODE.RMDIR: {
        const name = request.name(0)
        const kind = request.opcode === FILE_OPCODE.UNLINK ? 'file' : 'directory'
        return name === undefined ? -ERRNO.EINVAL : this.#changes.remove(node, name, kind)
      }
      case FILE_OPCODE.RENAME:
      case FILE_OPCODE.RENAME2: {
        const move = this.#renameOf(request)
        return typeof move === 'number'
          ? move
          : this.#changes.rename(node, move.name, move.to, move.newName, move.flags)
      }
      case FILE_OPCODE.CREATE:
        return this.#create(node, request, reply)
      default:
        return -ERRNO.ENOSYS
    }
  }

  #entry(node: OverlayNode, reply: FileReply): number {
    const failed = this.#nodes.describe(node, this.#attributes)
    if (failed < 0) return failed
    node.lookups++
    return reply.entry(entryOf(this.#parts.slot, node.id, BELIEVED_SECONDS), this.#attributes)
  }

  #lookup(directory: OverlayNode, request: FileRequest, reply: FileReply): number {
    const name = request.name(0)
    if (name === undefined)
      return Buffer.from(request.text(0)).toString() === '.\0' ? this.#entry(directory, reply) : -ERRNO.ESTALE
    if (name.length > NAME_MAX + 1) return -ERRNO.ENAMETOOLONG
    const found = this.#nodes.find(directory, name)
    return typeof found === 'object' ? this.#entry(found, reply) : (found ?? -ERRNO.ENOENT)
  }

  #getattr(node: OverlayNode, reply: FileReply): number {
    const failed = this.#nodes.describe(node, this.#attributes)
    return failed < 0 ? failed : reply.attributes(BELIEVED_SECONDS, this.#attributes)
  }

  #setattr(node: OverlayNode, request: FileRequest, reply: FileReply): number {
    const valid = request.word(SETATTR_IN.valid)
    if ((valid & SET.SIZE) !== 0 && node.type !== TYPE.FILE) return -ERRNO.EINVAL
    const fd = this.#raised(node)
    if (fd < 0) return fd
    const open = (valid & SET.HANDLE) === 0 ? undefined : this.#open.get(request.number(SETATTR_IN.handle))
    const writer = open === undefined || open.fd < 0 ? undefined : open.fd
    const failed = setAttributes(request, fd, node.type, writer)
    return failed < 0 ? failed : this.#getattr(node, reply)
  }

  /** A descriptor that names the upper file, which there is from now on; or minus an errno. */
  #raised(node: OverlayNode): number {
    const failed = this.#copy.raise(node)
    return failed < 0 ? failed : this.#nodes.files.fd(node.upper as HostFile)
  }

  #readlink(node: OverlayNode, reply: FileReply): number {
    if (node.type !== TYPE.LINK) return -ERRNO.EINVAL
    if (node.upper === undefined)
      return node.lower === undefined ? -ERRNO.ESTALE : reply.data(this.#lower.readlink(node.lower))
    const fd = this.#nodes.files.fd(node.upper)
    return fd < 0 ? fd : readLink(fd, reply.room(4096))
  }

  #getXattr(node: OverlayNode, request: FileRequest, reply: FileReply): number {
    const name = request.text(XATTR_IN.size).subarray(0, -1)
    if (isPrivate(name)) return -ERRNO.ENODATA
    if (node.upper !== undefined) {
      const fd = this.#nodes.files.fd(node.upper)
      return fd < 0 ? fd : getXattr(fd, request, reply)
    }
    const found = this.#lowerXattrs(node).find((xattr) => Buffer.compare(xattr.name, name) === 0)
    const room = request.word(XATTR_IN.count)
    if (found === undefined) return -ERRNO.ENODATA
    if (room === 0) return reply.count(found.value.length)
    return found.value.length > room ? -ERRNO.ERANGE : reply.data(found.value)
  }

  #listXattrs(node: OverlayNode, request: FileRequest, reply: FileReply): number {
    if (node.upper !== undefined) {
      const fd = this.#nodes.files.fd(node.upper)
      return fd < 0 ? fd : listXattrs(fd, request, reply, isPrivate)
    }
    const names = this.#lowerXattrs(node).flatMap(({ name }) => (isPrivate(name) ? [] : [name, NUL]))
    return answerNames(Buffer.concat(names), request.word(XATTR_IN.count), reply)
  }

  #lowerXattrs(node: OverlayNode): ReturnType<OverlayLower['xattrs']> {
    return node.lower === undefined ? [] : this.#lower.xattrs(node.lower)
  }

  #changeXattr(node: OverlayNode, request: FileRequest): number {
    const isSet = request.opcode === FILE_OPCODE.SETXATTR
    const name = request.text(isSet ? XATTR_IN.size : 0).subarray(0, -1)
    if (isPrivate(name)) return -ERRNO.EPERM
    const fd = this.#raised(node)
    if (fd < 0) return fd
    return isSet ? setXattr(fd, request) : removeXattr(fd, request)
  }

  #make(
    parent: OverlayNode,
    name: Uint8Array | undefined,
    request: FileRequest,
    reply: FileReply,
    make: (directory: number, name: Uint8Array) => number,
  ): number {
    if (name === undefined) return -ERRNO.EINVAL
    const made = this.#changes.make(parent, name, request, make)
    if (made < 0) return made
    const found = this.#nodes.find(parent, name)
    return typeof found === 'object' ? this.#entry(found, reply) : (found ?? -ERRNO.ENOENT)
  }

  #makeNode(parent: OverlayNode, request: FileRequest, reply: FileReply): number {
    const [mode, device] = [request.word(MKNOD_IN.mode), request.word(MKNOD_IN.device)]
    // it would be a deletion mark
    if ((mode & TYPE.MASK) === TYPE.CHARACTER && device === 0) return -ERRNO.EPERM
    return this.#make(parent, request.name(MKNOD_IN.size), request, reply, (directory, name) =>
      makeNodeAt(directory, name, mode, device),
    )
  }

  #link(parent: OverlayNode, request: FileRequest, reply: FileReply): number {
    const node = this.#nodes.get(request.nodeAt(LINK_IN.node))
    if (node === undefined) return -ERRNO.ESTALE
    const fd = this.#raised(node)
    if (fd < 0) return fd
    return this.#make(parent, request.name(LINK_IN.size), request, reply, (directory, name) =>
      linkFd(fd, directory, name),
    )
  }

  #openFile(node: OverlayNode, request: FileRequest, reply: FileReply): number {
    if (node.type !== TYPE.FILE) return -ERRNO.EINVAL
    const flags = request.word(OPEN_IN.flags)
    const file: OpenFile<OverlayNode> = { node, fd: -1, flags }
    const failed = this.#reach(file)
    return failed < 0 ? failed : reply.opened(this.#open.add(file), OPENED.KEEP_CACHE)
  }

  /** Opens the upper file, once there is one. 0 or minus an errno. */
  #reach(file: OpenFile<OverlayNode>): number {
    if (file.fd >= 0 || file.node.upper === undefined) return 0
    const path = this.#nodes.files.fd(file.node.upper)
    const fd = path < 0 ? path : reopen(path, hostFlags(file.flags))
    if (fd < 0) return fd
    file.fd = fd
    return 0
  }

  #create(parent: OverlayNode, request: FileRequest, reply: FileReply): number {
    const name = request.name(CREATE_IN.size)
    if (name === undefined) return -ERRNO.EINVAL
    const flags = request.word(CREATE_IN.flags)
    const mode = request.word(CREATE_IN.mode) & 0o7777
    const fd = this.#changes.make(parent, name, request, (directory, at) =>
      openAt(directory, at, hostFlags(flags) | O.CREAT | O.EXCL, mode),
    )
    if (fd < 0 && (fd !== -ERRNO.EEXIST || (flags & O.EXCL) !== 0)) return fd
    const found = this.#nodes.find(parent, name)
    if (typeof found !== 'object' || found.type !== TYPE.FILE) {
      if (fd >= 0) closeFd(fd)
      return typeof found === 'object' ? -ERRNO.EINVAL : (found ?? -ERRNO.ENOENT)
    }
    const file: OpenFile<OverlayNode> = { node: found, fd, flags }
    const failed = this.#reach(file)
    if (failed < 0) return failed
    const entry = this.#entry(found, reply)
    if (entry < 0) return entry
    return reply.opened(this.#open.add(file), OPENED.KEEP_CACHE, entry)
  }

  #read(node: OverlayNode, request: FileRequest, reply: FileReply): number {
    if (node.upper !== undefined) return this.#withOpen(node, request, O.RDONLY, (fd) => readOpen(fd, request, reply))
    if (node.lower === undefined) return -ERRNO.ESTALE
    const offset = request.number(READ_IN.offset)
    const count = reply.room(request.word(READ_IN.count)).length
    const bytes = this.#lower.read(node.lower, offset, count, reply.bodyAddress)
    if (bytes !== undefined) {
      this.#parts.onRead(bytes)
      return bytes
    }
    this.#parts.readLater({ ino: node.lower, offset, count, low: request.uniqueLow, high: request.uniqueHigh })
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
    const offset = request.number(8)
    if (offset >= size) return -ERRNO.ENXIO
    return reply.offset(request.word(16) === SEEK_DATA ? offset : size)
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

  #openDirectory(node: OverlayNode, reply: FileReply): number {
    const handle = this.#open.add({ node, fd: -1, flags: O.RDONLY })
    this.#listings.set(handle, new OverlayListing())
    return reply.opened(handle, 0)
  }

  #readDirectory(node: OverlayNode, request: FileRequest, reply: FileReply): number {
    const described = this.#nodes.describe(node, this.#attributes)
    if (described < 0) return described
    const listing = this.#listings.get(handleOf(request)) ?? new OverlayListing()
    return listing.answer(request, reply, {
      isPlus: request.opcode === OPCODE.READDIRPLUS,
      self: this.#nodes.number(node),
      read: () => mergedNames(this.#nodes, this.#lower, node),
      look: (name) => {
        const found = this.#nodes.find(node, name)
        if (typeof found !== 'object' || this.#nodes.describe(found, this.#attributes) < 0) return undefined
        found.lookups++
        return { answer: entryOf(this.#parts.slot, found.id, BELIEVED_SECONDS), attributes: this.#attributes }
      },
    })
  }
}

const NUL = Buffer.alloc(1)
const SEEK_DATA = 3
const NAME_MAX = 255

/** The errno that a failed preparation is answered with; undefined = an error of another kind. */
export function errnoOf(error: unknown): number | undefined {
  return error instanceof CopyError ? error.errno : undefined
}
