import {
  ERRNO,
  FILE_OPCODE,
  type FileReply,
  type FileRequest,
  COPY_IN,
  LINK_IN,
  linkFd,
  makeDirectory,
  makeLink,
  makeNodeAt,
  MKDIR_IN,
  MKNOD_IN,
  OPCODE,
  readLink,
  RENAME,
  SET,
  SETATTR_IN,
  TYPE,
} from '../../kernel/index.ts'
import { fileSystemOf, setAttributes } from './attributes.ts'
import type { FileServer } from './file-server.ts'
import { isSelf, type RenameRequest, renameOf } from './names.ts'
import { OverlayChanges } from './overlay-changes.ts'
import { CopyError, type FetchLower, OverlayCopy } from './overlay-copy.ts'
import { type LowerImage, OverlayLower } from './overlay-lower.ts'
import { type OverlayNode, OverlayNodes } from './overlay-nodes.ts'
import { OverlayOpen, type ReadLater } from './overlay-open.ts'
import { OverlayWork } from './overlay-work.ts'
import { OverlayXattrs } from './overlay-xattrs.ts'

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

/**
 * An image that can be written to: what is changed is copied to an upper directory of the host first, in the form of overlayfs. Files of the image are read by the engine, those of the upper directory by their
 * descriptors.
 */
export class OverlayTree implements FileServer {
  readonly #lower: OverlayLower
  readonly #work: OverlayWork
  readonly #nodes: OverlayNodes
  readonly #copy: OverlayCopy
  readonly #changes: OverlayChanges
  readonly #open: OverlayOpen
  readonly #xattrs: OverlayXattrs

  /** Throws KernelError, RafsError, or an error of the file system. */
  constructor(parts: OverlayParts) {
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
    this.#xattrs = new OverlayXattrs(this.#nodes, lower, this.#copy)
    this.#open = new OverlayOpen({ ...parts, nodes: this.#nodes, lower, copy: this.#copy, changes: this.#changes })
  }

  setOwnDevice(device: string): void {
    this.#nodes.files.ownDevice = device
  }

  forget(node: number, lookups: number): void {
    this.#nodes.forget(node, lookups)
  }

  leave(): void {
    this.end()
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
    return move.flags === RENAME.EXCHANGE && target !== undefined
      ? Promise.all([source, target]).then(() => undefined)
      : source
  }

  #renameOf(request: FileRequest): (Omit<RenameRequest, 'to'> & { to: OverlayNode }) | number {
    const move = renameOf(request)
    if (move === undefined) return -ERRNO.EINVAL
    const to = this.#nodes.get(move.to)
    return to === undefined ? -ERRNO.ESTALE : { ...move, to }
  }

  answerRoot(reply: FileReply): number {
    return this.#nodes.entry(this.#nodes.root, reply)
  }

  answer(request: FileRequest, reply: FileReply): number {
    this.#nodes.rest()
    const node = this.#nodes.get(request.node)
    if (node === undefined) return -ERRNO.ESTALE
    switch (request.opcode) {
      case OPCODE.GETATTR:
        return this.#nodes.attributes(node, reply)
      case FILE_OPCODE.SETATTR:
        return this.#setattr(node, request, reply)
      case OPCODE.STATFS:
        return fileSystemOf(this.#nodes.files.directoryFd, reply)
      case OPCODE.IOCTL:
        return -ERRNO.ENOTTY
      default:
        return this.#open.answer(node, request, reply) ?? this.#answerByName(node, request, reply)
    }
  }

  #answerByName(node: OverlayNode, request: FileRequest, reply: FileReply): number {
    switch (request.opcode) {
      case OPCODE.LOOKUP:
        return this.#lookup(node, request, reply)
      case OPCODE.READLINK:
        return this.#readlink(node, reply)
      case OPCODE.GETXATTR:
        return this.#xattrs.get(node, request, reply)
      case OPCODE.LISTXATTR:
        return this.#xattrs.list(node, request, reply)
      case FILE_OPCODE.SETXATTR:
      case FILE_OPCODE.REMOVEXATTR:
        return this.#xattrs.change(node, request)
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
        return this.#open.create(node, request, reply)
      case FILE_OPCODE.TMPFILE:
        return -ERRNO.EOPNOTSUPP // ENOSYS would end it for shared directories of the session too
      default:
        return -ERRNO.ENOSYS
    }
  }

  #lookup(directory: OverlayNode, request: FileRequest, reply: FileReply): number {
    const name = request.name(0)
    if (name === undefined) return isSelf(request) ? this.#nodes.entry(directory, reply) : -ERRNO.ESTALE
    if (name.length > NAME_MAX + 1) return -ERRNO.ENAMETOOLONG
    const found = this.#nodes.find(directory, name)
    return typeof found === 'object' ? this.#nodes.entry(found, reply) : (found ?? -ERRNO.ENOENT)
  }

  #setattr(node: OverlayNode, request: FileRequest, reply: FileReply): number {
    const valid = request.word(SETATTR_IN.valid)
    if ((valid & SET.SIZE) !== 0 && node.type !== TYPE.FILE) return -ERRNO.EINVAL
    const fd = this.#copy.raised(node)
    if (fd < 0) return fd
    const writer = (valid & SET.HANDLE) === 0 ? undefined : this.#open.fd(request.number(SETATTR_IN.handle))
    const failed = setAttributes(request, fd, node.type, writer)
    return failed < 0 ? failed : this.#nodes.attributes(node, reply)
  }

  #readlink(node: OverlayNode, reply: FileReply): number {
    if (node.type !== TYPE.LINK) return -ERRNO.EINVAL
    if (node.upper === undefined)
      return node.lower === undefined ? -ERRNO.ESTALE : reply.data(this.#lower.readlink(node.lower))
    const fd = this.#nodes.files.fd(node.upper)
    return fd < 0 ? fd : readLink(fd, reply.room(4096))
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
    return typeof found === 'object' ? this.#nodes.entry(found, reply) : (found ?? -ERRNO.ENOENT)
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
    const fd = this.#copy.raised(node)
    if (fd < 0) return fd
    return this.#make(parent, request.name(LINK_IN.size), request, reply, (directory, name) =>
      linkFd(fd, directory, name),
    )
  }
}

const NAME_MAX = 255

/** The errno that a failed preparation is answered with; undefined = an error of another kind. */
export function errnoOf(error: unknown): number | undefined {
  return error instanceof CopyError ? error.errno : undefined
}
