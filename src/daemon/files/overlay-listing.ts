import {
  type EntryAnswer,
  ERRNO,
  type FileReply,
  type FileRequest,
  READ_IN,
  statAt,
  TYPE,
  type WireAttributes,
} from '../../kernel/index.ts'
import { readDirectoryNames } from './host-listing.ts'
import type { OverlayLower } from './overlay-lower.ts'
import { isWhiteout } from './overlay-marks.ts'
import type { OverlayNode, OverlayNodes } from './overlay-nodes.ts'

interface ListedName {
  readonly name: Uint8Array
  readonly type: number
  readonly low: number
  readonly high: number
}

const [CHARACTER_DEVICE, DIRECTORY, UNKNOWN] = [2, 4, 0]
const NUL = Buffer.alloc(1)

/** Names of both layers, each once, without what is deleted; a copy of them as of one moment. Minus an errno when the upper directory cannot be read. */
export function mergedNames(nodes: OverlayNodes, lower: OverlayLower, node: OverlayNode): ListedName[] | number {
  const names: ListedName[] = []
  const seen = new Set<string>()
  if (node.upper !== undefined) {
    const path = nodes.files.fd(node.upper)
    if (path < 0) return path
    const failed = readDirectoryNames(path, (name, type, inoLow, inoHigh) => {
      seen.add(Buffer.from(name).toString('latin1'))
      const isUnsure = type === CHARACTER_DEVICE || type === UNKNOWN
      const ended = Buffer.concat([name, NUL])
      if (isUnsure && statAt(path, ended, nodes.files.stat) === 0 && isWhiteout(nodes.files.stat)) return
      const origin = nodes.originAt(node, ended)
      const [low, high] = origin === undefined ? nodes.upperNumber(inoLow, inoHigh) : nodes.lowerNumber(origin)
      names.push({ name, type, low, high })
    })
    if (failed < 0) return failed
  }
  if (node.lower === undefined) return names
  lower.list(node.lower, (view, ino, type) => {
    const name = Buffer.from(view)
    if (seen.has(name.toString('latin1'))) return
    const [low, high] = nodes.lowerNumber(ino)
    names.push({ name, type, low, high })
  })
  return names
}

/** One listing of a directory, with cookies that count its names: what is added or removed meanwhile moves none of them. */
export class OverlayListing {
  #names: readonly ListedName[] | undefined

  /** READDIR and READDIRPLUS; `look` gives an entry for a name (with its NUL), which counts as a lookup. */
  answer(
    request: FileRequest,
    reply: FileReply,
    parts: {
      readonly isPlus: boolean
      readonly read: () => ListedName[] | number
      readonly self: readonly [low: number, high: number]
      readonly look: (name: Uint8Array) => { answer: EntryAnswer; attributes: WireAttributes } | undefined
    },
  ): number {
    const from = request.number(READ_IN.offset)
    if (from === 0 || this.#names === undefined) {
      const names = parts.read()
      if (typeof names === 'number') return names
      const [low, high] = parts.self
      const dots = ['.', '..'].map((name) => ({ name: Buffer.from(name), type: DIRECTORY, low, high }))
      this.#names = [...dots, ...names]
    }
    reply.startList(request.word(READ_IN.count))
    for (let index = from; index < this.#names.length; index++) {
      const { name, type, low, high } = this.#names[index]
      if (!reply.fits(name.length, parts.isPlus)) break
      const record = { name, type, inoLow: low, inoHigh: high, nextLow: index + 1, nextHigh: 0 }
      const found = parts.isPlus && index > 1 ? parts.look(Buffer.concat([name, NUL])) : undefined
      reply.add(record, parts.isPlus, found)
    }
    return reply.endList()
  }
}

/** Has a merged directory no names? 0, ENOTEMPTY or what else went wrong, negative. */
export function emptiness(nodes: OverlayNodes, lower: OverlayLower, node: OverlayNode): number {
  if (node.type !== TYPE.DIRECTORY) return -ERRNO.ENOTDIR
  const names = mergedNames(nodes, lower, node)
  if (typeof names === 'number') return names
  return names.length === 0 ? 0 : -ERRNO.ENOTEMPTY
}
