import {
  closeSync,
  constants,
  fstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { cachePath, countClaims, pinsIdentity } from '../../cache/index.ts'
import { mountErofs, setReadAhead, unmount } from '../../kernel/index.ts'
import { type CheckedImage, contentIdentity, readRecord, writeRecord } from './record.ts'

const READ_AHEAD_KIB = 1024

/**
 * One image, for one mapping of ids, on the disk: `image.boot` for the kernel, `checked.json` about it, `mnt`, and `users/<id>`, an empty file for each snapshot that it was lent to. All of it outlives this process; the mount does
 * not outlive the machine.
 */
export class KernelImage {
  readonly directory: string
  /** Snapshots that show it. */
  readonly users: Set<number>
  checked: CheckedImage | undefined

  constructor(directory: string) {
    this.directory = directory
    this.checked = readRecord(join(directory, 'checked.json'))
    this.users = new Set(namesIn(join(directory, 'users')).map(Number).filter(Number.isSafeInteger))
  }

  get mountpoint(): string {
    return join(this.directory, 'mnt')
  }

  get metadata(): string {
    return join(this.directory, 'image.boot')
  }

  /** Asks the kernel; EROFS never makes one wait. */
  get isMounted(): boolean {
    const at = statSync(this.mountpoint, { throwIfNoEntry: false })
    const directory = statSync(this.directory, { throwIfNoEntry: false })
    return at !== undefined && directory !== undefined && at.dev !== directory.dev
  }

  /** Kept before anybody is told of the mount. */
  lend(user: number): void {
    const directory = join(this.directory, 'users')
    mkdirSync(directory, { recursive: true })
    writeFileSync(join(directory, String(user)), '')
    this.users.add(user)
  }

  giveBack(user: number): void {
    rmSync(join(this.directory, 'users', String(user)), { force: true })
    this.users.delete(user)
  }

  /** Takes metadata over that was just checked. The record comes last: without it the rest counts for nothing. */
  take(metadata: string, checked: CheckedImage): void {
    const record = join(this.directory, 'checked.json')
    rmSync(record, { force: true })
    renameSync(metadata, this.metadata)
    writeRecord(record, checked)
    this.checked = checked
  }

  /** Mounts what was checked, if the files of the cache are still those that were, and pinned ever since. False: they are not. Throws KernelError, or what the system says. */
  async mount(cacheDir: string): Promise<boolean> {
    const files: number[] = []
    try {
      for (const { id, chunkCount, data, pins, claims } of this.checked?.blobs ?? []) {
        const fd = openIfThere(cachePath(cacheDir, id, 'data'))
        if (fd === undefined) return false
        files.push(fd)
        const isSame = contentIdentity(fstatSync(fd, { bigint: true })) === data && pinsIdentity(cacheDir, id) === pins
        if (!isSame || countClaims({ directory: cacheDir, blobId: id, chunkCount }) < claims) return false
      }
      // By descriptor: a path could lead elsewhere by now.
      const devices = files.map((fd) => `/proc/self/fd/${fd}`)
      mkdirSync(this.mountpoint, { recursive: true })
      await mountErofs(this.metadata, this.mountpoint, devices)
    } finally {
      for (const fd of files) closeSync(fd)
    }
    await setReadAhead(this.mountpoint, READ_AHEAD_KIB).catch(() => undefined) // /sys may be read-only: slower is all it is
    return true
  }

  async unmount(): Promise<void> {
    await unmount(this.mountpoint)
  }

  /** With its files. Containers that run on it have a mount of their own. */
  async remove(): Promise<void> {
    await unmount(this.mountpoint, true)
    await rm(this.directory, { recursive: true, force: true })
  }
}

/** None where there is no directory. */
export function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory)
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '')) return []
    throw error
  }
}

/** Undefined also while somebody has it alone, as who frees what it takes of the disk. */
function openIfThere(path: string): number | undefined {
  try {
    return openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  } catch (error) {
    if (['ENOENT', 'EAGAIN', 'ELOOP'].includes((error as NodeJS.ErrnoException).code ?? '')) return undefined
    throw error
  }
}
