import { COPY_IN, ERRNO, FILE_OPCODE, type FileRequest, LINK_IN, RENAME, SET, SETATTR_IN } from '../../kernel/index.ts'
import { type RenameRequest, renameOf } from './names.ts'
import type { OverlayCopy } from './overlay-copy.ts'
import type { OverlayNode } from './overlay-node.ts'
import type { OverlayNodes } from './overlay-nodes.ts'

/** Fetches the data of the image that a change needs; undefined when that is none. */
export function dataFor(request: FileRequest, nodes: OverlayNodes, copy: OverlayCopy): Promise<void> | undefined {
  const node = nodes.get(request.node)
  if (node === undefined) return undefined
  switch (request.opcode) {
    case FILE_OPCODE.WRITE:
    case FILE_OPCODE.FALLOCATE:
    case FILE_OPCODE.SETXATTR:
    case FILE_OPCODE.REMOVEXATTR:
      return copy.fetch(node)
    case FILE_OPCODE.SETATTR: {
      // what is cut off need not be fetched, if nothing can fail before
      const cuts = (request.word(SETATTR_IN.valid) & (SET.SIZE | SET.UID | SET.GID)) === SET.SIZE
      return copy.fetch(node, cuts ? request.number(SETATTR_IN.length) : undefined)
    }
    case FILE_OPCODE.LINK: {
      const linked = nodes.get(request.nodeAt(LINK_IN.node))
      return linked === undefined ? undefined : copy.fetch(linked)
    }
    case FILE_OPCODE.COPY_FILE_RANGE: {
      const to = nodes.get(request.nodeAt(COPY_IN.toNode))
      return to === undefined ? undefined : copy.fetch(to)
    }
    case FILE_OPCODE.RENAME:
    case FILE_OPCODE.RENAME2:
      return dataForRename(node, request, nodes, copy)
    default:
      return undefined
  }
}

function dataForRename(
  from: OverlayNode,
  request: FileRequest,
  nodes: OverlayNodes,
  copy: OverlayCopy,
): Promise<void> | undefined {
  const move = overlayRename(request, nodes)
  if (typeof move === 'number') return undefined // who answers tells
  const fetch = (directory: OverlayNode, name: Uint8Array): Promise<void> | undefined => {
    const found = nodes.find(directory, name)
    return typeof found === 'object' ? copy.fetch(found) : undefined
  }
  const source = fetch(from, move.name)
  // a target that is replaced need not be copied: only an exchange keeps it
  const target = move.flags === RENAME.EXCHANGE ? fetch(move.to, move.newName) : undefined
  return source === undefined || target === undefined ? (source ?? target) : both(source, target)
}

/** What RENAME asks for, with the directory that gets the name; or minus an errno. */
export function overlayRename(
  request: FileRequest,
  nodes: OverlayNodes,
): (Omit<RenameRequest, 'to'> & { to: OverlayNode }) | number {
  const move = renameOf(request)
  if (move === undefined) return -ERRNO.EINVAL
  const to = nodes.get(move.to)
  return to === undefined ? -ERRNO.ESTALE : { ...move, to }
}

/** Also when one fails: who waited may be the last who uses what they write to. */
async function both(...copies: ReadonlyArray<Promise<void>>): Promise<void> {
  for (const end of await Promise.allSettled(copies)) if (end.status === 'rejected') throw end.reason
}
