import { existsSync, mkdirSync, readdirSync, realpathSync, rmSync, statSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import {
  closeFd,
  cName,
  ERRNO,
  HostFiles,
  KernelError,
  makeNodeAt,
  removeDirectory,
  removeFile,
  RENAME,
  renameAt,
  tryLockFile,
  TYPE,
} from '../../kernel/index.ts'
import { readDirectoryNames } from './host-listing.ts'

/** Below `work_dir`, beside what overlayfs of the kernel may have there. */
const FOLDER = 'nydusd'
const DIRECTORY = 4

/**
 * The place where things are made before they appear in the upper directory, whole, by a rename. What a killed daemon left there is removed at the next start.
 */
export class OverlayWork {
  readonly #files: HostFiles
  readonly #folder: string
  #last = 0
  #hasEnded = false

  /** Throws KernelError or an error of the file system: both directories must be there, on one file system. */
  constructor(workDirectory: string, upperDirectory: string) {
    const [work, upper] = [realPath(workDirectory), realpathSync(upperDirectory)]
    if (isWithin(work.path, upper) || isWithin(upper, work.path))
      throw new KernelError(
        'rename',
        ERRNO.EINVAL,
        `"work_dir" (${workDirectory}) and "upper_dir" (${upperDirectory}) must lie beside each other`,
      )
    if (statSync(work.existing).dev !== statSync(upper).dev)
      throw new KernelError(
        'rename',
        ERRNO.EXDEV,
        `"work_dir" (${workDirectory}) must lie on the file system of "upper_dir" (${upperDirectory})`,
      )
    const folder = join(workDirectory, FOLDER)
    mkdirSync(folder, { recursive: true, mode: 0o700 })
    this.#folder = folder
    this.#files = new HostFiles(folder)
  }

  /** Before anything is made here. False: another daemon works here, now. What a killed one left is removed. */
  claim(): boolean {
    if (!tryLockFile(this.#files.directoryFd)) return false
    for (const name of readdirSync(this.#folder)) rmSync(join(this.#folder, name), { recursive: true, force: true })
    return true
  }

  /** Why {@link claim} did not work. */
  get isTaken(): KernelError {
    const what = `another daemon works in "work_dir" (${dirname(this.#folder)}); give each overlay its own`
    return new KernelError('flock', ERRNO.EBUSY, what)
  }

  /** A descriptor of the place, for the calls with names. */
  get fd(): number {
    return this.#hasEnded ? -1 : this.#files.directoryFd // its number may be another file's by then
  }

  /** A name that nothing there has. */
  freshName(): Uint8Array {
    return cName(String(++this.#last))
  }

  /** Puts a deletion mark at a name. What is there, if anything, must be no directory; it is replaced. 0 or minus an errno. */
  whiteOut(directory: number, name: Uint8Array): number {
    return this.#withWhiteout((mark) => renameAt(this.fd, mark, directory, name, 0))
  }

  /** Puts a deletion mark in the place of a directory, which may have nothing but deletion marks in it. */
  whiteOutDirectory(directory: number, name: Uint8Array): number {
    return this.#withWhiteout((mark) => {
      const failed = renameAt(this.fd, mark, directory, name, RENAME.EXCHANGE)
      return failed < 0 ? failed : this.discard(mark)
    })
  }

  #withWhiteout(place: (mark: Uint8Array) => number): number {
    const mark = this.freshName()
    const made = makeNodeAt(this.fd, mark, TYPE.CHARACTER, 0)
    if (made < 0) return made
    const failed = place(mark)
    if (failed < 0) removeFile(this.fd, mark)
    return failed < 0 ? failed : 0
  }

  /** Removes something from the place; from a directory its deletion marks first. */
  discard(name: Uint8Array): number {
    const failed = removeFile(this.fd, name)
    if (failed !== -ERRNO.EISDIR) return failed
    const path = this.#files.lookup(this.#files.root, name)
    if (path < 0) return path
    clearDirectory(path)
    closeFd(path)
    return removeDirectory(this.fd, name)
  }

  end(): void {
    if (!this.#hasEnded) this.#files.end()
    this.#hasEnded = true
  }
}

/** Where a directory is, or would be made, and what there is of that path already. */
function realPath(path: string): { path: string; existing: string } {
  if (existsSync(path) || dirname(path) === path) {
    const real = realpathSync(path)
    return { path: real, existing: real }
  }
  const above = realPath(dirname(path))
  return { path: join(above.path, basename(path)), existing: above.existing }
}

/** Is a directory in the other one, or the same? Both are real paths. */
function isWithin(directory: string, other: string): boolean {
  return `${directory}/`.startsWith(other.endsWith('/') ? other : `${other}/`)
}

/** Removes all but directories from a directory: deletion marks, where nothing else is left. */
export function clearDirectory(path: number): void {
  readDirectoryNames(path, (name, type) => {
    if (type !== DIRECTORY) removeFile(path, cName(name))
  })
}
