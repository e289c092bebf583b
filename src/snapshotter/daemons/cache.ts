/** The directory in which all daemons keep what they fetched: what it takes, and what of it nobody needs. Names: docs/formats/cache.md, "Files". */
import { opendir, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { Usage } from '../snapshot.ts'

/** In the order in which they go: marks before the data that they speak of, so that a crash in between leaves no claim about what is gone. */
const SUFFIXES = [
  '.chunk_map',
  '.blob.data.chunk_map',
  '.blob.meta',
  '.blob.pins',
  '',
  '.blob.data',
  '.blob.raw',
  '.blob.digest',
  '.blob.toc',
  '.image.boot',
  '.image.disk',
  '.layer.disk',
] as const
/** Blobs are named by their digests. Everything else in the directory is somebody else's. */
const BLOB_ID = /^[0-9a-f]{64}$/
const BYTES_A_BLOCK = 512

/** The blob that a cache file belongs to. */
export function blobOf(name: string): string | undefined {
  const suffix = SUFFIXES.toSorted((a, b) => b.length - a.length).find((ending) => name.endsWith(ending)) ?? ''
  const id = name.slice(0, name.length - suffix.length)
  return BLOB_ID.test(id) ? id : undefined
}

/** What a blob takes. */
export async function blobUsage(directory: string, blobId: string): Promise<Usage> {
  let [bytes, inodes] = [0, 0]
  for (const suffix of SUFFIXES) {
    const found = await stat(join(directory, blobId + suffix)).catch(() => undefined)
    if (found === undefined) continue
    bytes += found.blocks * BYTES_A_BLOCK
    inodes++
  }
  return { bytes, inodes }
}

/** Ids of all blobs that have files there. */
export async function cachedBlobs(directory: string): Promise<Set<string>> {
  const found = new Set<string>()
  try {
    for await (const entry of await opendir(directory)) {
      const id = entry.isFile() ? blobOf(entry.name) : undefined
      if (id !== undefined) found.add(id)
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error // ENOENT: nothing was ever fetched
  }
  return found
}

/** Removes all that is kept of a blob. */
export async function removeBlob(directory: string, blobId: string): Promise<void> {
  for (const suffix of SUFFIXES) await rm(join(directory, blobId + suffix), { force: true })
}
