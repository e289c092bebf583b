import { closeSync, constants, openSync, readdirSync, readlinkSync, readSync } from 'node:fs'
import { type HostStat, TYPE } from '../../kernel/index.ts'
import { type FileTree, type NewValues, newValues, type NodeId, Rows } from '../../rafs/index.ts'
import type { Content } from '../content.ts'
import { BuilderError } from '../errors.ts'
import { fromKey, shown, toKey } from '../image-path.ts'
import { type Xattr } from '../layer-tree.ts'
import type { OnLost } from '../losses.ts'
import { type WhiteoutSpec, whiteoutOf } from '../whiteout.ts'
import { sortedXattrs } from '../xattrs.ts'
import { type EndedPath, endedPath, EntryPath } from './entry-path.ts'
import { readXattrs, seekData, statEntry, statOpen, statPath } from './linux.ts'

const MAX_LINK_BYTES = 4095
const SLASH = Buffer.from('/')
const NUL = Buffer.alloc(1)

export interface DirectoryOptions {
  /** False: uid and gid become 0. */
  readonly keepOwners: boolean
  /** Markers of this kind are left out; undefined keeps them, for a layer that is laid over a parent. */
  readonly dropWhiteouts: WhiteoutSpec | undefined
  readonly signal: AbortSignal
  /** Told of what an image cannot hold, which is left out; without it that throws. */
  readonly onLost?: OnLost | undefined
  /** Told now and then of how many bytes the files have that were listed so far. */
  readonly onListed?: ((bytes: number) => void) | undefined
}

/** Words of a row: what tells whether a file is still the one that was listed, beside its size and time, which the tree has. */
const LISTED = { ino: 0, dev: 2, isSparse: 3 } as const
const LISTED_WORDS = 4

const DIRECTORY_FLAGS = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW

/**
 * Reads a directory as one more tree of `files`: what `lstat` says, extended attributes, hard links among its files. Nothing of files is read yet. The root's own time is left out,
 * so that two builds of one tree are equal. Throws BuilderError 'BAD_SOURCE' for what is no directory, 'SOURCE_CHANGED' when an entry disappears meanwhile.
 */
export function scanDirectory(path: string, files: FileTree, options: DirectoryOptions): DirectoryScan {
  const scan = new DirectoryScan(path, files, options)
  scan.run()
  return scan
}

/** For people, made when it is needed. */
type Shown = () => string

/** An entry of a directory that is listed; `stat` is the next one's after this. */
interface Found {
  /** The next one's after this. */
  readonly path: EndedPath
  readonly shown: Shown
  readonly stat: HostStat
}

/** A directory's tree, and where the content of each of its files is. */
class DirectoryScan {
  readonly root: NodeId
  readonly #source: Buffer
  readonly #files: FileTree
  readonly #options: DirectoryOptions
  readonly #links = new Map<string, NodeId>()
  /** A row for each entry from the root on. */
  readonly #listed = new Rows(LISTED_WORDS)
  #listedBytes = 0

  /** The directory whose path was asked for last. */
  #parent: { readonly id: NodeId; readonly path: Buffer } = { id: 0, path: NUL }

