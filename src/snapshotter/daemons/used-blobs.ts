/** Which blobs a mounted image reads from: what the cache must keep. */
import { readFile } from 'node:fs/promises'
import * as v from 'valibot'
import { openBootstrap } from '../../rafs/index.ts'
import { blobOf } from './cache.ts'
import type { DaemonImage, Nydusd } from './daemon.ts'
import { messageOf } from './message.ts'
import { sessionPath } from './places.ts'
import type { DaemonLog } from './settings.ts'

const TOLD = v.object({ underlying_files: v.array(v.string()) })

/** Names of cache files, as the daemon gives them; none when it has no cache for the image. Throws SnapshotterError. */
export async function toldFiles(daemon: Nydusd, key: string): Promise<string[]> {
  const told = await daemon.api.metrics('/blobcache', daemon.isShared ? sessionPath(daemon.record, key) : undefined)
  const parsed = v.safeParse(TOLD, told)
  return parsed.success ? parsed.output.underlying_files : []
}

/** Ids of all blobs that images read from; undefined when those of one cannot be told. */
export async function usedBlobs(images: readonly DaemonImage[], log: DaemonLog): Promise<Set<string> | undefined> {
  const used = new Set<string>()
  for (const image of images)
    try {
      for (const blob of await blobsOf(image)) used.add(blob)
    } catch (error) {
      log.warn(`the blobs of image ${image.record.SnapshotID} are not known: ${messageOf(error)}`)
      return undefined
    }
  return used
}

/** Ids of an image's blobs: of the files that its daemon told, and otherwise those that its bootstrap names. Throws RafsError, or what the system says. */
async function blobsOf({ record, bootstrap }: DaemonImage): Promise<ReadonlySet<string>> {
  const files = record.UnderlyingFiles ?? []
  if (files.length > 0) return new Set(files.map((file) => blobOf(file) ?? file))
  return new Set(openBootstrap(await readFile(bootstrap)).blobs.map(({ id }) => id))
}
