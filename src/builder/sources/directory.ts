import {
  type BigIntStats,
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readdirSync,
  readlinkSync,
  readSync,
} from 'node:fs'
import type { Content } from '../content.ts'
import { BuilderError } from '../errors.ts'
import { shown, toKey } from '../image-path.ts'
import { type LayerNode, newNode, type Xattr } from '../layer-tree.ts'
import { type WhiteoutSpec, whiteoutOf } from '../whiteout.ts'
import { sortedXattrs } from '../xattrs.ts'
import { readXattrs, seekData } from './linux.ts'

const MAX_LINK_BYTES = 4095
const SLASH = Buffer.from('/')

export interface DirectoryOptions {
  /** False: uid and gid become 0. */
  readonly keepOwners: boolean
  /** Markers of this kind are left out; undefined keeps them, for a layer that is laid over a parent. */
  readonly dropWhiteouts: WhiteoutSpec | undefined
  readonly signal: AbortSignal
}

/** A directory's tree, and where the content of each of its files is. */
export interface DirectoryScan {
  readonly root: LayerNode
  readonly contents: ReadonlyMap<LayerNode, FileContent>
}

/**
 * Reads a directory: what `lstat` says, extended attributes, hard links among its files. Nothing of files is read yet. The root's own time is left out,
 * so that two builds of one tree are equal. Throws 'SOURCE_CHANGED' when an entry disappears meanwhile.
 */
export function scanDirectory(path: string, options: DirectoryOptions): DirectoryScan {
  const contents = new Map<LayerNode, FileContent>()
  const links = new Map<string, LayerNode>()
  const load = (at: Buffer, shownPath: string): LayerNode => {
    const stats = guarded(shownPath, () => lstatSync(at, { bigint: true }))
    const linkKey = stats.isFile() && stats.nlink > 1n ? `${stats.dev}:${stats.ino}` : undefined
    const linked = linkKey === undefined ? undefined : links.get(linkKey)
    if (linked !== undefined) return linked
    const node = nodeOf(at, shownPath, stats, options)
    if (linkKey !== undefined) links.set(linkKey, node)
    if (stats.isFile() && node.size > 0) contents.set(node, new FileContent(at, shownPath, stats))
    return node
  }
  const source = Buffer.from(path)
  const root = load(source, '/')
  root.mtime = 0
  root.mtimeNsec = 0
  const open: Array<{ readonly node: LayerNode; readonly path: Buffer; readonly shown: string }> = [
    { node: root, path: source, shown: '' },
  ]
  for (let directory = open.pop(); directory !== undefined; directory = open.pop()) {
    options.signal.throwIfAborted()
    const { node, path: at, shown: prefix } = directory
    for (const name of guarded(prefix || '/', () => readdirSync(at, { encoding: 'buffer' }))) {
      const key = toKey(name)
      const childPath = Buffer.concat([at, SLASH, name])
      const childShown = `${prefix}/${name.toString('utf8')}`
      const child = load(childPath, childShown)
      const whiteout = options.dropWhiteouts === undefined ? undefined : whiteoutOf(key, child, options.dropWhiteouts)
      if (whiteout !== undefined && whiteout.kind !== 'opaque-self') continue
      node.children?.set(key, child)
      if (child.children !== undefined) open.push({ node: child, path: childPath, shown: childShown })
    }
  }
  return { root, contents }
}

