import {
  changeMode,
  changeOwnerOf,
  changeTimes,
  closeFd,
  ERRNO,
  type HostFile,
  KernelError,
  linkFd,
  makeDirectory,
  makeLink,
  makeNodeAt,
  O,
  openAt,
  removeFile,
  RENAME,
  renameAt,
  setXattrOf,
  syncLater,
  truncateFd,
  TYPE,
  writeFd,
} from '../../kernel/index.ts'
import type { Ino } from '../../rafs/index.ts'
import type { OverlayLower } from './overlay-lower.ts'
import { isPrivate, markOrigin } from './overlay-marks.ts'
import type { OverlayNode } from './overlay-node.ts'
import type { OverlayNodes } from './overlay-nodes.ts'
import type { OverlayWork } from './overlay-work.ts'

/** Gives bytes of a file of the image, fetched and verified; fewer than asked for only at its end. */
export type FetchLower = (ino: Ino, offset: number, count: number) => Promise<Uint8Array>

const PIECE_BYTES = 1 << 20
/** Zeros of this length and alignment become holes. */
const BLOCK_BYTES = 4096
const NO_BYTES = Buffer.alloc(BLOCK_BYTES)
const OWNER_ONLY = 0o600

/**
 * Copies files of the image to the upper directory before they are changed: with owner, mode, times, extended attributes, holes and all their names, each whole or not at all. The data is fetched by
 * {@link fetch}, ahead and aside; {@link raise} does the rest in one go, between two requests.
 */
export class OverlayCopy {
  readonly #nodes: OverlayNodes
  readonly #lower: OverlayLower
  readonly #work: OverlayWork
  readonly #fetch: FetchLower

  constructor(parts: { nodes: OverlayNodes; lower: OverlayLower; work: OverlayWork; fetch: FetchLower }) {
    this.#nodes = parts.nodes
    this.#lower = parts.lower
    this.#work = parts.work
    this.#fetch = parts.fetch
  }

  /** Fetches what {@link raise} will need; undefined when that is nothing. `limit`: so many bytes are enough. Rejects when they cannot be had. */
  fetch(node: OverlayNode, limit = Number.POSITIVE_INFINITY): Promise<void> | undefined {
    if (node.upper !== undefined || node.lower === undefined || node.type !== TYPE.FILE) return undefined
    if (node.copy !== undefined) return undefined
    node.copying ??= this.#copyData(node, node.lower, limit).finally(() => (node.copying = undefined))
    return node.copying
  }

