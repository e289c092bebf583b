/** Where marks wait for their data to be on the disk: a chunk map in memory that processes share and a power cut takes. Source: docs/formats/cache.md, "What a bit means". */
import { fstatSync } from 'node:fs'
import { join } from 'node:path'
import { ownMemoryFolder, removeLeftMemory } from '../kernel/index.ts'
import { ChunkMap, type MapLock } from './chunk-map.ts'
import { CacheError, errnoName } from './errors.ts'

const SUFFIX = '.marks'

/** The first map is opened for a reader who waits: what killed processes left, perhaps thousands of files, is looked through when the start is over. */
const LOOK_MS = 30_000

let isLookPlanned = false

/** The map that belongs to a data file. `discard`: the data file is new. Undefined where no such memory is to be had. */
export function openVolatileMap(
  dataFd: number,
  chunkCount: number,
  lock: MapLock,
  discard: boolean,
): ChunkMap | undefined {
  try {
    const directory = ownMemoryFolder('nydus')
    if (directory === undefined) return undefined
    if (!isLookPlanned) setTimeout(() => removeLeftOnes(directory), LOOK_MS).unref()
    isLookPlanned = true
    // Numbers of files are given again: what a killed process left of a file that is gone says nothing of the next one.
    const { dev, ino, birthtimeNs } = fstatSync(dataFd, { bigint: true })
    return new ChunkMap(join(directory, `${dev}-${ino}-${birthtimeNs}${SUFFIX}`), chunkCount, lock, discard)
  } catch (error) {
    if (error instanceof CacheError || errnoName(error) !== undefined) return undefined // full, or not for us
    throw error
  }
}

function removeLeftOnes(directory: string): void {
  try {
    removeLeftMemory(directory, SUFFIX)
  } catch (error) {
    if (errnoName(error) === undefined) throw error // without the folder nothing is left
  }
}