function nodeOf(path: Buffer, shownPath: string, stats: BigIntStats, { keepOwners }: DirectoryOptions): LayerNode {
  const node = newNode(Number(stats.mode))
  if (keepOwners) {
    node.uid = Number(stats.uid)
    node.gid = Number(stats.gid)
  }
  // Floor division: a time before 1970 has its nanoseconds counted upwards too.
  const nanoseconds = ((stats.mtimeNs % 1_000_000_000n) + 1_000_000_000n) % 1_000_000_000n
  node.mtime = Number((stats.mtimeNs - nanoseconds) / 1_000_000_000n)
  node.mtimeNsec = Number(nanoseconds)
  node.xattrs = sortedXattrs(readXattrsOf(path, shownPath), () => shownPath)
  if (stats.isFile()) node.size = Number(stats.size)
  else if (stats.isSymbolicLink()) {
    node.target = guarded(shownPath, () => readlinkSync(path, { encoding: 'buffer' }))
    if (node.target.length > MAX_LINK_BYTES)
      throw new BuilderError(
        'BAD_SOURCE',
        `the symlink ${shownPath} has a target of ${node.target.length} bytes; ${MAX_LINK_BYTES} are the limit`,
      )
    node.size = node.target.length
  } else if (!stats.isDirectory()) node.rdev = deviceOf(stats.rdev)
  return node
}

/** Linux's 64-bit dev_t of glibc, in the kernel's 32 bits. */
function deviceOf(rdev: bigint): number {
  return Number(rdev & 0xffff_ffffn)
}

function readXattrsOf(path: Buffer, shownPath: string): readonly Xattr[] {
  return guarded(shownPath, () => readXattrs(path))
}

/** Names the entry at fault; one that is gone since its folder was listed is a change of the source. */
function guarded<T>(shownPath: string, read: () => T): T {
  try {
    return read()
  } catch (cause) {
    if (cause instanceof BuilderError) throw cause
    const isGone = (cause as NodeJS.ErrnoException).code === 'ENOENT'
    const message = cause instanceof Error ? cause.message : String(cause)
    throw new BuilderError(
      isGone ? 'SOURCE_CHANGED' : 'BAD_SOURCE',
      `cannot read ${shownPath} of the source: ${message}`,
      { cause },
    )
  }
}

/** A file's bytes, read once from start to end; it must be the file that was listed, and stay it. */
class FileContent implements Content {
  readonly name: string
  readonly size: number
  readonly holes: Content['holes']
  readonly #path: Buffer
  readonly #listed: BigIntStats
  #fd = -1
  #position = 0

  constructor(path: Buffer, name: string, listed: BigIntStats) {
    this.#path = path
    this.name = name
    this.#listed = listed
    this.size = Number(listed.size)
    const isSparse = listed.blocks * 512n < listed.size
    this.holes = isSparse
      ? {
          nextData: (offset) => seekData(this.#open(), offset, this.size),
          skip: (bytes) => {
            this.#position += bytes
          },
        }
      : undefined
  }

  read(into: Uint8Array): number {
    const got = guarded(this.name, () => readSync(this.#open(), into, 0, into.length, this.#position))
    this.#position += got
    return got
  }

  /** To be called in the end, also after an error. Throws 'SOURCE_CHANGED' when the file is not what it was when it was listed. */
  close(isComplete: boolean): void {
    const fd = this.#fd
    if (fd < 0) return
    this.#fd = -1
    try {
      if (isComplete) this.#compare(fstatSync(fd, { bigint: true }))
    } finally {
      closeSync(fd)
    }
  }

  #open(): number {
    if (this.#fd >= 0) return this.#fd
    this.#fd = guarded(this.name, () =>
      openSync(this.#path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK),
    )
    this.#compare(fstatSync(this.#fd, { bigint: true }))
    return this.#fd
  }

  #compare(now: BigIntStats): void {
    const was = this.#listed
    // A file that only grew (a log) is taken as it was when it was listed.
    const isSame =
      now.ino === was.ino &&
      now.dev === was.dev &&
      (now.size > was.size || (now.size === was.size && now.mtimeNs === was.mtimeNs))
    if (isSame) return
    throw new BuilderError(
      'SOURCE_CHANGED',
      `cannot read ${shown(toKey(this.#path))}: it changed while the image was built (${was.size} bytes then, ${now.size} now); build from a copy that nobody writes to`,
    )
  }
}

export type { FileContent }
