/**
 * Changes that cannot be made twice, and that the kernel hands out again when a process died over them: what was there is written before the change, so that the next process can tell whether it was made.
 * Source: docs/formats/daemon-state.md, "Changes that were begun".
 */
import {
  closeFd,
  CREATE_IN,
  ERRNO,
  FILE_OPCODE,
  type FileReply,
  type FileRequest,
  type HostStat,
  LINK_IN,
  MKDIR_IN,
  MKNOD_IN,
  readLink,
  SETXATTR_IN,
  TYPE,
} from '../../kernel/index.ts'
import { type Begun, MOST_CHANGES, requestKey, STANDING_BYTES, takeOldest } from './files-in-hand.ts'
import type { FilesJournal } from './files-journal.ts'
import { renameOf } from './names.ts'
import { appended, appends, handleOf } from './open-files.ts'
import { isResent, numberOf } from './request-number.ts'

/** A file system whose changes are noted, as one request finds it. Names end in NUL. */
export interface NotedTree<N> {
  /** Filled by {@link made}. */
  readonly stat: HostStat
  get(node: number): N | undefined
  /** What has this name: {@link NOTHING}, or what tells it from all others; the first of them is noted, more are what it was before it was copied. Undefined = it cannot be looked at. */
  standing(directory: N, name: Uint8Array): readonly Uint8Array[] | undefined
  /** What has this name: a descriptor that names it, which the caller closes, or minus an errno. */
  made(directory: N, name: Uint8Array): number
  /** Is this node the file that {@link made} has just found? */
  isMade(node: N): boolean
  /** As getxattr(2), the name with its NUL. */
  attribute(node: N, name: Uint8Array, into: Uint8Array): number
  /** The descriptor of a handle, if it has one. */
  fd(handle: number): number | undefined
  /** Of the file of a handle, in bytes; undefined = it cannot be looked at. */
  size(node: N, handle: number): number | undefined
}

/** Requests that make something with a name, and where in them the name stands. */
export const MADE: ReadonlyMap<number, number> = new Map([
  [FILE_OPCODE.MKDIR, MKDIR_IN.size],
  [FILE_OPCODE.MKNOD, MKNOD_IN.size],
  [FILE_OPCODE.SYMLINK, 0],
  [FILE_OPCODE.LINK, LINK_IN.size],
  [FILE_OPCODE.CREATE, CREATE_IN.size],
])
const CHANGES: ReadonlySet<number> = new Set([
  ...MADE.keys(),
  FILE_OPCODE.UNLINK,
  FILE_OPCODE.RMDIR,
  FILE_OPCODE.RENAME,
  FILE_OPCODE.RENAME2,
  FILE_OPCODE.REMOVEXATTR,
])
const XATTR_CREATE = 1
/** Times of files are those of the kernel's last tick, at most this long ago. */
const TICK_MS = 20

export const NOTHING = new Uint8Array(STANDING_BYTES)
const UNKNOWN = new Uint8Array(STANDING_BYTES).fill(0xff)
const THERE = new Uint8Array(STANDING_BYTES).fill(1)

/** The answers to a change: how many bytes stand in the reply, or minus an errno. */
interface ChangeAnswers {
  readonly make: () => number
  /** `result`: 0, or the bytes that were appended. */
  readonly tell: (result: number) => number
}

/** The changes of one mount. */
export class NotedChanges<N> {
  readonly #tree: NotedTree<N>
  readonly #journal: FilesJournal
  readonly #target = new Uint8Array(4096)
  /** Of this process, by {@link requestKey}: whoever leaves the session has the kernel hand out again what others have in hand too. */
  readonly #results = new Map<string, number>()

  constructor(tree: NotedTree<N>, journal: FilesJournal) {
    this.#tree = tree
    this.#journal = journal
  }

  /** Is it one of those? */
  has(request: FileRequest): boolean {
    switch (request.opcode) {
      case FILE_OPCODE.WRITE:
        return appends(request)
      case FILE_OPCODE.SETXATTR:
        return request.word(SETXATTR_IN.flags) === XATTR_CREATE
      default:
        return CHANGES.has(request.opcode)
    }
  }

