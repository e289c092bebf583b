import { readFileSync, statSync } from 'node:fs'
import { cachePath } from './cache-files.ts'
import { ALL_READY, bitmapSize, bitOf, judgeMap, MAP_HEADER, MAP_HEADER_SIZE } from './chunk-map-format.ts'
import { errnoName } from './errors.ts'

/**
 * The first of these chunks that a blob's chunk map does not claim; undefined: it claims them all. A map that is not there, or is none, claims nothing. A look from outside: nothing is kept open, changed or believed.
 * Throws CacheError 'BAD_OPTION' for an id that is none.
 */
export function firstUnclaimed(
  blob: { readonly directory: string; readonly blobId: string; readonly chunkCount: number },
  chunks: Iterable<number>,
): number | undefined {
  const map = readMap(cachePath(blob.directory, blob.blobId, 'map'), blob.chunkCount)
  if (map?.readUInt32LE(MAP_HEADER.allReady) === ALL_READY) return undefined
  for (const chunk of chunks) {
    const byte = map?.[MAP_HEADER_SIZE + (chunk >> 3)] ?? 0
    if ((byte & bitOf(chunk)) === 0) return chunk
  }
  return undefined
}

/** How many chunks a blob's chunk map claims. It gets less when a daemon finds that one is not what it should be. */
export function countClaims(blob: {
  readonly directory: string
  readonly blobId: string
  readonly chunkCount: number
}): number {
  const map = readMap(cachePath(blob.directory, blob.blobId, 'map'), blob.chunkCount)
  let count = 0
  for (const byte of map?.subarray(MAP_HEADER_SIZE) ?? []) for (let bits = byte; bits > 0; bits &= bits - 1) count += 1
  return count
}

function readMap(path: string, chunkCount: number): Buffer | undefined {
  const size = MAP_HEADER_SIZE + bitmapSize(chunkCount)
  try {
    if (statSync(path).size !== size) return undefined
    const map = readFileSync(path)
    return map.length === size && judgeMap(map) === 'good' ? map : undefined
  } catch (error) {
    if (errnoName(error) === undefined) throw error
    return undefined
  }
}
