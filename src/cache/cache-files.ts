/** Names of a blob's cache files, and files that appear whole or not at all. Source: docs/formats/cache.md, "Files". */
import { closeSync, fdatasyncSync, linkSync, openSync, renameSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { CacheError, errnoName } from './errors.ts'

const SUFFIXES = {
  data: '.blob.data',
  raw: '.blob.raw',
  map: '.blob.data.chunk_map',
  meta: '.blob.meta',
  pins: '.blob.pins',
  tar: '',
} as const

/**
 * Path of one of a blob's cache files. Blob ids come from images: nothing is taken that could leave the directory or be another blob's file, so there is
 * neither slash nor dot in one (`x.blob.data` as an id would name the data of blob `x`). Throws CacheError 'BAD_OPTION'.
 */
export function cachePath(directory: string, blobId: string, kind: keyof typeof SUFFIXES): string {
  if (!/^[A-Za-z0-9][A-Za-z0-9_-]{0,199}$/.test(blobId)) {
    const shown = JSON.stringify(blobId.slice(0, 80))
    throw new CacheError('BAD_OPTION', `blob id ${shown} cannot name a cache file: wanted is a digest in hexadecimal`)
  }
  return join(directory, blobId + SUFFIXES[kind])
}

/** A name beside `path` that nobody else has: to be opened exclusively, which is what keeps it so. */
export function temporaryName(path: string): string {
  return `${path}.${process.pid}-${Math.random().toString(36).slice(2)}.tmp`
}

/**
 * Makes a file of `parts` under another name, syncs it and moves it into place, so that no reader, and no restart, ever sees half of it.
 * `ifAbsent` leaves a file alone that somebody else made meanwhile; otherwise it is replaced (who has the old one open keeps it). `unsynced` is for what a power cut may tear.
 */
export function placeFile(
  path: string,
  parts: readonly Uint8Array[],
  how: 'ifAbsent' | 'replace',
  sync: 'synced' | 'unsynced' = 'synced',
): void {
  const temporary = temporaryName(path)
  try {
    const fd = openSync(temporary, 'wx', 0o644)
    try {
      for (const part of parts) writeAll(fd, part)
      if (sync === 'synced') fdatasyncSync(fd)
    } finally {
      closeSync(fd)
    }
    if (how === 'replace') renameSync(temporary, path)
    else linkSync(temporary, path)
  } catch (error) {
    if (how === 'replace' || errnoName(error) !== 'EEXIST') throw error // EEXIST: somebody else was faster, which is as good
  } finally {
    rmSync(temporary, { force: true })
  }
}

function writeAll(fd: number, bytes: Uint8Array): void {
  for (let from = 0; from < bytes.length; ) from += writeSync(fd, bytes, from)
}