  constructor(path: string, files: FileTree, options: DirectoryOptions) {
    this.#source = Buffer.from(path)
    this.#files = files
    this.#options = options
    const stat = guarded(
      () => '/',
      () => statPath(this.#source),
    )
    if (stat.type !== TYPE.DIRECTORY)
      throw new BuilderError(
        'BAD_SOURCE',
        `the source ${shown(toKey(this.#source))} is no directory${stat.type === TYPE.LINK ? ' but a symlink; name what it points to' : ''}`,
      )
    const values = valuesOf(endedPath(this.#source), () => '/', stat, options)
    this.root = files.addRoot({ ...values, mtime: 0, mtimeNsec: 0 })
  }

  run(): void {
    const open: Array<{ readonly id: NodeId; readonly path: Buffer; readonly shown: string }> = [
      { id: this.root, path: this.#source, shown: '' },
    ]
    for (let directory = open.pop(); directory !== undefined; directory = open.pop()) {
      this.#options.signal.throwIfAborted()
      const { id, path, shown: prefix } = directory
      const shownDirectory = (): string => prefix || '/'
      const fd = guarded(shownDirectory, () => openSync(path, DIRECTORY_FLAGS))
      try {
        const names = guarded(shownDirectory, () => readdirSync(path, { encoding: 'latin1' }))
        const entry = new EntryPath(path, names)
        for (const name of names) {
          const childShown = (): string => `${prefix}/${fromKey(name).toString('utf8')}`
          entry.move(name)
          const stat = guarded(childShown, () => statEntry(fd, entry.endedName))
          const child = this.#add(id, name, { path: entry, shown: childShown, stat })
          if (child !== 0 && this.#files.isDirectory(child))
            open.push({ id: child, path: entry.copy(), shown: childShown() })
        }
      } finally {
        closeSync(fd)
      }
      this.#options.onListed?.(this.#listedBytes)
    }
    this.#links.clear()
  }

  /** The content of a file of the scan, also where its tree was laid over another. */
  content(id: NodeId): FileContent {
    const files = this.#files
    const row = this.#row(id)
    const path = Buffer.concat([this.#pathOf(files.parent(id)), SLASH, files.name(id)])
    return new FileContent(path, this.#source.length, {
      ino: this.#listed.getLong(row, LISTED.ino),
      dev: this.#listed.get(row, LISTED.dev),
      size: files.size(id),
      mtime: files.mtime(id),
      mtimeNsec: files.mtimeNsec(id),
      isSparse: this.#listed.get(row, LISTED.isSparse) === 1,
    })
  }

  /** Of a directory on the disk; kept, since the next file is mostly its sibling. */
  #pathOf(directory: NodeId): Buffer {
    if (this.#parent.id !== directory) {
      const path = this.#files.parent(directory) === 0 ? '' : this.#files.path(directory)
      this.#parent = { id: directory, path: Buffer.concat([this.#source, fromKey(path)]) }
    }
    return this.#parent.path
  }

  /** It was listed here, not in the tree below. */
  has(id: NodeId): boolean {
    return id > this.root
  }

  /** Puts an entry into its directory; 0 for a marker that is left out. */
  #add(parent: NodeId, name: string, { path, shown: shownPath, stat }: Found): NodeId {
    const files = this.#files
    const { dropWhiteouts } = this.#options
    const linkKey = stat.type === TYPE.FILE && stat.nlink > 1 ? stat.key : undefined
    const linked = linkKey === undefined ? undefined : this.#links.get(linkKey)
    const values = linked === undefined ? valuesOf(path, shownPath, stat, this.#options) : undefined
    if (dropWhiteouts !== undefined) {
      const marker = { mode: stat.mode, rdev: stat.rdev, xattrs: () => values?.xattrs ?? [] }
      const whiteout = whiteoutOf(name, marker, dropWhiteouts)
      if (whiteout !== undefined && whiteout.kind !== 'opaque-self') return 0
    }
    if (linked !== undefined) return files.link(parent, name, linked)
    const id = files.put(parent, name, values ?? newValues(stat.mode))
    if (linkKey !== undefined) this.#links.set(linkKey, id)
    if (stat.type === TYPE.FILE) this.#listedBytes += stat.size
    const row = this.#row(id)
    this.#listed.setLong(row, LISTED.ino, stat.ino)
    this.#listed.set(row, LISTED.dev, stat.dev)
    this.#listed.set(row, LISTED.isSparse, stat.blocks * 512 < stat.size ? 1 : 0)
    return id
  }

  #row(id: NodeId): number {
    const row = id - this.root
    if (this.#listed.count <= row) this.#listed.add(row - this.#listed.count + 1)
    return row
  }
}

function valuesOf(
  path: EndedPath,
  shownPath: Shown,
  stat: HostStat,
  { keepOwners, onLost }: DirectoryOptions,
): NewValues {
  const values = newValues(stat.mode)
  if (keepOwners) {
    values.uid = stat.uid
    values.gid = stat.gid
  }
  values.mtime = stat.mtimeSeconds
  values.mtimeNsec = stat.mtimeNanoseconds
  values.xattrs = sortedXattrs(readXattrsOf(path.ended, shownPath), shownPath, onLost)
  if (stat.type === TYPE.FILE) values.size = stat.size
  else if (stat.type === TYPE.LINK) {
    values.target = guarded(shownPath, () => readlinkSync(path.copy(), { encoding: 'buffer' }))
    if (values.target.length > MAX_LINK_BYTES)
      throw new BuilderError(
        'BAD_SOURCE',
        `the symlink ${shownPath()} has a target of ${values.target.length} bytes; ${MAX_LINK_BYTES} are the limit`,
      )
    values.size = values.target.length
  } else if (stat.type !== TYPE.DIRECTORY) values.rdev = stat.rdev
  return values
}

function readXattrsOf(path: Uint8Array, shownPath: Shown): readonly Xattr[] {
  return guarded(shownPath, () => readXattrs(path))
}

/** Names the entry at fault; one that is gone since its folder was listed is a change of the source. */
function guarded<T>(shownPath: Shown, read: () => T): T {
  try {
    return read()
  } catch (cause) {
    if (cause instanceof BuilderError) throw cause
    const isGone = (cause as NodeJS.ErrnoException).code === 'ENOENT'
    const message = cause instanceof Error ? cause.message : String(cause)
    throw new BuilderError(
      isGone ? 'SOURCE_CHANGED' : 'BAD_SOURCE',
      `cannot read ${shownPath()} of the source: ${message}`,
      { cause },
    )
  }
}

/** How a file was when it was listed. */
interface Listed {
  readonly ino: number
  /** The low 32 bits. */
  readonly dev: number
  readonly size: number
  readonly mtime: number
  readonly mtimeNsec: number
  readonly isSparse: boolean
}

/** A file's bytes, read once from start to end; it must be the file that was listed, and stay it. Whether it was is asked once, after the last byte: an open descriptor is of one file. */
class FileContent implements Content {
  readonly size: number
  readonly holes: Content['holes']
  readonly #path: Buffer
  /** Where the path below the source begins. */
  readonly #nameAt: number
  readonly #listed: Listed
  #fd = -1
  #position = 0

  constructor(path: Buffer, nameAt: number, listed: Listed) {
    this.#path = path
    this.#nameAt = nameAt
    this.#listed = listed
    this.size = listed.size
    this.holes = listed.isSparse
      ? {
          nextData: (offset) => seekData(this.#open(), offset, this.size),
          skip: (bytes) => {
            this.#position += bytes
          },
        }
      : undefined
  }

  get name(): string {
    return this.#path.toString('utf8', this.#nameAt)
  }

  read(into: Uint8Array): number {
    const fd = this.#open()
    const got = this.#guarded(() => {
      try {
        return readSync(fd, into, 0, into.length, this.#position)
      } catch (cause) {
        // What took the file's place may be nothing that can be read.
        this.#compare(fd)
        throw cause
      }
    })
    this.#position += got
    return got
  }

  /** To be called in the end, also after an error. Throws 'SOURCE_CHANGED' when the file is not what it was when it was listed. */
  close(isComplete: boolean): void {
    const fd = this.#fd
    if (fd < 0) return
    this.#fd = -1
    try {
      if (isComplete) this.#compare(fd)
    } finally {
      closeSync(fd)
    }
  }

  #open(): number {
    if (this.#fd >= 0) return this.#fd
    this.#fd = this.#guarded(() =>
      openSync(this.#path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK),
    )
    return this.#fd
  }

  #guarded<T>(read: () => T): T {
    return guarded(() => this.name, read)
  }

  #compare(fd: number): void {
    const was = this.#listed
    const now = this.#guarded(() => statOpen(fd))
    // A file that only grew (a log) is taken as it was when it was listed.
    const isSame =
      now.type === TYPE.FILE &&
      now.ino === was.ino &&
      now.dev === was.dev &&
      (now.size > was.size ||
        (now.size === was.size && now.mtimeSeconds === was.mtime && now.mtimeNanoseconds === was.mtimeNsec))
    if (isSame) return
    throw new BuilderError(
      'SOURCE_CHANGED',
      `cannot read ${shown(toKey(this.#path))}: it changed while the image was built (${was.size} bytes then, ${now.size} now); build from a copy that nobody writes to`,
    )
  }
}

export type { DirectoryScan, FileContent }
