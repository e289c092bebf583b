/** Where marks wait for their data to be on the disk: a chunk map in memory that processes share and a power cut takes. Source: docs/formats/cache.md, "What a bit means". */
import { fstatSync, lstatSync, mkdirSync, statfsSync } from 'node:fs'
import { join } from 'node:path'
import { ChunkMap, type MapLock } from './chunk-map.ts'
import { CacheError, errnoName } from './errors.ts'

const MEMORY = '/dev/shm'
const TMPFS_MAGIC = 0x0102_1994

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
    const { dev, ino } = fstatSync(dataFd, { bigint: true })
    return new ChunkMap(join(directory, `${dev}-${ino}.marks`), chunkCount, lock, discard)
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
