/** Where marks wait for their data to be on the disk: a chunk map in memory that processes share and a power cut takes. Source: docs/formats/cache.md, "What a bit means". */
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
import { whileAlone } from '../kernel/index.ts'
import { ChunkMap, type MapLock } from './chunk-map.ts'
import { CacheError, errnoName } from './errors.ts'

const MEMORY = '/dev/shm'
const TMPFS_MAGIC = 0x0102_1994
const SUFFIX = '.marks'
/** Whoever was killed and comes back does so sooner. */
const LEFT_MS = 24 * 3600 * 1000

let areLeftOnesGone = false

/** The map that belongs to a data file. `discard`: the data file is new. Undefined where no such memory is to be had. */
export function openVolatileMap(
  dataFd: number,
  chunkCount: number,
  lock: MapLock,
  discard: boolean,
): ChunkMap | undefined {
  try {
    const directory = ownDirectory()
    if (directory === undefined) return undefined
    if (!areLeftOnesGone) removeLeftMarks(directory)
    areLeftOnesGone = true
    const { dev, ino } = fstatSync(dataFd, { bigint: true })
    return new ChunkMap(join(directory, `${dev}-${ino}${SUFFIX}`), chunkCount, lock, discard)
  } catch (error) {
    if (error instanceof CacheError || errnoName(error) !== undefined) return undefined // full, or not for us
    throw error
  }
}

/** Others may write where it is: only a folder that nobody else can enter is used. */
function ownDirectory(): string | undefined {
  if (statfsSync(MEMORY).type !== TMPFS_MAGIC) return undefined
  const uid = process.geteuid?.() ?? -1
  const directory = join(MEMORY, `nydus-${uid}`)
  mkdirSync(directory, { mode: 0o700, recursive: true })
  const found = lstatSync(directory)
  return found.isDirectory() && found.uid === uid && (found.mode & 0o077) === 0 ? directory : undefined
}

/** Removes what killed processes left, and nobody has open or has changed for a day. What was claimed there is fetched again. */
export function removeLeftMarks(directory: string, now = Date.now()): void {
  for (const name of readdirSync(directory).filter((one) => one.endsWith(SUFFIX))) {
    const path = join(directory, name)
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
      if (errnoName(error) === undefined) throw error // gone meanwhile, or no file of ours
    }
  }
}
