import { ERRNO, getXattrOf, type HostStat, statFd } from '../../kernel/index.ts'
import { STANDING_BYTES } from './files-in-hand.ts'
import { NOTHING, type NotedTree } from './noted-changes.ts'
import type { OverlayNode } from './overlay-node.ts'
import type { OverlayNodes } from './overlay-nodes.ts'
import type { OverlayOpen } from './overlay-open.ts'
import type { OverlayLower } from './overlay-lower.ts'
import type { OverlayXattrs } from './overlay-xattrs.ts'

/** In the place of a birth: the number before it is one of the image. */
const OF_IMAGE = 0xfe

/** An overlay as its noted changes see it: what has a name is told by number and birth of the upper file, and by the number of the image's file that it is, or is a copy of. */
export class OverlayStanding implements NotedTree<OverlayNode> {
  readonly #nodes: OverlayNodes
  readonly #lower: OverlayLower
  readonly #open: OverlayOpen
  readonly #xattrs: OverlayXattrs

  constructor(parts: { nodes: OverlayNodes; lower: OverlayLower; open: OverlayOpen; xattrs: OverlayXattrs }) {
    this.#nodes = parts.nodes
    this.#lower = parts.lower
    this.#open = parts.open
    this.#xattrs = parts.xattrs
  }

  get stat(): HostStat {
    return this.#nodes.files.stat
  }

  get(node: number): OverlayNode | undefined {
    return this.#nodes.get(node)
  }

  standing(directory: OverlayNode, name: Uint8Array): readonly Uint8Array[] | undefined {
    const found = this.#nodes.find(directory, name)
    if (typeof found !== 'object') return found === undefined ? [NOTHING] : undefined
    const image = found.origin === undefined ? [] : [ofImage(found.origin)]
    if (found.upper === undefined) return image
    return this.#nodes.files.look(found.upper) < 0 ? undefined : [this.stat.identity, ...image]
  }

  made(directory: OverlayNode, name: Uint8Array): number {
    const found = this.#nodes.find(directory, name)
    if (typeof found !== 'object') return found ?? -ERRNO.ENOENT
    const fd = found.upper === undefined ? -ERRNO.ENOENT : this.#nodes.files.fd(found.upper)
    return fd < 0 ? fd : this.#nodes.files.lookupOpen(fd)
  }

  isMade(node: OverlayNode): boolean {
    return node.upper?.key === this.stat.key
  }

  attribute(node: OverlayNode, name: Uint8Array, into: Uint8Array): number {
    if (node.upper !== undefined) {
      const fd = this.#nodes.files.fd(node.upper)
      return fd < 0 ? fd : getXattrOf(fd, name, into)
    }
    const value = this.#xattrs.ofImage(node, name.subarray(0, -1))
    if (value === undefined) return -ERRNO.ENODATA
    into.set(value.subarray(0, into.length))
    return value.length
  }

  fd(handle: number): number | undefined {
    return this.#open.fd(handle)
  }

  size(node: OverlayNode, handle: number): number | undefined {
    const fd = this.#open.fd(handle)
    if (fd !== undefined) return statFd(fd, this.stat) < 0 ? undefined : this.stat.size
    if (node.upper !== undefined) return this.#nodes.files.look(node.upper) < 0 ? undefined : this.stat.size
    if (node.lower === undefined) return undefined
    this.#lower.look(node.lower)
    return this.#lower.of.size
  }
}

function ofImage(ino: number): Uint8Array {
  const standing = Buffer.alloc(STANDING_BYTES, OF_IMAGE)
  standing.writeBigUInt64LE(BigInt(ino))
  return standing
}
