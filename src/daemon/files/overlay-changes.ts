import {
  actingAs,
  changeMode,
  changeOwnerOf,
  closeFd,
  ERRNO,
  type HostFile,
  openAt,
  O,
  removeDirectory,
  removeFile,
  RENAME,
  renameAt,
  statAt,
  statFd,
  TYPE,
} from '../../kernel/index.ts'
import type { OverlayCopy } from './overlay-copy.ts'
import { emptiness } from './overlay-listing.ts'
import type { OverlayLower } from './overlay-lower.ts'
import { isWhiteout, markOpaque } from './overlay-marks.ts'
import type { OverlayNode } from './overlay-node.ts'
import type { OverlayNodes } from './overlay-nodes.ts'
import { clearDirectory, type OverlayWork } from './overlay-work.ts'

/** Who asks, and becomes the owner of what is made. */
export interface Asker {
  readonly uid: number
  readonly gid: number
}

/** What stands at a name in the upper directory. */
type UpperState = 'nothing' | 'mark' | 'directory' | 'other'

const SET_GID = 0o2000

/**
 * Names that come, go and move in an overlay. What the image has under a name that goes is hidden by a deletion mark, put there by the same rename that takes the name away; a directory in the place of one of the image is
 * marked opaque before it is seen. So a reader, or the next daemon after a crash, never sees what was deleted.
 */
export class OverlayChanges {
  readonly #nodes: OverlayNodes
  readonly #lower: OverlayLower
  readonly #work: OverlayWork
  readonly #copy: OverlayCopy

  constructor(parts: { nodes: OverlayNodes; lower: OverlayLower; work: OverlayWork; copy: OverlayCopy }) {
    this.#nodes = parts.nodes
    this.#lower = parts.lower
    this.#work = parts.work
    this.#copy = parts.copy
  }

