import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  rmSync,
  statfsSync,
} from 'node:fs'
import { join } from 'node:path'
import { whileAlone } from './lease.ts'

const MEMORY = '/dev/shm'
const TMPFS_MAGIC = 0x0102_1994
/** Whoever was killed and comes back does so sooner. */
const LEFT_MS = 24 * 3600 * 1000

/**
 * The folder of this user's programs of that name for files that outlive a process and not this machine's power, which nobody else can enter. Undefined where there is none: no tmpfs, or something of somebody else's stands there. Throws the errno of
 * a folder that cannot be made.
 */
export function ownMemoryFolder(name: string): string | undefined {
  if (statfsSync(MEMORY).type !== TMPFS_MAGIC) return undefined
  const uid = process.geteuid?.() ?? -1
  const folder = join(MEMORY, `${name}-${uid}`)
  mkdirSync(folder, { mode: 0o700, recursive: true })
  const found = lstatSync(folder)
  return found.isDirectory() && found.uid === uid && (found.mode & 0o077) === 0 ? folder : undefined
}

/** Removes files with this suffix that killed processes left there, and nobody has open or has changed for a day. */
export function removeLeftMemory(folder: string, suffix: string, now = Date.now()): void {
  for (const name of readdirSync(folder).filter((one) => one.endsWith(suffix))) {
    const path = join(folder, name)
    try {
      // A file that is looked at is one that somebody has open: its last user would leave it.
      if (lstatSync(path).mtimeMs >= now - LEFT_MS) continue
      const fd = openSync(path, constants.O_RDWR | constants.O_NOFOLLOW | constants.O_NONBLOCK)
      try {
        if (fstatSync(fd).mtimeMs < now - LEFT_MS) whileAlone(fd, () => rmSync(path, { force: true }))
      } finally {
        closeSync(fd)
      }
    } catch (error) {
      if (!(error instanceof Error && 'code' in error)) throw error // gone meanwhile, or no file of ours
    }
  }
}
