import { ERRNO, FILE_OPCODE, type FileReply, type FileRequest, XATTR_IN } from '../../kernel/index.ts'
import type { OverlayCopy } from './overlay-copy.ts'
import type { OverlayLower } from './overlay-lower.ts'
import { isPrivate } from './overlay-marks.ts'
import type { OverlayNode } from './overlay-node.ts'
import type { OverlayNodes } from './overlay-nodes.ts'
import { answerNames, getXattr, listXattrs, removeXattr, setXattr } from './xattrs.ts'

/** Extended attributes of one overlay: those of the upper file, or of the image's; without what overlays keep in them. */
export class OverlayXattrs {
  readonly #nodes: OverlayNodes
  readonly #lower: OverlayLower
  readonly #copy: OverlayCopy

  constructor(nodes: OverlayNodes, lower: OverlayLower, copy: OverlayCopy) {
    this.#nodes = nodes
    this.#lower = lower
    this.#copy = copy
  }

  /** GETXATTR. */
  get(node: OverlayNode, request: FileRequest, reply: FileReply): number {
    const name = request.text(XATTR_IN.size).subarray(0, -1)
    if (isPrivate(name)) return -ERRNO.ENODATA
    if (node.upper !== undefined) {
      const fd = this.#nodes.files.fd(node.upper)
      return fd < 0 ? fd : getXattr(fd, request, reply)
    }
    const value = this.ofImage(node, name)
    const room = request.word(XATTR_IN.count)
    if (value === undefined) return -ERRNO.ENODATA
    if (room === 0) return reply.count(value.length)
    return value.length > room ? -ERRNO.ERANGE : reply.data(value)
  }

  /** The value that a file of the image has under a name, which has no NUL. */
  ofImage(node: OverlayNode, name: Uint8Array): Uint8Array | undefined {
    return this.#allOfImage(node).find((xattr) => Buffer.compare(xattr.name, name) === 0)?.value
  }

  /** LISTXATTR. */
  list(node: OverlayNode, request: FileRequest, reply: FileReply): number {
    if (node.upper !== undefined) {
      const fd = this.#nodes.files.fd(node.upper)
      return fd < 0 ? fd : listXattrs(fd, request, reply, isPrivate)
    }
    const names = this.#allOfImage(node).flatMap(({ name }) => (isPrivate(name) ? [] : [name, NUL]))
    return answerNames(Buffer.concat(names), request.word(XATTR_IN.count), reply)
  }

  #allOfImage(node: OverlayNode): ReturnType<OverlayLower['xattrs']> {
    return node.lower === undefined ? [] : this.#lower.xattrs(node.lower)
  }

  /** SETXATTR and REMOVEXATTR. */
  change(node: OverlayNode, request: FileRequest): number {
    const isSet = request.opcode === FILE_OPCODE.SETXATTR
    const name = request.text(isSet ? XATTR_IN.size : 0).subarray(0, -1)
    if (isPrivate(name)) return -ERRNO.EPERM
    const fd = this.#copy.raised(node)
    if (fd < 0) return fd
    return isSet ? setXattr(fd, request) : removeXattr(fd, request)
  }
}

const NUL = Buffer.alloc(1)
