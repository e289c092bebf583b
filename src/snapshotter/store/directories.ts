/** Directories of snapshots under the root. Source: docs/formats/snapshot-store.md, "Directories". */
import {
  chmodSync,
  chownSync,
  closeSync,
  type Dirent,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  realpathSync,
  renameSync,
  rmdirSync,
  type Stats,
} from 'node:fs'
import { join } from 'node:path'
import { readDirectory } from '../../kernel/index.ts'
import { SnapshotterError } from '../errors.ts'
import type { IdMapping } from '../id-mapping.ts'
import type { Snapshot } from '../snapshot.ts'
import { FILES, FILES_MODE, MODE, UNFINISHED, WORK, WORK_MODE } from './directory-layout.ts'
import { SpareDirectories } from './spare-directories.ts'

/** Sockets lie below the root, and their paths have at most 107 bytes. */
const MAX_ROOT = 70
const ID = /^[1-9]\d{0,15}$/
/** Of a finished directory, or of one that could not be removed. */
const TAKEN = /^(?:new-)?([1-9]\d{0,15})$/

interface Owner {
  readonly uid: number
  readonly gid: number
}

/** Kept in memory. */
const MOST_OWNERS = 1000

/** Makes the root where it is missing, for its owner only; gives its real path. Throws SnapshotterError 'BAD_CONFIG' for one that cannot be used. */
export function prepareRoot(path: string): string {
  const root = asRoot(path)
  const size = Buffer.byteLength(root)
  if (size > MAX_ROOT)
    throw new SnapshotterError(
      'BAD_CONFIG',
      `root: ${root} has ${size} bytes, more than the ${MAX_ROOT} that leave room for socket paths below it; choose a shorter directory`,
    )
  return root
}

function asRoot(path: string): string {
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 })
    const root = realpathSync(path)
    if (lstatSync(root).isDirectory()) return root
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new SnapshotterError('BAD_CONFIG', `root: the directory ${path} cannot be made: ${reason}`, { cause })
  }
  throw new SnapshotterError('BAD_CONFIG', `root: ${path} is not a directory; choose another one`)
}

/** `snapshots/<id>`: `fs` is what a snapshot adds to its parents, `work` is overlayfs's own, of an active one. */
export class Directories {
  readonly path: string
  readonly #spares: SpareDirectories
  #areSparesNear = true
  /** Of layers that others stand on, by id: nobody changes a layer, and most stand on one that had some before. */
  readonly #owners = new Map<number, Owner>()

  /** `root` is of `prepareRoot`. */
  constructor(root: string) {
    this.path = join(root, 'snapshots')
    this.#spares = new SpareDirectories(join(root, 'spares'))
    mkdirSync(this.path, { recursive: true, mode: 0o700 })
    checkEntryTypes(root)
  }

  of(id: number): string {
    return `${this.path}/${id}`
  }

  /**
   * Makes the directory of a snapshot that is about to be recorded. It gets its name when all is in it, hence one that is found without a record after a crash is whole, and belongs to nobody.
   * Its `fs` belongs to the mapped user, else to whom the parent's belongs.
   */
  create(id: number, kind: Snapshot['kind'], parent: number | undefined, mapping: IdMapping | undefined): void {
    if (mapping !== undefined) this.#place(id, kind, { uid: mapping.host, gid: mapping.host })
    else this.#place(id, kind, parent === undefined ? undefined : this.#ownerOf(parent))
  }

