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
import type { OverlayNode } from './overlay-node.ts'
import type { OverlayNodes } from './overlay-nodes.ts'

interface ListedName {
  readonly name: Uint8Array
  readonly type: number
  readonly low: number
  readonly high: number
  /** Place in the listing, two words; the same for each process and after all changes. */
  readonly placeLow: number
  readonly placeHigh: number
}

const [CHARACTER_DEVICE, DIRECTORY, UNKNOWN] = [2, 4, 0]
const NUL = Buffer.alloc(1)
/** Behind `.` and `..` come names that the image has, in its order, then all others by their hashes. */
const FIRST_OF_IMAGE = 3
const OTHERS = 0x4000_0000

/** Names of both layers, each once, without what is deleted; a copy of them as of one moment. Minus an errno when the upper directory cannot be read. */
export function mergedNames(nodes: OverlayNodes, lower: OverlayLower, node: OverlayNode): ListedName[] | number {
  /** By name; undefined = deleted. */
  const upper = new Map<string, Omit<ListedName, 'placeLow' | 'placeHigh'> | undefined>()
  if (node.upper !== undefined) {
    const path = nodes.files.fd(node.upper)
    if (path < 0) return path
    const failed = readDirectoryNames(path, (name, type, inoLow, inoHigh) => {
      const isUnsure = type === CHARACTER_DEVICE || type === UNKNOWN
      const ended = Buffer.concat([name, NUL])
      const isDeleted = isUnsure && statAt(path, ended, nodes.files.stat) === 0 && isWhiteout(nodes.files.stat)
      const origin = isDeleted ? undefined : nodes.originAt(node, ended)
      const [low, high] = origin === undefined ? nodes.upperNumber(inoLow, inoHigh) : nodes.lowerNumber(origin)
      upper.set(keyOf(name), isDeleted ? undefined : { name, type, low, high })
    })
    if (failed < 0) return failed
  }
  const names: ListedName[] = []
  let place = FIRST_OF_IMAGE
  const list = (name: Uint8Array, ino: number, type: number): void => {
    const [key, here] = [keyOf(name), { placeLow: place++, placeHigh: 0 }]
    const over = upper.get(key)
    if (over !== undefined) names.push({ ...over, ...here })
    else if (!upper.has(key)) {
      const [low, high] = nodes.lowerNumber(ino)
      names.push({ name: Buffer.from(name), type, low, high, ...here })
    }
    upper.delete(key)
  }
  if (node.lower !== undefined) lower.list(node.lower, list)
  return [...names, ...byHash([...upper.values()].filter((one) => one !== undefined))]
}

function keyOf(name: Uint8Array): string {
  return Buffer.from(name).toString('latin1')
}

function byHash(names: ReadonlyArray<Omit<ListedName, 'placeLow' | 'placeHigh'>>): ListedName[] {
  return names
    .map((one) => {
      const [placeLow, high] = hashOf(one.name)
      return { ...one, placeLow, placeHigh: (OTHERS | (high >>> 2)) >>> 0 }
    })
    .sort((a, b) => a.placeHigh - b.placeHigh || a.placeLow - b.placeLow)
}

/** Two hashes of 32 bits, FNV-1a from two starts. */
function hashOf(name: Uint8Array): [low: number, high: number] {
  let [low, high] = [0x811c_9dc5, 0x9747_b28c]
  for (const byte of name) {
    low = Math.imul(low ^ byte, 0x0100_0193)
    high = Math.imul(high ^ byte ^ (low >>> 15), 0x85eb_ca6b)
  }
  return [low >>> 0, high >>> 0]
}

/** One listing of a directory. Its cookies are places of names: what is added or removed meanwhile moves none of them, and another process goes on with it. */
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
    const [fromLow, fromHigh] = [request.word(READ_IN.offset), request.word(READ_IN.offset + 4)]
    if ((fromLow === 0 && fromHigh === 0) || this.#names === undefined) {
      const names = parts.read()
      if (typeof names === 'number') return names
      const [low, high] = parts.self
      const dots = ['.', '..'].map((name, index) => {
        return { name: Buffer.from(name), type: DIRECTORY, low, high, placeLow: index + 1, placeHigh: 0 }
      })
      this.#names = [...dots, ...names]
    }
    reply.startList(request.word(READ_IN.count))
    for (let index = firstBehind(this.#names, fromLow, fromHigh); index < this.#names.length; index++) {
      const { name, type, low, high, placeLow, placeHigh } = this.#names[index]
      if (!reply.fits(name.length, parts.isPlus)) break
      const record = { name, type, inoLow: low, inoHigh: high, nextLow: placeLow, nextHigh: placeHigh }
      const found = parts.isPlus && index > 1 ? parts.look(Buffer.concat([name, NUL])) : undefined
      reply.add(record, parts.isPlus, found)
    }
    return reply.endList()
  }
}

/** Index of the first name whose place is behind this one. */
function firstBehind(names: readonly ListedName[], low: number, high: number): number {
  let [from, to] = [0, names.length]
  while (from < to) {
    const middle = (from + to) >> 1
    const { placeLow, placeHigh } = names[middle]
    if (placeHigh < high || (placeHigh === high && placeLow <= low)) from = middle + 1
    else to = middle
  }
  return from
}

/** Has a merged directory no names? 0, ENOTEMPTY or what else went wrong, negative. */
export function emptiness(nodes: OverlayNodes, lower: OverlayLower, node: OverlayNode): number {
  if (node.type !== TYPE.DIRECTORY) return -ERRNO.ENOTDIR
  const names = mergedNames(nodes, lower, node)
  if (typeof names === 'number') return names
  return names.length === 0 ? 0 : -ERRNO.ENOTEMPTY
}
