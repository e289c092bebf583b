import { closeSync, constants, fstatSync, ftruncateSync, openSync, renameSync, rmSync } from 'node:fs'
import { whileAlone } from '../kernel/index.ts'
import { temporaryName } from './cache-files.ts'
import { CacheError, cacheError, errnoName } from './errors.ts'

/** An open data file; who opened it closes `fd`. */
export interface DataFile {
  readonly fd: number
  readonly isWritable: boolean
  /** It was empty or absent: whatever a chunk map says about it is wrong. */
  readonly isNew: boolean
}

/** Opens or makes a sparse file of `size` bytes; a filled one on a read-only place is opened for reading. One that is pinned is never cut. Throws CacheError. */
export function openDataFile(path: string, size: number, isPinned: () => boolean): DataFile {
  let file: { fd: number; isWritable: boolean }
  try {
    file = openEither(path, constants.O_CREAT)
  } catch (error) {
    throw cacheError(error, `cannot open the cache file ${path}`)
  }
  try {
    const found = fstatSync(file.fd)
    if (!found.isFile()) throw new CacheError('WRONG_SIZE', `${path} is not a regular file; remove it`)
    if (found.size > size && found.size === Math.ceil(size / PAGE) * PAGE && file.isWritable && !isPinned()) {
      ftruncateSync(file.fd, size) // as earlier versions made it; the original takes no other length than the blob's
    } else if (found.size > size) {
      const facts = `${path} has ${found.size} bytes, its blob has ${size}`
      throw new CacheError('WRONG_SIZE', `${facts}; it belongs to something else: remove it with its chunk map`)
    }
    if (found.size < size) {
      if (!file.isWritable) throw new CacheError('READ_ONLY', `${path} is too short, and may not be written`)
      // Somebody cut it. For a daemon that has it open, zeros would be where its chunks were: it keeps the short one.
      if (found.size > 0 && !whileAlone(file.fd, () => undefined)) return replaced(path, file.fd, size)
      ftruncateSync(file.fd, size)
    }
    return { ...file, isNew: found.size === 0 }
  } catch (error) {
    closeSync(file.fd)
    throw cacheError(error, `cannot use the cache file ${path}`)
  }
}

/** Puts a new file into the place of one that others go on using. */
function replaced(path: string, old: number, size: number): DataFile {
  const temporary = temporaryName(path)
  const fd = openSync(temporary, 'wx+', 0o644)
  try {
    ftruncateSync(fd, size)
    renameSync(temporary, path)
  } catch (error) {
    closeSync(fd)
    rmSync(temporary, { force: true })
    throw error
  }
  closeSync(old)
  return { fd, isWritable: true, isNew: true }
}

const PAGE = 4096

/** A FIFO put there must not hang us, and a link not make us write into somebody else's file. */
const SAFELY = constants.O_NONBLOCK | constants.O_NOFOLLOW

/** How often data may be freed or removed just when it is opened. */
const LEASES = 4

/** Opens for reading and writing, or, where writing is refused, for reading. Waits for a process that is freeing or removing the data (`whileAlone`). */
export function openEither(path: string, flags = 0): { fd: number; isWritable: boolean } {
  try {
    return { fd: openSafely(path, constants.O_RDWR | flags), isWritable: true }
  } catch (error) {
    if (errnoName(error) === 'ELOOP')
      throw new CacheError('IO', `${path} is a symbolic link, which is not followed; remove it`, { cause: error })
    if (!['EROFS', 'EACCES', 'EPERM'].includes(errnoName(error) ?? '')) throw error
    try {
      return { fd: openSafely(path, constants.O_RDONLY), isWritable: false }
    } catch {
      throw error // the first reason is the one that helps
    }
  }
}

function openSafely(path: string, flags: number): number {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return openSync(path, flags | SAFELY, 0o644)
    } catch (error) {
      if (errnoName(error) !== 'EAGAIN' || attempt === LEASES) throw error
      endOfLease(path, flags & ~constants.O_CREAT)
    }
  }
}

/** An open that may wait does so until the lease ends, which the kernel sees to. What it gives may be removed by then. */
function endOfLease(path: string, flags: number): void {
  try {
    closeSync(openSync(path, flags | constants.O_NOFOLLOW))
  } catch (error) {
    if (errnoName(error) === undefined) throw error // the next attempt tells
  }
}
