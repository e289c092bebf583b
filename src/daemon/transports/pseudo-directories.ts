import { ERRNO, type FuseAttributes, type FuseReply, type FuseRequest, OPCODE } from '../../kernel/index.ts'
import type { PseudoNode } from '../pseudo-tree.ts'
import { DIRECTORY_TYPE } from './directory-listing.ts'
import { answerExchanged } from './exchanged.ts'

/** Node number of the session's root. */
export const PSEUDO_ROOT = 1
/** Longest name and block size of STATFS. */
export const NAME_MAX_BLOCK = 512

export interface PseudoDirectoriesParts {
  /** OPEN and what goes with it are answered, not switched off. */
  readonly exchangesOpens: boolean
  /** Reused for each answer. */
  readonly attributes: FuseAttributes
  /** Is an image here, to be answered for on this thread? */
  readonly hasImage: (slot: number) => boolean
  /** Fills `attributes` with those of an image's root. */
  readonly fillRoot: (slot: number) => void
  /** Passes a LOOKUP of the root of a mount to the files thread; gives what the handler returns. */
  readonly forward: (slot: number, request: FuseRequest) => number
}

/** Answers requests for the directories above the mounts of a session; a mount is shown as its root. */
export class PseudoDirectories {
  readonly #parts: PseudoDirectoriesParts
  #nodes = new Map<number, PseudoNode>()
  #files: ReadonlySet<number> = new Set()

  constructor(parts: PseudoDirectoriesParts) {
    this.#parts = parts
  }

  /** `files`: slots that the files thread serves. */
  update(nodes: readonly PseudoNode[], files: ReadonlySet<number>): void {
    this.#nodes = new Map(nodes.map((node) => [node.ino, node]))
    this.#files = files
  }

  /** Slot of what is mounted at the session's root; 0 = nothing. */
  get rootSlot(): number {
    return this.#nodes.get(PSEUDO_ROOT)?.slot ?? 0
  }

  /** Body length, minus an errno, or ANSWER_LATER, as `FuseHandler` wants it. */
  answer(request: FuseRequest, reply: FuseReply): number {
    const { attributes, exchangesOpens } = this.#parts
    const node = this.#nodes.get(request.node)
    if (node === undefined || (this.#isLost(node) && request.opcode !== OPCODE.GETATTR)) return -ERRNO.ESTALE
    switch (request.opcode) {
      case OPCODE.LOOKUP:
        return this.#lookup(node, request, reply)
      case OPCODE.GETATTR:
        this.#fill(node)
        return reply.attributes(attributes)
      case OPCODE.READDIR:
      case OPCODE.READDIRPLUS:
        return this.#list(node, request, reply)
      case OPCODE.STATFS:
        return reply.statfs(0, NAME_MAX_BLOCK)
      case OPCODE.GETXATTR:
        // ENOSYS would switch off xattrs for the images too
        return -ERRNO.ENODATA
      case OPCODE.LISTXATTR:
        return request.xattrCount === 0 ? reply.size(0) : 0
      case OPCODE.IOCTL:
        return -ERRNO.ENOTTY
      default:
        return exchangesOpens ? answerExchanged(request, reply, () => 0) : -ERRNO.ENOSYS
    }
  }

  /** ENOENT is not remembered by the kernel: what is mounted later is found. */
  #lookup(node: PseudoNode, request: FuseRequest, reply: FuseReply): number {
    const name = Buffer.from(request.name()).toString()
    const found = name === '.' ? node : name === '..' ? this.#nodes.get(node.parent) : this.#child(node, name)
    if (found === undefined) return -ERRNO.ENOENT
    if (this.#files.has(found.slot)) return this.#parts.forward(found.slot, request)
    if (this.#isLost(found)) return -ERRNO.ESTALE
    this.#fillPlace(found)
    return reply.entry(this.#parts.attributes)
  }

  #child(node: PseudoNode, name: string): PseudoNode | undefined {
    return this.#children(node).find((child) => child.name === name)
  }

  #children(node: PseudoNode): PseudoNode[] {
    return [...this.#nodes.values()].filter((child) => child.parent === node.ino && child.ino !== PSEUDO_ROOT)
  }

  /** An image was mounted here and cannot be opened again: an empty directory would be a lie. */
  #isLost({ slot }: PseudoNode): boolean {
    return slot !== 0 && !this.#parts.hasImage(slot) && !this.#files.has(slot)
  }

  /** The attributes of a directory, or of the image that is mounted there. */
  #fillPlace(node: PseudoNode): void {
    if (node.slot !== 0 && this.#parts.hasImage(node.slot)) this.#parts.fillRoot(node.slot)
    else this.#fill(node)
  }

  #fill(node: PseudoNode): void {
    const to = this.#parts.attributes
    to.ino = node.ino
    to.inoTop = 0
    to.size = 0
    to.blocks = 0
    to.mtime = 0
    to.mtimeNsec = 0
    to.mode = 0o040777
    to.nlink = 2
    to.rdev = 0
    to.uid = 0
    to.gid = 0
  }

  #list(node: PseudoNode, request: FuseRequest, reply: FuseReply): number {
    const { attributes } = this.#parts
    const isPlus = request.opcode === OPCODE.READDIRPLUS
    reply.startList(request.count)
    const children = this.#children(node)
    for (let index = request.offset; index < children.length; index++) {
      const child = children[index]
      const name = Buffer.from(child.name)
      if (!reply.fits(name.length, isPlus)) break
      this.#fillPlace(child)
      const { ino, inoTop } = attributes
      const isShown = isPlus && !this.#files.has(child.slot)
      reply.add(name, ino, inoTop, DIRECTORY_TYPE, index + 1, isPlus, isShown ? attributes : undefined)
    }
    return reply.endList()
  }
}
