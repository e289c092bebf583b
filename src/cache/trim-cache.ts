/** Keeps what a cache directory takes on the disk below a limit, as far as blobs go that nobody uses. Source: docs/formats/cache.md, "Size limit". */
import { closeSync, constants, fstatSync, openSync, rmSync, writeSync } from 'node:fs'
import { lstat, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { whileAlone } from '../kernel/index.ts'
import { MAP_HEADER_SIZE } from './chunk-map-format.ts'
import { cacheError, errnoName } from './errors.ts'
import { writeAllReady } from './map-file.ts'

/** Files of a blob in the order of their removal: marks before data. */
const SUFFIXES = [
  '.blob.data.chunk_map',
  '.blob.data',
  '.blob.raw',
  '.blob.meta',
  '.blob.pins',
  '.blob.digest',
  '.blob.toc',
] as const
const NAME = /^([A-Za-z0-9][A-Za-z0-9_-]{0,199})(\.blob\.(?:data|raw|meta|pins|digest|toc|data\.chunk_map))$/
const DATA_SUFFIXES: ReadonlySet<string> = new Set(['.blob.data', '.blob.raw'])
const BLOCK = 512
/** Of a blob of 2^24 chunks. */
const MAX_BITMAP_BYTES = 2 ** 21

interface BlobFiles {
  readonly id: string
  readonly suffixes: Set<string>
  bytes: number
  usedAt: number
}

/**
 * Removes the files of blobs that no process has open, those used longest ago first, until the cache files in the directory take no more than `limitBytes` of the disk. Gives what they take then. Throws CacheError
 * when the directory cannot be read.
 */
export async function trimCache(directory: string, limitBytes: number): Promise<number> {
  const blobs = await blobsIn(directory)
  let total = blobs.reduce((sum, { bytes }) => sum + bytes, 0)
  for (const blob of blobs.sort((a, b) => a.usedAt - b.usedAt)) {
    if (total <= limitBytes) break
    try {
      if (removeUnused(directory, blob)) total -= blob.bytes
    } catch (error) {
      if (errnoName(error) === undefined) throw error // what cannot be removed stays
    }
  }
  return total
}

async function blobsIn(directory: string): Promise<BlobFiles[]> {
  const blobs = new Map<string, BlobFiles>()
  try {
    for (const name of await readdir(directory)) {
      const [, id, suffix] = NAME.exec(name) ?? []
      if (id === undefined || suffix === undefined) continue
      const found = await lstat(join(directory, name)).catch(() => undefined) // gone meanwhile
      if (found?.isFile() !== true) continue
      const blob = blobs.get(id) ?? { id, suffixes: new Set(), bytes: 0, usedAt: 0 }
      blobs.set(id, blob)
      blob.suffixes.add(suffix)
      blob.bytes += found.blocks * BLOCK
      blob.usedAt = Math.max(blob.usedAt, found.mtimeMs)
    }
  } catch (error) {
    throw cacheError(error, `cannot look into the cache directory ${directory}`)
  }
  return [...blobs.values()]
}

/** False for a blob that somebody has open, or of which there is no data. */
function removeUnused(directory: string, { id, suffixes }: BlobFiles): boolean {
  const [data, more] = [...suffixes].filter((suffix) => DATA_SUFFIXES.has(suffix))
  if (data === undefined) return false
  const remove = (): void => {
    if (suffixes.has(SUFFIXES[0])) withdrawClaims(join(directory, id + SUFFIXES[0]))
    for (const suffix of SUFFIXES) rmSync(join(directory, id + suffix), { force: true })
  }
  if (more === undefined) return whileUnused(join(directory, id + data), remove)
  let isRemoved = false
  whileUnused(join(directory, id + data), () => {
    isRemoved = whileUnused(join(directory, id + more), remove)
  })
  return isRemoved
}

/** A process that is opening the blob now may have got the map, and would get a new data file: it must find no claims. */
function withdrawClaims(path: string): void {
  const fd = openSync(path, constants.O_RDWR | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  try {
    const bits = Math.min(fstatSync(fd).size - MAP_HEADER_SIZE, MAX_BITMAP_BYTES)
    if (bits <= 0) return
    writeAllReady(fd, 0)
    writeSync(fd, new Uint8Array(bits), 0, bits, MAP_HEADER_SIZE)
  } finally {
    closeSync(fd)
  }
}

function whileUnused(path: string, act: () => void): boolean {
  let fd: number
  try {
    fd = openSync(path, constants.O_RDWR | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  } catch (error) {
    if (errnoName(error) === undefined) throw error
    return false
  }
  try {
    return whileAlone(fd, act)
  } finally {
    closeSync(fd)
  }
}
