import {
  ANSWER_LATER,
  ERRNO,
  FuseAttributes,
  type FuseReply,
  type FuseRequest,
  MAX_READ_BYTES,
  OPCODE,
} from '../../kernel/index.ts'
import { type HotImage, HotReader } from '../../engine/index.ts'
import { Attributes, ChunkSpan, isType, MODE, openBootstrap } from '../../rafs/index.ts'
import type { OwnerMapping } from '../config/settings.ts'
import { FileCounters, type FileRecording } from '../file-counters.ts'
import { type FileSystemCounters, FOP } from '../metrics.ts'
import type { PseudoNode } from '../pseudo-tree.ts'
import { DirectoryListing, type ListedImage } from './directory-listing.ts'
import { answerExchanged } from './exchanged.ts'
import type { ListingHabits } from './listing-habits.ts'
import { NAME_MAX_BLOCK, PSEUDO_ROOT, PseudoDirectories } from './pseudo-directories.ts'

/** A mounted image as serving threads get it. */
export interface ServedImage {
  /** Of this opening of the image; what comes through a port is another object each time. */
  readonly id: number
  readonly slot: number
  readonly bytes: Uint8Array<SharedArrayBuffer>
  readonly inlinedBlobId: string | undefined
  readonly hot: HotImage
  /** What is to be recorded of its files; undefined = nothing. */
  readonly recording: FileRecording | undefined
  readonly owners: OwnerMapping | undefined
}

/** All that is mounted. The newest one counts. */
export interface ServedTree {
  readonly images: readonly ServedImage[]
  readonly pseudo: readonly PseudoNode[]
  /** Slots that the files thread serves. */
  readonly files: readonly number[]
}

/** Passes a request to the files thread, if there is one. `asRoot`: it looks up the root of what is mounted in that slot. Gives what the handler returns. */
export type ForwardRequest = (slot: number, request: FuseRequest, asRoot: boolean) => number

/** A read whose data is not here yet. */
export interface LateRead {
  readonly slot: number
  readonly ino: number
  readonly offset: number
  readonly count: number
  readonly low: number
  readonly high: number
}

interface OpenImage extends ListedImage {
  readonly of: ServedImage
  readonly hot: HotReader
}

/**
 * Answers the requests of one thread over all mounted images. Nothing here waits, and nothing is allocated for a request, but for xattrs and link
 * targets: a read whose chunks are not all trusted yet goes to `late`.
 */
export class FuseFileSystem {
  readonly #counters: FileSystemCounters
  readonly #thread: number
  readonly #late: (read: LateRead) => void
  readonly #owner = { uid: process.geteuid?.() ?? 0, gid: process.getegid?.() ?? 0 }
  readonly #images: Array<OpenImage | undefined> = []
  readonly #forward: ForwardRequest
  readonly #exchangesOpens: boolean
  readonly #habits: ListingHabits
  readonly #listing: DirectoryListing<OpenImage>
  #files: ReadonlySet<number> = new Set()
  readonly #pseudo: PseudoDirectories
  #rootSlot = 0
  readonly #inode = new Attributes()
  readonly #attributes = new FuseAttributes()
  readonly #spans: ChunkSpan[] = Array.from({ length: 64 }, () => new ChunkSpan())

