import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { cachePlace } from '../../kernel/vm/index.ts'
import { DaemonError, messageOf } from '../errors.ts'
import type { Log } from '../log.ts'

/** Volumes of EROFS; the `I` is the kernel's. */
const VOLUME = /^Ierofs,/
const REFUSED = 'failed to start service, failed to cull blob objects from fscache'
/** A name that the kernel does not encode. */
const PLAIN_NAME = /^[A-Za-z0-9._+,-]{1,250}$/

/** Lets the kernel remove what its cache keeps of a blob, in every volume. Throws DaemonError when one is in use, or it refuses. `command` writes to the device. */
export function cullBlob(directory: string, blobId: string, command: (text: string) => void, log: Log): void {
  if (!PLAIN_NAME.test(blobId))
    throw new DaemonError('BAD_REQUEST', `no blob is called ${JSON.stringify(blobId.slice(0, 300))}`)
  const cache = join(directory, 'cache')
  const volumes = existsSync(cache) ? readdirSync(cache).filter((name) => VOLUME.test(name)) : []
  let failed = 0
  for (const volume of volumes) {
    const place = cachePlace(volume.slice(1), blobId)
    const folder = join(cache, volume, place.directory)
    if (!existsSync(join(folder, place.name))) continue
    try {
      // The kernel takes names in the current directory only.
      inDirectory(folder, () => {
        command(`inuse ${place.name}`)
        command(`cull ${place.name}`)
      })
    } catch (error) {
      failed += 1
      log.warn(`the kernel keeps ${place.name} of ${volume}: ${messageOf(error)}`)
    }
  }
  if (failed > 0)
    throw new DaemonError('BUSY', `blob ${blobId} stays in ${failed} volumes of the kernel's cache`, { wire: REFUSED })
}

function inDirectory(directory: string, act: () => void): void {
  const before = process.cwd()
  process.chdir(directory)
  try {
    act()
  } finally {
    process.chdir(before)
  }
}
