import { KernelError } from '../errors.ts'
import { ERRNO } from '../fuse/wire.ts'
import { libc } from '../syscall.ts'
import { HostStat } from './stat.ts'
import { closeFd, cName, handleOf, O, O_DIRECTORY, openHandle, openPath, reopen, statFd } from './sys.ts'

/** A file of the host that somebody knows: a descriptor that names it, or only a handle by which it is found again. */
export class HostFile {
  /** -1 = closed for the time being. */
  fd: number
  handle: Uint8Array | undefined
  /** It has no name any more, or no handle: its descriptor must stay. */
  isPinned = false
  wasUsed = true
  readonly key: string
  readonly type: number
  readonly device: string

  constructor(fd: number, stat: HostStat) {
    this.fd = fd
    this.key = stat.key
    this.type = stat.type
    this.device = stat.device
  }
}

const RLIMIT_NOFILE = 7
const MOST_DESCRIPTORS = 16_384
const FEWEST_DESCRIPTORS = 128

/**
 * The files below one directory of the host that somebody knows, with a bounded number of descriptors: those that were not used for long are replaced by handles where the file system
 * has such. Nothing above the directory is ever reached: names are single components, and links are not followed.
 */
export class HostFiles {
  readonly root: HostFile
  /** Filled by {@link lookup} and {@link stat}; valid until the next of them. */
  readonly stat = new HostStat()
  readonly #mount: number
  /** With descriptors that may be closed. */
  readonly #open = new Set<HostFile>()
  /** With descriptors that must stay. */
  readonly #pinned = new Set<HostFile>()
  readonly #limit: number
  /** `major:minor` of the file system that this process serves, which is never entered: it would wait for itself. */
  ownDevice: string | undefined

  /** Throws KernelError when the directory cannot be opened. */
  constructor(directory: string, limit = defaultLimit()) {
    this.#limit = limit
    const c = libc()
    const fd = c.open(cName(directory), O.RDONLY | O_DIRECTORY | O.CLOEXEC, 0)
    if (fd < 0) throw new KernelError('open', c.errno(), `cannot open the directory ${directory}`)
    this.#mount = fd
    const path = openPath(fd, cName('.'))
    const looked = path < 0 ? path : statFd(path, this.stat)
    if (looked < 0) {
      if (path >= 0) closeFd(path)
      closeFd(fd)
      throw new KernelError('open', -looked, `cannot look into the directory ${directory}`)
    }
    this.root = new HostFile(path, this.stat)
    this.root.isPinned = true
  }

  /** The directory itself, opened for reading: for fsync, and as a proof of the file system. */
  get directoryFd(): number {
    return this.#mount
  }

  /** Files that hold a descriptor now. */
  get descriptors(): number {
    return this.#open.size + this.#pinned.size
  }

  /**
   * The file of a name: its new descriptor, or minus an errno; its attributes stand in {@link stat}. The caller gives the descriptor to {@link adopt} or closes it. ELOOP: a mount of this process.
   */
  lookup(directory: HostFile, name: Uint8Array): number {
    const parent = this.fd(directory)
    if (parent < 0) return parent
    const fd = openPath(parent, name)
    return fd < 0 ? fd : this.#look(fd)
  }

  /** As {@link lookup}, of a file that is open. */
  lookupOpen(file: number): number {
    const fd = reopen(file, O.PATH)
    return fd < 0 ? fd : this.#look(fd)
  }

  /** The handle of a file whose attributes stand in {@link stat}; undefined where it could not be found by one. */
  handleOf(fd: number): Uint8Array | undefined {
    return this.stat.device === this.root.device ? handleOf(fd) : undefined
  }

  /** The handle of a file that is known; undefined where it could not be found by one. */
  knownHandle(file: HostFile): Uint8Array | undefined {
    if (file.device !== this.root.device) return undefined
    const fd = this.fd(file)
    return file.handle ?? (fd < 0 ? undefined : handleOf(fd))
  }

  /** The same, of a file that is open and lies on the directory's device. */
  openedHandle(fd: number): Uint8Array | undefined {
    return handleOf(fd)
  }

  /** As {@link lookup}, of a file that another process had a handle of. */
  openHandle(handle: Uint8Array): number {
    const fd = openHandle(this.#mount, handle)
    return fd < 0 ? fd : this.#look(fd)
  }

  #look(fd: number): number {
    const failed = statFd(fd, this.stat, true)
    const result = failed < 0 ? failed : this.stat.device === this.ownDevice ? -ERRNO.ELOOP : fd
    if (result < 0) closeFd(fd)
    return result
  }

  /** Takes over a descriptor whose attributes stand in {@link stat}. */
  adopt(fd: number): HostFile {
    const file = new HostFile(fd, this.stat)
    this.#open.add(file)
    return file
  }

  /** The file was found once more, by this descriptor, which it takes over: the one that it has is as good, but a handle may be that of an earlier file with the same number. */
  again(file: HostFile, fd: number): void {
    if (file.fd >= 0) {
      closeFd(fd)
      return
    }
    file.fd = fd
    file.handle = undefined
    this.#open.add(file)
  }

  /** A descriptor that names the file, valid until {@link trim}; or minus an errno: ESTALE when the file is gone. */
  fd(file: HostFile): number {
    file.wasUsed = true
    if (file.fd >= 0 || file.handle === undefined) return file.fd
    const fd = openHandle(this.#mount, file.handle)
    if (fd < 0) return fd
    file.fd = fd
    this.#open.add(file)
    return fd
  }

  /** Fills {@link stat}; 0 or minus an errno. */
  look(file: HostFile): number {
    const fd = this.fd(file)
    return fd < 0 ? fd : statFd(fd, this.stat)
  }

  /** It is about to lose a name, perhaps its last: what has no name cannot be found by its handle either. */
  pin(file: HostFile): void {
    if (file === this.root || this.fd(file) < 0) return
    file.isPinned = true
    this.#open.delete(file)
    this.#pinned.add(file)
  }

  close(file: HostFile): void {
    if (file === this.root) return
    this.#open.delete(file)
    this.#pinned.delete(file)
    if (file.fd >= 0) closeFd(file.fd)
    file.fd = -1
    file.handle = undefined
  }

  /** Closes descriptors beyond the limit, those first that were not used since the last time. To be called when no descriptor is in anybody's hand. */
  trim(): void {
    if (this.#open.size <= this.#limit) return
    const target = Math.floor((this.#limit * 3) / 4)
    for (const file of this.#open) {
      if (this.#open.size <= target) return
      if (file.wasUsed) {
        file.wasUsed = false
        this.#open.delete(file)
        this.#open.add(file)
      } else this.#rest(file)
    }
  }

  #rest(file: HostFile): void {
    if (file.device === this.root.device) file.handle ??= handleOf(file.fd)
    if (file.handle === undefined) {
      this.pin(file)
      return
    }
    closeFd(file.fd)
    file.fd = -1
    this.#open.delete(file)
  }

  /** Closes everything. */
  end(): void {
    for (const file of [...this.#open, ...this.#pinned]) this.close(file)
    closeFd(this.root.fd)
    closeFd(this.#mount)
  }
}

/** A quarter of what the process may open. */
function defaultLimit(): number {
  const limits = Buffer.alloc(16)
  if (libc().getrlimit(RLIMIT_NOFILE, limits) < 0) return FEWEST_DESCRIPTORS
  const soft = limits.readUInt32LE(4) > 0 ? MOST_DESCRIPTORS * 4 : limits.readUInt32LE(0)
  return Math.max(FEWEST_DESCRIPTORS, Math.min(MOST_DESCRIPTORS, soft >> 2))
}