  constructor(parts: {
    readonly counters: FileSystemCounters
    readonly late: (read: LateRead) => void
    readonly forward: ForwardRequest
    /** Number of the table that this thread writes for each recorded image. */
    readonly thread: number
    /** OPEN and what goes with it are answered, not switched off. */
    readonly exchangesOpens: boolean
    readonly habits: ListingHabits
  }) {
    this.#thread = parts.thread
    this.#counters = parts.counters
    this.#late = parts.late
    this.#forward = parts.forward
    this.#exchangesOpens = parts.exchangesOpens
    this.#habits = parts.habits
    this.#listing = new DirectoryListing(parts.habits, (image, ino) => this.#fill(image, ino))
    this.#pseudo = new PseudoDirectories({
      exchangesOpens: parts.exchangesOpens,
      attributes: this.#attributes,
      hasImage: (slot) => this.#images[slot] !== undefined,
      fillRoot: (slot) => {
        const image = this.#images[slot]
        if (image !== undefined) this.#fill(image, image.bootstrap.root)
      },
      forward: (slot, request) => this.#forward(slot, request, true),
    })
  }

  /** Takes over what is mounted now; images that were there stay open. Gives the bytes of metadata that are no longer used. */
  update(tree: ServedTree): number {
    const before = [...this.#images]
    this.#images.length = 0
    let dropped = before.reduce((sum, image) => sum + (image?.of.bytes.length ?? 0), 0)
    for (const of of tree.images) {
      const known = before[of.slot]
      if (known?.of.id === of.id) dropped -= known.of.bytes.length
      this.#images[of.slot] = known?.of.id === of.id ? known : open(of, this.#thread)
    }
    this.#files = new Set(tree.files)
    this.#pseudo.update(tree.pseudo, this.#files)
    this.#rootSlot = this.#pseudo.rootSlot
    return dropped
  }

  /** Body length, minus an errno, or ANSWER_LATER, as `FuseHandler` wants it. */
  answer(request: FuseRequest, reply: FuseReply): number {
    const top = request.nodeTop
    if (top !== 0) {
      const image = this.#images[top]
      return image === undefined ? this.#elsewhere(top, request) : this.#ask(image, request.node, request, reply)
    }
    if (request.node === PSEUDO_ROOT && this.#rootSlot !== 0) {
      const image = this.#images[this.#rootSlot]
      return image === undefined
        ? this.#elsewhere(this.#rootSlot, request)
        : this.#ask(image, image.bootstrap.root, request, reply)
    }
    return this.#pseudo.answer(request, reply)
  }

  #elsewhere(slot: number, request: FuseRequest): number {
    if (this.#files.has(slot)) return this.#forward(slot, request, false)
    // what was written is written: closing a file of a mount that is gone is no error
    return request.opcode === OPCODE.FLUSH || request.opcode === OPCODE.RELEASE ? 0 : -ERRNO.ESTALE
  }

  #ask(image: OpenImage, ino: number, request: FuseRequest, reply: FuseReply): number {
    switch (request.opcode) {
      case OPCODE.READ:
        return this.#read(image, ino, request, reply)
      case OPCODE.LOOKUP:
        return this.#counted(image, ino, FOP.Lookup, this.#lookup(image, ino, request, reply))
      case OPCODE.GETATTR:
        this.#fill(image, ino)
        return this.#counted(image, ino, FOP.Getattr, reply.attributes(this.#attributes))
      case OPCODE.READDIRPLUS:
        return this.#counted(image, ino, FOP.Readdirplus, this.#listing.answer(image, ino, request, reply))
      case OPCODE.READDIR:
        return this.#counted(image, ino, FOP.Readdir, this.#listing.answer(image, ino, request, reply))
      case OPCODE.READLINK:
        return this.#counted(image, ino, FOP.Readlink, reply.data(image.bootstrap.readlink(ino)))
      case OPCODE.GETXATTR:
        return this.#counted(image, ino, FOP.Getxattr, this.#xattr(image, ino, request, reply))
      case OPCODE.LISTXATTR:
        return this.#counted(image, ino, FOP.Listxattr, this.#xattrNames(image, ino, request, reply))
      case OPCODE.STATFS:
        return reply.statfs(image.bootstrap.inodeCount, NAME_MAX_BLOCK)
      case OPCODE.IOCTL:
        return -ERRNO.ENOTTY
      default:
        // OPEN, OPENDIR, FLUSH, ACCESS, LSEEK, …: the kernel does them by itself and does not ask again
        return this.#exchangesOpens ? this.#exchange(image, ino, request, reply) : -ERRNO.ENOSYS
    }
  }

  #exchange(image: OpenImage, ino: number, request: FuseRequest, reply: FuseReply): number {
    return answerExchanged(request, reply, () => {
      this.#fill(image, ino)
      return this.#attributes.size
    })
  }

  /** A missing name or attribute is an answer like another; a buffer that is too small is one for a list of names, but not for a value. */
  #counted(image: OpenImage, ino: number, fop: number, result: number): number {
    const isHit = result >= 0 || result === -ERRNO.ENODATA || (result === -ERRNO.ERANGE && fop === FOP.Listxattr)
    if (isHit) this.#counters.hit(image.slot, fop)
    else this.#counters.error(image.slot, fop)
    image.files?.operation(ino, fop)
    return result
  }

  #lookup(image: OpenImage, directory: number, request: FuseRequest, reply: FuseReply): number {
    const name = request.name()
    const ino = isDot(name)
      ? directory
      : isDotDot(name)
        ? image.bootstrap.parent(directory)
        : image.bootstrap.lookup(directory, name)
    if (ino === undefined) return reply.noEntry()
    image.files?.seen(ino)
    this.#fill(image, ino)
    if (!isType(this.#attributes.mode, MODE.DIRECTORY)) this.#habits.lookedUp(request.pid)
    return reply.entry(this.#attributes)
  }

  #fill(image: OpenImage, ino: number): FuseAttributes {
    const from = this.#inode
    const to = this.#attributes
    image.bootstrap.attributes(ino, from)
    to.ino = ino
    to.inoTop = image.slot
    to.size = from.size
    to.blocks = from.blocks
    to.mtime = from.mtime
    to.mtimeNsec = from.mtimeNsec
    to.mode = from.mode
    to.nlink = from.nlink
    to.rdev = from.rdev
    const { owners } = image.of
    to.uid = shownOwner(owners, image.bootstrap.explicitOwners ? from.uid : this.#owner.uid)
    to.gid = shownOwner(owners, image.bootstrap.explicitOwners ? from.gid : this.#owner.gid)
    return to
  }

  #read(image: OpenImage, ino: number, request: FuseRequest, reply: FuseReply): number {
    const started = performance.now()
    const count = Math.min(request.count, MAX_READ_BYTES)
    const spans = image.bootstrap.chunks(ino, request.offset, count, this.#spans)
    let bytes = 0
    for (let index = 0; index < spans; index++) bytes += this.#spans[index].length
    if (bytes === 0 || image.hot.read(this.#spans, spans, reply.bodyAddress)) {
      this.#counters.read(image.slot, bytes, (performance.now() - started) * 1000, true)
      image.files?.read(ino, bytes)
      return bytes
    }
    this.#late({
      slot: image.slot,
      ino,
      offset: request.offset,
      count,
      low: request.uniqueLow,
      high: request.uniqueHigh,
    })
    return ANSWER_LATER
  }

  #xattr(image: OpenImage, ino: number, request: FuseRequest, reply: FuseReply): number {
    if (!this.#hasXattrs(image, ino)) return -ERRNO.ENODATA
    const wanted = request.xattrName()
    const found = image.bootstrap.xattrs(ino).find(({ name }) => Buffer.compare(name, wanted) === 0)
    if (found === undefined) return -ERRNO.ENODATA
    const room = request.xattrCount
    if (room === 0) return reply.size(found.value.length)
    return found.value.length > room ? -ERRNO.ERANGE : reply.data(found.value)
  }

  #xattrNames(image: OpenImage, ino: number, request: FuseRequest, reply: FuseReply): number {
    const room = request.xattrCount
    const names = this.#hasXattrs(image, ino) ? image.bootstrap.xattrs(ino) : []
    const bytes = Buffer.concat(names.flatMap(({ name }) => [name, NUL]))
    if (room === 0) return reply.size(bytes.length)
    return bytes.length > room ? -ERRNO.ERANGE : reply.data(bytes)
  }

  #hasXattrs(image: OpenImage, ino: number): boolean {
    if (!image.bootstrap.hasXattrs) return false
    image.bootstrap.attributes(ino, this.#inode)
    return this.#inode.hasXattrs
  }
}

const NUL = Buffer.alloc(1)

function open(of: ServedImage, thread: number): OpenImage {
  const bootstrap = openBootstrap(of.bytes, { inlinedBlobId: of.inlinedBlobId })
  const root = new Attributes()
  bootstrap.attributes(bootstrap.root, root)
  if (!isType(root.mode, MODE.DIRECTORY)) throw new Error('the root of the image is no directory')
  const files = of.recording === undefined ? undefined : new FileCounters(of.recording, thread)
  return { of, slot: of.slot, bootstrap, hot: new HotReader(of.hot), files }
}

function shownOwner(mapping: OwnerMapping | undefined, id: number): number {
  if (mapping === undefined) return id
  const { inside, outside, count } = mapping
  return id >= inside && id < inside + count ? outside + (id - inside) : id
}

function isDot(name: Uint8Array): boolean {
  return name.length === 1 && name[0] === 0x2e
}

function isDotDot(name: Uint8Array): boolean {
  return name.length === 2 && name[0] === 0x2e && name[1] === 0x2e
}