  /**
   * Makes something under a name that is free. `make` makes it in a directory under a name, and gives 0 or more, or minus an errno; it runs as the asker. Gives what `make` gave.
   */
  make(
    parent: OverlayNode,
    name: Uint8Array,
    asker: Asker,
    make: (directory: number, name: Uint8Array) => number,
  ): number {
    if (parent.isGone) return -ERRNO.ENOENT
    const raised = this.#copy.raise(parent)
    if (raised < 0) return raised
    const { files } = this.#nodes
    const directory = files.fd(parent.upper as HostFile) // raised above
    if (directory < 0) return directory
    const state = this.#upperState(directory, name)
    const isFree = state === 'mark' || (state === 'nothing' && this.#nodes.lowerOf(parent, name) === undefined)
    if (!isFree) return -ERRNO.EEXIST
    if (state === 'nothing') return actingAs(asker.uid, asker.gid, () => make(directory, name))
    return this.#makeOverMark(directory, name, asker, make)
  }

  /** In the work directory first, since there is a mark in the place; from the directory it gets what it would get there. */
  #makeOverMark(
    directory: number,
    name: Uint8Array,
    { uid, gid }: Asker,
    make: (directory: number, name: Uint8Array) => number,
  ): number {
    const { stat } = this.#nodes.files
    const looked = statFd(directory, stat)
    if (looked < 0) return looked
    const groupOf = (stat.mode & SET_GID) === 0 ? undefined : stat.gid
    const fresh = this.#work.freshName()
    const made = actingAs(uid, groupOf ?? gid, () => make(this.#work.fd, fresh))
    if (made < 0) return made
    const failed = this.#putOverMark(directory, name, fresh, groupOf)
    if (failed >= 0) return made
    this.#work.discard(fresh)
    return failed
  }

  #putOverMark(directory: number, name: Uint8Array, fresh: Uint8Array, groupOf: number | undefined): number {
    const { stat } = this.#nodes.files
    const looked = statAt(this.#work.fd, fresh, stat)
    if (looked < 0) return looked
    if (stat.type !== TYPE.DIRECTORY) return renameAt(this.#work.fd, fresh, directory, name, 0)
    const { mode, uid } = stat
    const fd = openAt(this.#work.fd, fresh, O.RDONLY, 0)
    if (fd < 0) return fd
    const marked = markOpaque(fd)
    const owned = groupOf === undefined || marked < 0 ? marked : setGroup(fd, uid, groupOf, mode)
    closeFd(fd)
    if (owned < 0) return owned
    const placed = renameAt(this.#work.fd, fresh, directory, name, RENAME.EXCHANGE)
    return placed < 0 ? placed : this.#work.discard(fresh) // the mark is there now
  }

  /** UNLINK and RMDIR. */
  remove(parent: OverlayNode, name: Uint8Array, kind: 'file' | 'directory'): number {
    const node = this.#nodes.find(parent, name)
    if (typeof node !== 'object') return node ?? -ERRNO.ENOENT
    if ((node.type === TYPE.DIRECTORY) !== (kind === 'directory'))
      return kind === 'file' ? -ERRNO.EISDIR : -ERRNO.ENOTDIR
    if (kind === 'directory') {
      const filled = emptiness(this.#nodes, this.#lower, node)
      if (filled < 0) return filled
    }
    const raised = this.#copy.raise(parent)
    if (raised < 0) return raised
    const directory = this.#nodes.files.fd(parent.upper as HostFile) // raised above
    if (directory < 0) return directory
    const removed = this.#removeName(parent, directory, name, node)
    if (removed >= 0) this.#lostName(node)
    return removed < 0 ? removed : 0
  }

  #removeName(parent: OverlayNode, directory: number, name: Uint8Array, node: OverlayNode): number {
    const { files } = this.#nodes
    if (node.upper !== undefined) files.pin(node.upper)
    if (this.#nodes.lowerOf(parent, name) !== undefined) {
      const isDirectory = node.type === TYPE.DIRECTORY && node.upper !== undefined
      return isDirectory ? this.#work.whiteOutDirectory(directory, name) : this.#work.whiteOut(directory, name)
    }
    if (node.type !== TYPE.DIRECTORY) return removeFile(directory, name)
    const path = files.fd(node.upper as HostFile) // what the image has not is in the upper directory
    if (path >= 0) clearDirectory(path)
    return removeDirectory(directory, name)
  }

  /** After a name of it went. */
  #lostName(node: OverlayNode): void {
    if (node.upper === undefined) {
      this.#nodes.removedName(node)
      return
    }
    const { files } = this.#nodes
    if (node.type === TYPE.DIRECTORY || (files.look(node.upper) === 0 && files.stat.nlink === 0)) node.isGone = true
  }

  /** Another process removed a name, and perhaps had no time to say so: the file of the image that had it is counted again. */
  lostName(parent: OverlayNode, name: Uint8Array | undefined): void {
    const ino = name === undefined ? undefined : this.#nodes.lowerOf(parent, name)
    const node = ino === undefined ? undefined : this.#nodes.ofImage(ino)
    if (ino !== undefined && node !== undefined) this.#nodes.namesLeft(node, this.#copy.namesLeft(node, ino))
  }

  /** Another process renamed, and perhaps had no time for what follows. 0 or minus an errno. */
  renamed(from: OverlayNode, name: Uint8Array, to: OverlayNode, newName: Uint8Array, flags: number): number {
    this.lostName(to, newName)
    const directory = from.upper === undefined || flags === RENAME.EXCHANGE ? -1 : this.#nodes.files.fd(from.upper)
    if (directory < 0) return 0
    if (this.#upperState(directory, name) === 'mark')
      return this.#nodes.lowerOf(from, name) === undefined ? removeFile(directory, name) : 0
    const [left, moved] = [this.#nodes.find(from, name), this.#nodes.find(to, newName)]
    if (typeof left !== 'object' || typeof moved !== 'object') return 0
    // on a file system that cannot do both at once, what the image has under the old name shows until it is marked
    const isHalf = left.upper === undefined && moved.upper !== undefined && moved.origin === left.lower
    return isHalf ? this.#work.whiteOut(directory, name) : 0
  }

  /** RENAME and RENAME2. Data of the files was fetched before. */
  rename(from: OverlayNode, name: Uint8Array, to: OverlayNode, newName: Uint8Array, flags: number): number {
    const source = this.#nodes.find(from, name)
    if (typeof source !== 'object') return source ?? -ERRNO.ENOENT
    const target = this.#nodes.find(to, newName)
    if (typeof target === 'number') return target
    const allowed = this.#mayRename(source, target, flags)
    if (allowed < 0 || source === target) return allowed
    for (const node of [from, to, source, ...(flags === RENAME.EXCHANGE && target !== undefined ? [target] : [])]) {
      const raised = this.#copy.raise(node)
      if (raised < 0) return raised
    }
    const place = { from, name, to, newName, source, target }
    return flags === RENAME.EXCHANGE ? this.#exchange(place) : this.#move(place)
  }

  #mayRename(source: OverlayNode, target: OverlayNode | undefined, flags: number): number {
    if (flags !== 0 && flags !== RENAME.NOREPLACE && flags !== RENAME.EXCHANGE) return -ERRNO.EINVAL
    if (flags === RENAME.NOREPLACE && target !== undefined) return -ERRNO.EEXIST
    // a directory of the image would leave what is in it behind: programs copy then
    if (isMerged(source)) return -ERRNO.EXDEV
    if (flags === RENAME.EXCHANGE) return target === undefined ? -ERRNO.ENOENT : isMerged(target) ? -ERRNO.EXDEV : 0
    if (target === undefined) return 0
    const [isDirectory, overDirectory] = [source.type === TYPE.DIRECTORY, target.type === TYPE.DIRECTORY]
    if (isDirectory !== overDirectory) return isDirectory ? -ERRNO.ENOTDIR : -ERRNO.EISDIR
    return overDirectory ? emptiness(this.#nodes, this.#lower, target) : 0
  }

  #move({ from, name, to, newName, source, target }: Move): number {
    const { files } = this.#nodes
    const [fromFd, toFd] = [files.fd(from.upper as HostFile), files.fd(to.upper as HostFile)] // raised before
    if (fromFd < 0 || toFd < 0) return Math.min(fromFd, toFd)
    const leavesMark = this.#nodes.lowerOf(from, name) !== undefined
    const isDirectory = source.type === TYPE.DIRECTORY
    if (target?.upper !== undefined) files.pin(target.upper)
    if (isDirectory && this.#nodes.lowerOf(to, newName) !== undefined) {
      const marked = markOpaque(files.fd(source.upper as HostFile)) // what the image has there must not show through
      if (marked < 0) return marked
    }
    const state = this.#upperState(toFd, newName)
    const moved =
      isDirectory && state === 'mark'
        ? this.#swapWithMark(fromFd, name, toFd, newName, leavesMark)
        : this.#moveOver(fromFd, name, toFd, newName, {
            leavesMark,
            emptied: state === 'directory' ? target : undefined,
          })
    if (moved < 0) return moved
    this.#nodes.moved(source, to, newName)
    if (target !== undefined) this.#lostName(target)
    return 0
  }

  /** The mark takes the directory's place, where it is wanted or not. */
  #swapWithMark(fromFd: number, name: Uint8Array, toFd: number, newName: Uint8Array, leavesMark: boolean): number {
    const failed = renameAt(fromFd, name, toFd, newName, RENAME.EXCHANGE)
    return failed < 0 || leavesMark ? failed : removeFile(fromFd, name)
  }

  #moveOver(
    fromFd: number,
    name: Uint8Array,
    toFd: number,
    newName: Uint8Array,
    { leavesMark, emptied }: { leavesMark: boolean; emptied: OverlayNode | undefined },
  ): number {
    if (emptied?.upper !== undefined) {
      // it is empty to its users; the marks in it must go without showing what they hide
      const path = this.#nodes.files.fd(emptied.upper)
      const marked = path < 0 ? path : markOpaque(path)
      if (marked < 0) return marked
      this.#nodes.unmerge(emptied)
      clearDirectory(path)
    }
    if (!leavesMark) return renameAt(fromFd, name, toFd, newName, 0)
    const moved = renameAt(fromFd, name, toFd, newName, RENAME.WHITEOUT)
    if (moved !== -ERRNO.EINVAL) return moved
    // a file system that cannot do both at once
    const apart = renameAt(fromFd, name, toFd, newName, 0)
    return apart < 0 ? apart : this.#work.whiteOut(fromFd, name)
  }

  #exchange({ from, name, to, newName, source, target }: Move): number {
    const { files } = this.#nodes
    if (target === undefined) return -ERRNO.ENOENT
    const [fromFd, toFd] = [files.fd(from.upper as HostFile), files.fd(to.upper as HostFile)] // raised before
    if (fromFd < 0 || toFd < 0) return Math.min(fromFd, toFd)
    for (const [node, parent, at] of [
      [source, to, newName],
      [target, from, name],
    ] as const) {
      if (node.type !== TYPE.DIRECTORY || this.#nodes.lowerOf(parent, at) === undefined) continue
      const marked = markOpaque(files.fd(node.upper as HostFile))
      if (marked < 0) return marked
    }
    const failed = renameAt(fromFd, name, toFd, newName, RENAME.EXCHANGE)
    if (failed < 0) return failed
    this.#nodes.moved(source, to, newName)
    this.#nodes.moved(target, from, name)
    return 0
  }

  #upperState(directory: number, name: Uint8Array): UpperState {
    const { stat } = this.#nodes.files
    if (statAt(directory, name, stat) < 0) return 'nothing'
    return isWhiteout(stat) ? 'mark' : stat.type === TYPE.DIRECTORY ? 'directory' : 'other'
  }
}

interface Move {
  readonly from: OverlayNode
  readonly name: Uint8Array
  readonly to: OverlayNode
  readonly newName: Uint8Array
  readonly source: OverlayNode
  readonly target: OverlayNode | undefined
}

function isMerged(node: OverlayNode): boolean {
  return node.type === TYPE.DIRECTORY && node.lower !== undefined
}

/** A directory below one with the set-group-id bit has its group and its bit. */
function setGroup(fd: number, uid: number, gid: number, mode: number): number {
  const failed = changeOwnerOf(fd, uid, gid)
  return failed < 0 ? failed : changeMode(fd, (mode & 0o7777) | SET_GID)
}