  #place(id: number, kind: Snapshot['kind'], owner: Owner | undefined): void {
    const spare = kind === 'active' && this.#areSparesNear ? this.#spares.take() : undefined
    const unfinished = spare?.path ?? join(this.path, `${UNFINISHED}${id}`)
    if (spare === undefined) mkdirSync(unfinished, MODE)
    try {
      const { uid, gid } = spare?.fs ?? makeContent(unfinished, kind)
      if (owner !== undefined && (owner.uid !== uid || owner.gid !== gid))
        chownSync(join(unfinished, FILES), owner.uid, owner.gid)
      renameSync(unfinished, this.of(id))
    } catch (error) {
      removeEmpty(unfinished)
      const { code } = error as NodeJS.ErrnoException
      // Something is mounted on the directory of the snapshots; or somebody removed what was ready.
      if (spare === undefined || (code !== 'EXDEV' && code !== 'ENOENT')) throw error
      this.#areSparesNear = code !== 'EXDEV'
      this.#place(id, kind, owner)
    }
  }

  /** Has directories ready for `create` until the signal is aborted; resolves when those left are removed. */
  async makeAhead(signal: AbortSignal): Promise<void> {
    await this.#spares.keep(signal)
  }

  /** Takes back what `create` made and nobody has used. */
  discard(id: number): void {
    removeEmpty(this.of(id))
  }

  /** Of recorded snapshots, those whose directory lacked something, which is made. Layers, of which there are thousands, are only looked for by name: what has its name is whole. */
  complete(snapshots: readonly Snapshot[]): Snapshot[] {
    const names = new Set(this.#names())
    return snapshots.filter((snapshot) => {
      const { id, kind } = snapshot
      const isThere = names.has(String(id)) && (kind === 'committed' || this.#hasContent(id, kind))
      if (isThere) return false
      mkdirSync(this.of(id), { recursive: true, mode: 0o700 })
      makeContent(this.of(id), kind)
      return true
    })
  }

  /** Removes what a process that died had not finished. What is not empty stays, and counts as an orphan. */
  removeUnfinished(): void {
    for (const name of this.#names()) if (name.startsWith(UNFINISHED)) removeEmpty(join(this.path, name))
  }

  /** Directories that belong to none of `ids`, by path. Files and names that the snapshotter does not make are left alone. */
  orphans(ids: ReadonlySet<number>): string[] {
    const isOurs = (name: string) => name.startsWith(UNFINISHED) || (ID.test(name) && !ids.has(Number(name)))
    return this.#names()
      .filter(isOurs)
      .map((name) => join(this.path, name))
  }

  /** The largest id that is taken by a name; an id is never given twice, also when its record never was. */
  largest(): number {
    return readdirSync(this.path).reduce((most, name) => Math.max(most, Number(TAKEN.exec(name)?.[1] ?? 0)), 0)
  }

  #hasContent(id: number, kind: Snapshot['kind']): boolean {
    const wanted = kind === 'active' ? [FILES, WORK] : [FILES]
    return wanted.every((name) => lstatSync(join(this.of(id), name), { throwIfNoEntry: false }) !== undefined)
  }

  #names(): string[] {
    return readdirSync(this.path, { withFileTypes: true })
      .filter((entry: Dirent) => entry.isDirectory())
      .map(({ name }) => name)
  }

  #ownerOf(layer: number): Owner {
    const known = this.#owners.get(layer)
    if (known !== undefined) return known
    const { uid, gid } = lstatSync(join(this.of(layer), FILES))
    if (this.#owners.size === MOST_OWNERS) this.#owners.clear()
    this.#owners.set(layer, { uid, gid })
    return { uid, gid }
  }
}

/** Gives what the directory of the files is. */
function makeContent(directory: string, kind: Snapshot['kind']): Stats {
  const [files, work] = [join(directory, FILES), join(directory, WORK)]
  makeDirectory(files, FILES_MODE)
  if (kind === 'active') makeDirectory(work, WORK_MODE)
  const made = lstatSync(files)
  unmask(directory, made, kind)
  return made
}

/** Gives back what the process's mask took away. */
function unmask(directory: string, files: Stats, kind: Snapshot['kind']): void {
  if ((files.mode & 0o7777) === FILES_MODE) return
  chmodSync(join(directory, FILES), FILES_MODE)
  if (kind === 'active') chmodSync(join(directory, WORK), WORK_MODE)
}

function makeDirectory(path: string, mode: number): void {
  try {
    mkdirSync(path, mode)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  }
}

function removeEmpty(directory: string): void {
  for (const path of [join(directory, FILES), join(directory, WORK), directory])
    try {
      rmdirSync(path)
    } catch {
      // It is missing or somebody put something there: then it is an orphan, which cleaning up removes.
    }
}

const DT_UNKNOWN = 0
/** `struct linux_dirent64`: inode 8 bytes, offset 8, length 2, type 1, then the name and a NUL. */
const DIRENT = { length: 16, type: 18, name: 19 } as const

/** Overlayfs needs a file system that tells the types of entries; `.` and `..` have theirs everywhere. Throws SnapshotterError 'BAD_CONFIG'. */
function checkEntryTypes(root: string): void {
  const fd = openSync(root, 'r')
  try {
    const records = Buffer.alloc(32_768)
    const end = readDirectory(fd, records)
    for (let at = 0; at < end; at += records.readUInt16LE(at + DIRENT.length)) {
      const name = records.toString('latin1', at + DIRENT.name, at + DIRENT.name + 3).split('\0')[0]
      if (name !== '.' && name !== '..' && records[at + DIRENT.type] !== DT_UNKNOWN) return
    }
  } finally {
    closeSync(fd)
  }
  throw new SnapshotterError(
    'BAD_CONFIG',
    `root: the file system of ${root} does not tell the types of directory entries (d_type), which overlayfs needs; choose a directory on ext4, or on xfs made with ftype=1`,
  )
}