  /** Answers one of those: by `make`, or, when another process has made it and perhaps did not tell, by `tell`, who gets what it came to there. What it comes to is noted before anybody is told. */
  answer(node: N, request: FileRequest, reply: FileReply, by: ChangeAnswers): number {
    const made = this.#made(node, request)
    if (made === undefined) this.#begin(node, request)
    const result = made === undefined ? by.make() : made < 0 ? made : by.tell(made)
    this.#end(request, request.opcode === FILE_OPCODE.WRITE && result > 0 ? reply.counted : result)
    return result
  }

  /**
   * What came of a request in another process, or in this one before it was handed out again: 0 or more when it was made (the bytes that were appended), else minus an errno; undefined = it is to be made, the first time or again.
   */
  #made(node: N, request: FileRequest): number | undefined {
    if (!isResent(request)) return undefined
    const { changes } = this.#journal.before
    const key = requestKey(request.uniqueLow, request.uniqueHigh)
    const own = this.#results.get(key)
    if (own !== undefined) return own
    const change = changes.get(key)
    if (change === undefined) return undefined
    changes.delete(key) // who answers it writes it anew
    if (change.result !== undefined) return change.result
    return change.begun === undefined ? undefined : this.#resultOf(node, request, change.begun)
  }

  /** Before it is made. */
  #begin(node: N, request: FileRequest): void {
    this.#journal.change({ ...numberOf(request), begun: { at: Date.now(), before: this.#before(node, request) } })
  }

  /** After it was made: 0, bytes, or minus an errno. */
  #end(request: FileRequest, result: number): void {
    this.#journal.change({ ...numberOf(request), result })
    this.#results.set(requestKey(request.uniqueLow, request.uniqueHigh), result)
    if (this.#results.size > MOST_CHANGES) takeOldest(this.#results)
  }

  #before(node: N, request: FileRequest): Uint8Array {
    switch (request.opcode) {
      case FILE_OPCODE.WRITE:
        return this.#size(node, request)
      case FILE_OPCODE.SETXATTR:
      case FILE_OPCODE.REMOVEXATTR:
        return this.#attribute(node, request)
      case FILE_OPCODE.RENAME:
      case FILE_OPCODE.RENAME2:
        return this.#standing(node, renameOf(request)?.name)[0]
      default:
        return this.#standing(node, request.name(MADE.get(request.opcode) ?? 0))[0]
    }
  }

  #resultOf(node: N, request: FileRequest, begun: Begun): number | undefined {
    if (request.opcode !== FILE_OPCODE.WRITE) return this.#isMade(node, request, begun) ? 0 : undefined
    const fd = this.#tree.fd(handleOf(request))
    const size = sizeIn(begun.before)
    const bytes = fd === undefined || size === undefined ? 0 : appended(fd, size, request)
    return bytes > 0 ? bytes : undefined
  }

  #isMade(node: N, request: FileRequest, { at, before }: Begun): boolean {
    const was = isThing(before)
    switch (request.opcode) {
      case FILE_OPCODE.REMOVEXATTR:
        return was && isSame(this.#attribute(node, request), NOTHING)
      case FILE_OPCODE.SETXATTR:
        return isSame(before, NOTHING) && this.#hasValue(node, request)
      case FILE_OPCODE.UNLINK:
      case FILE_OPCODE.RMDIR:
        return was && isOther(this.#standing(node, request.name(0)), before)
      case FILE_OPCODE.RENAME:
      case FILE_OPCODE.RENAME2: {
        const move = renameOf(request)
        const to = move === undefined ? undefined : this.#tree.get(move.to)
        return (
          was && isOther(this.#standing(node, move?.name), before) && isAmong(this.#standing(to, move?.newName), before)
        )
      }
      default:
        return isSame(before, NOTHING) && this.#isOurs(node, request, at)
    }
  }

  /** Is what has the name what this request would have made, then or later? */
  #isOurs(directory: N, request: FileRequest, at: number): boolean {
    const name = request.name(MADE.get(request.opcode) ?? 0)
    const fd = name === undefined ? -1 : this.#tree.made(directory, name)
    if (name === undefined || fd < 0) return false
    const { stat } = this.#tree
    try {
      if (request.opcode === FILE_OPCODE.LINK) {
        const linked = this.#tree.get(request.nodeAt(LINK_IN.node))
        return stat.changedMs >= at - TICK_MS && linked !== undefined && this.#tree.isMade(linked)
      }
      if (stat.bornMs < at - TICK_MS || stat.uid !== request.uid) return false
      if (request.opcode === FILE_OPCODE.SYMLINK) return this.#pointsTo(fd, request.text(name.length))
      return this.#isAsAsked(request)
    } finally {
      closeFd(fd)
    }
  }

  /** MKDIR, MKNOD and CREATE, with what stands in the tree's stat. The mode may have fewer bits (ACLs of the directory), and the directory's own group bit. */
  #isAsAsked(request: FileRequest): boolean {
    const { stat } = this.#tree
    const isDirectory = request.opcode === FILE_OPCODE.MKDIR
    const isNode = request.opcode === FILE_OPCODE.MKNOD
    const mode = request.word(isDirectory ? MKDIR_IN.mode : isNode ? MKNOD_IN.mode : CREATE_IN.mode)
    const type = isDirectory ? TYPE.DIRECTORY : (isNode && mode & TYPE.MASK) || TYPE.FILE
    if (stat.type !== type || (stat.mode & 0o5777 & ~mode) !== 0) return false
    if (isDirectory) return true
    const isDevice = type === TYPE.CHARACTER || type === TYPE.BLOCK
    return stat.nlink === 1 && stat.size === 0 && (!isDevice || stat.rdev === request.word(MKNOD_IN.device))
  }

  #pointsTo(link: number, target: Uint8Array): boolean {
    if (this.#tree.stat.type !== TYPE.LINK) return false
    const length = readLink(link, this.#target)
    return length === target.length - 1 && isSame(this.#target.subarray(0, length), target.subarray(0, length))
  }

  #standing(directory: N | undefined, name: Uint8Array | undefined): readonly Uint8Array[] {
    const known = directory === undefined || name === undefined ? undefined : this.#tree.standing(directory, name)
    return known ?? [UNKNOWN]
  }

  #attribute(node: N, request: FileRequest): Uint8Array {
    const size = this.#tree.attribute(node, attributeName(request), new Uint8Array(0))
    return size >= 0 ? THERE : size === -ERRNO.ENODATA ? NOTHING : UNKNOWN
  }

  #hasValue(node: N, request: FileRequest): boolean {
    const name = attributeName(request)
    const value = request.data(SETXATTR_IN.size + name.length, request.word(SETXATTR_IN.count))
    const found = new Uint8Array(value.length + 1)
    const size = this.#tree.attribute(node, name, found)
    return size === value.length && isSame(found.subarray(0, size), value)
  }

  /** Of the file that is written to. */
  #size(node: N, request: FileRequest): Uint8Array {
    const bytes = this.#tree.size(node, handleOf(request))
    if (bytes === undefined) return UNKNOWN
    const size = Buffer.alloc(STANDING_BYTES)
    size.writeBigUInt64LE(BigInt(bytes))
    return size
  }
}

function sizeIn(standing: Uint8Array): number | undefined {
  return isSame(standing, UNKNOWN) ? undefined : Number(Buffer.from(standing).readBigUInt64LE())
}

function attributeName(request: FileRequest): Uint8Array {
  return request.text(request.opcode === FILE_OPCODE.SETXATTR ? SETXATTR_IN.size : 0)
}

function isSame(one: Uint8Array, other: Uint8Array): boolean {
  return Buffer.compare(one, other) === 0
}

function isThing(standing: Uint8Array): boolean {
  return !isSame(standing, NOTHING) && !isSame(standing, UNKNOWN)
}

/** Nothing, or something else. */
function isOther(now: readonly Uint8Array[], before: Uint8Array): boolean {
  return !isAmong(now, UNKNOWN) && !isAmong(now, before)
}

function isAmong(now: readonly Uint8Array[], before: Uint8Array): boolean {
  return now.some((one) => isSame(one, before))
}
