/** Opening a chunk map: what is there is used, mended in place or replaced, never believed. */
import { closeSync, fdatasyncSync, fstatSync, readSync, writeSync } from 'node:fs'
import { placeFile } from './cache-files.ts'
import {
  ALL_READY,
  bitmapSize,
  emptyMap,
  isFull,
  judgeMap,
  lastByteMask,
  MAP_HEADER,
  MAP_HEADER_SIZE,
} from './chunk-map-format.ts'
import { openEither } from './data-file.ts'
import { CacheError, cacheError, errnoName } from './errors.ts'

/** An open map and the claims found in it. `fd` is -1 where none can be had (a read-only place): the claims are then kept in memory only. */
export interface MapFile {
  readonly fd: number
  readonly isWritable: boolean
  readonly bitmap: Uint8Array
}

const ATTEMPTS = 4

/** Opens or makes the map. `discard` withdraws all claims. Throws CacheError. */
export function openMapFile(path: string, chunkCount: number, discard: boolean): MapFile {
  try {
    // More than one round only when another process makes or replaces the file at this moment.
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const opened = tryOpen(path, chunkCount, discard)
      if (opened !== undefined) return opened
    }
  } catch (error) {
    if (cacheError(error, '').code === 'READ_ONLY') return withoutFile(chunkCount)
    throw cacheError(error, `cannot use the chunk map ${path}`)
  }
  throw new CacheError('BAD_MAP', `the chunk map ${path} is damaged again each time it is mended; remove it`)
}

/** Undefined: the file was made or replaced, look again. */
function tryOpen(path: string, chunkCount: number, discard: boolean): MapFile | undefined {
  let file: { fd: number; isWritable: boolean }
  try {
    file = openEither(path)
  } catch (error) {
    if (errnoName(error) !== 'ENOENT') throw error
    // One that a power cut tears is no map, and claims as little.
    placeFile(path, [emptyMap(chunkCount)], 'ifAbsent', 'unsynced')
    return undefined
  }
  let isKept = false
  try {
    const bitmap = load(file, chunkCount, discard)
    isKept = bitmap !== undefined
    if (bitmap !== undefined) return { ...file, bitmap }
  } finally {
    if (!isKept) closeSync(file.fd)
  }
  if (!file.isWritable) return withoutFile(chunkCount)
  // Another size is replaced, never truncated: upstream maps the file, and a page that vanishes would kill it.
  placeFile(path, [emptyMap(chunkCount)], 'replace', 'unsynced')
  return undefined
}

/** The claims of an open map; mends what can be mended in place. Undefined for a file of another size. */
function load(file: { fd: number; isWritable: boolean }, chunkCount: number, discard: boolean): Uint8Array | undefined {
  const size = MAP_HEADER_SIZE + bitmapSize(chunkCount)
  const found = fstatSync(file.fd)
  if (!found.isFile() || found.size !== size) return undefined
  const content = Buffer.alloc(size)
  if (readSync(file.fd, content, 0, size, 0) !== size) return undefined
  const bitmap = content.subarray(MAP_HEADER_SIZE)
  if (discard || judgeMap(content) !== 'good') {
    const empty = emptyMap(chunkCount)
    if (file.isWritable && !content.equals(empty)) {
      writeSync(file.fd, empty, 0, size, 0)
      fdatasyncSync(file.fd) // a power cut must not bring its claims back over the new data file
    }
    bitmap.fill(0)
    return bitmap
  }
  const wasAllReady = content.readUInt32LE(MAP_HEADER.allReady) === ALL_READY
  if (wasAllReady) bitmap.fill(0xff)
  if (bitmap.length > 0) bitmap[bitmap.length - 1] = (bitmap.at(-1) ?? 0) & lastByteMask(chunkCount)
  if (!wasAllReady && file.isWritable && isFull(bitmap, chunkCount)) writeAllReady(file.fd, ALL_READY)
  return bitmap
}

function withoutFile(chunkCount: number): MapFile {
  return { fd: -1, isWritable: false, bitmap: new Uint8Array(bitmapSize(chunkCount)) }
}

/** The header's word that upstream sets when it opens a full map; it makes a reader skip the bits. */
export function writeAllReady(fd: number, value: number): void {
  const word = Buffer.alloc(4)
  word.writeUInt32LE(value)
  writeSync(fd, word, 0, 4, MAP_HEADER.allReady)
}