  async #copyData(node: OverlayNode, ino: Ino, limit: number): Promise<void> {
    this.#lower.look(ino)
    const size = Math.min(this.#lower.of.size, limit)
    const name = this.#work.freshName()
    const fd = openAt(this.#work.fd, name, O.RDWR | O.CREAT | O.EXCL, OWNER_ONLY)
    if (fd < 0) throw new CopyError(-fd)
    try {
      check(truncateFd(fd, size))
      for (let offset = 0; offset < size; ) {
        const piece = await this.#fetch(ino, offset, Math.min(PIECE_BYTES, size - offset))
        if (piece.length === 0) throw new CopyError(ERRNO.EIO)
        writeWithoutZeros(fd, piece, offset)
        offset += piece.length
      }
      check(await syncLater(fd))
      if (this.#work.fd < 0) throw new CopyError(ERRNO.ESTALE) // unmounted meanwhile
      node.copy = { fd, name }
    } catch (error) {
      closeFd(fd)
      removeFile(this.#work.fd, name)
      throw error
    }
  }

  /** Makes the upper layer have the file, and the directories above it. 0 or minus an errno; then nothing has changed. */
  raise(node: OverlayNode): number {
    if (node.upper !== undefined) return 0
    if (node.lower === undefined) return -ERRNO.ESTALE
    return node.type === TYPE.DIRECTORY ? this.#raiseDirectory(node, node.lower) : this.#raiseFile(node, node.lower)
  }

  /** A descriptor that names the upper file, which there is from now on; or minus an errno. */
  raised(node: OverlayNode): number {
    const failed = this.raise(node)
    return failed < 0 ? failed : this.#nodes.files.fd(node.upper as HostFile) // raised just now
  }

  #raiseDirectory(node: OverlayNode, ino: Ino): number {
    const { parent } = node
    if (node.isGone || parent === undefined) return -ERRNO.ENOENT
    const above = this.raise(parent)
    if (above < 0) return above
    const name = this.#work.freshName()
    const made = makeDirectory(this.#work.fd, name, 0o700)
    if (made < 0) return made
    const fd = openAt(this.#work.fd, name, O.RDONLY, 0)
    const failed = fd < 0 ? fd : this.#finish(fd, ino, node.type)
    const placed = failed < 0 ? failed : this.#place(parent, name, node.name)
    if (placed < 0) this.#work.discard(name)
    const taken = placed < 0 ? placed : this.#take(node, fd)
    if (fd >= 0) closeFd(fd)
    return taken
  }

  #raiseFile(node: OverlayNode, ino: Ino): number {
    const copy = node.copy ?? this.#makeSpecial(node, ino)
    if (typeof copy === 'number') return copy
    const failed = this.#finish(copy.fd, ino, node.type)
    const placed = failed < 0 ? failed : this.#placeAll(node, ino, copy)
    node.copy = undefined
    if (placed < 0) {
      this.drop(copy) // it may be no more than what one change needed: the next one fetches its own
      return placed
    }
    const taken = this.#take(node, copy.fd)
    closeFd(copy.fd)
    if (node.isGone && node.upper !== undefined) this.#nodes.files.pin(node.upper)
    return taken
  }

  /** A link or a device: its whole content is known. Its descriptor only names it. */
  #makeSpecial(node: OverlayNode, ino: Ino): { fd: number; name: Uint8Array } | number {
    if (node.type === TYPE.FILE) return -ERRNO.EIO // its data was to be fetched before
    this.#lower.look(ino)
    const name = this.#work.freshName()
    const made =
      node.type === TYPE.LINK
        ? makeLink(this.#work.fd, name, Buffer.concat([this.#lower.readlink(ino), NUL]))
        : makeNodeAt(this.#work.fd, name, node.type | OWNER_ONLY, this.#lower.of.rdev)
    if (made < 0) return made
    const fd = openAt(this.#work.fd, name, O.PATH, 0)
    if (fd < 0) removeFile(this.#work.fd, name)
    return fd < 0 ? fd : { fd, name }
  }

  /** Owner, then mode and attributes, which a change of the owner would take away; times last. */
  #finish(fd: number, ino: Ino, type: number): number {
    this.#lower.look(ino)
    const { of } = this.#lower
    const [mode, uid, gid, times] = [of.mode & 0o7777, of.uid, of.gid, timesOf(of.mtime, of.mtimeNsec)]
    const owned = changeOwnerOf(fd, uid, gid)
    if (owned < 0) return owned
    const moded = type === TYPE.LINK ? 0 : changeMode(fd, mode)
    if (moded < 0) return moded
    for (const { name, value } of this.#lower.xattrs(ino)) {
      if (isPrivate(name)) continue
      const failed = setXattrOf(fd, Buffer.concat([name, NUL]), value, 0)
      if (failed < 0 && failed !== -ERRNO.EOPNOTSUPP) return failed
    }
    if (type !== TYPE.DIRECTORY) markOrigin(fd, ino)
    return changeTimes(fd, times)
  }

  /** Under all the names that are left of it: they are one file, as before. */
  #placeAll(node: OverlayNode, ino: Ino, copy: { fd: number; name: Uint8Array }): number {
    const places = node.isGone ? [] : this.#places(node, ino)
    if (places.length === 0) {
      node.isGone = true // also where names went before anybody counted them
      return removeFile(this.#work.fd, copy.name)
    }
    for (const { parent } of places) {
      const above = this.raise(parent)
      if (above < 0) return above
    }
    this.#lower.look(ino)
    if (this.#lower.of.nlink < 2) return this.#place(places[0].parent, copy.name, places[0].name)
    this.#nodes.placing(node, copy.fd)
    const linked: Place[] = []
    for (const place of places) {
      const failed = this.#keepingTimes(place.parent, (to) => linkFd(copy.fd, to, place.name))
      if (failed === 0) linked.push(place)
      else if (failed !== -ERRNO.EEXIST) {
        for (const { parent, name } of linked) this.#keepingTimes(parent, (to) => removeFile(to, name))
        this.#nodes.placing(node, undefined)
        return failed
      }
    }
    return removeFile(this.#work.fd, copy.name)
  }

  #places(node: OverlayNode, ino: Ino): Place[] {
    this.#lower.look(ino)
    const own = node.parent === undefined ? [] : [{ parent: node.parent, name: node.name }]
    if (this.#lower.of.nlink < 2) return own
    return this.#allPlaces(ino).filter(({ parent, name }) => this.#nodes.find(parent, name) === node)
  }

  /** Where the image has a file of several names, as far as the directories can still be seen. */
  #allPlaces(ino: Ino): Place[] {
    return this.#lower.names(ino).flatMap(({ directory, name }) => {
      const parent = this.#directory(directory)
      return parent === undefined ? [] : [{ parent, name }]
    })
  }

  /** How many names are left of a file or directory that only the image has. */
  namesLeft(node: OverlayNode, ino: Ino): number {
    const isOne = this.#lower.look(ino) === TYPE.DIRECTORY || this.#lower.of.nlink < 2
    const own = node.parent === undefined ? [] : [{ parent: node.parent, name: node.name }]
    const places = isOne ? own : this.#allPlaces(ino)
    return places.filter(({ parent, name }) => this.#nodes.find(parent, name) === node).length
  }

  /** Takes back what another process had placed of a copy, which was about to get several names: none of them has been changed since. Throws KernelError where the host does not. */
  takeBack(ino: Ino, handle: Uint8Array): void {
    const { files } = this.#nodes
    for (const { parent, name } of this.#allPlaces(ino)) {
      const fd = parent.upper === undefined ? -1 : files.lookup(parent.upper, name)
      if (fd < 0) continue
      const placed = files.openedHandle(fd)
      closeFd(fd)
      if (placed === undefined || Buffer.compare(placed, handle) !== 0) continue
      const failed = this.#keepingTimes(parent, (directory) => removeFile(directory, name))
      if (failed < 0) throw new KernelError('unlink', -failed, `cannot take back a copy of inode ${ino} of the image`)
    }
  }

  /** The node of a directory of the image, if it can still be seen. */
  #directory(ino: Ino): OverlayNode | undefined {
    const place = this.#lower.place(ino)
    if (place === undefined) return ino === this.#lower.root ? this.#nodes.root : undefined
    const parent = this.#directory(place.directory)
    const found = parent === undefined ? undefined : this.#nodes.find(parent, place.name)
    return typeof found === 'object' && found.lower === ino ? found : undefined
  }

  #place(parent: OverlayNode, made: Uint8Array, name: Uint8Array): number {
    return this.#keepingTimes(parent, (to) => renameAt(this.#work.fd, made, to, name, RENAME.NOREPLACE))
  }

  /** A directory does not change for its users when one of its files is copied. */
  #keepingTimes(parent: OverlayNode, act: (directory: number) => number): number {
    const { files } = this.#nodes
    const directory = files.fd(parent.upper as HostFile) // it was raised before
    if (directory < 0) return directory
    const looked = files.look(parent.upper as HostFile)
    const times = looked < 0 ? undefined : files.stat.accessAndModification()
    const result = act(directory)
    if (times !== undefined) changeTimes(directory, times)
    return result
  }

  #take(node: OverlayNode, fd: number): number {
    const path = this.#nodes.files.lookupOpen(fd)
    if (path < 0) return path
    this.#nodes.setUpper(node, this.#nodes.files.adopt(path))
    return 0
  }

  /** Removes a copy that nobody wants. */
  drop(copy: { readonly fd: number; readonly name: Uint8Array }): void {
    closeFd(copy.fd)
    removeFile(this.#work.fd, copy.name)
  }
}

const NUL = Buffer.alloc(1)

/** A name of a file that is copied. */
interface Place {
  readonly parent: OverlayNode
  readonly name: Uint8Array
}

/** A step of a copy that the host's file system refused. */
export class CopyError extends Error {
  override readonly name = 'CopyError'
  readonly errno: number

  constructor(errno: number) {
    super(`a file could not be copied to the upper directory: errno ${errno}`)
    this.errno = errno
  }
}

function check(result: number): void {
  if (result < 0) throw new CopyError(-result)
}

function writeWithoutZeros(fd: number, piece: Uint8Array, offset: number): void {
  for (let at = 0; at < piece.length; ) {
    let end = at
    while (end < piece.length && !isZero(piece, end)) end += BLOCK_BYTES
    end = Math.min(end, piece.length)
    for (let from = at; from < end; ) {
      const put = writeFd(fd, piece.subarray(from, end), offset + from)
      if (put < 0) throw new CopyError(-put)
      from += put
    }
    at = end < piece.length ? end + BLOCK_BYTES : end
  }
}

function isZero(piece: Uint8Array, at: number): boolean {
  const block = piece.subarray(at, at + BLOCK_BYTES)
  return Buffer.compare(block, block.length === BLOCK_BYTES ? NO_BYTES : NO_BYTES.subarray(0, block.length)) === 0
}

/** Two `struct timespec`: the image has no time of access. */
function timesOf(seconds: number, nanoseconds: number): Uint8Array {
  const times = Buffer.alloc(32)
  for (const at of [0, 16]) {
    times.writeBigInt64LE(BigInt(seconds), at)
    times.writeBigInt64LE(BigInt(nanoseconds), at + 8)
  }
  return times
}
