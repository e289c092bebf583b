import { readlink, realpath, stat } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { readMountInfo, unmount, whyNoFuse } from '../kernel/index.ts'
import { isDead } from './dead-mount.ts'
import { DaemonError, messageOf } from './errors.ts'
import type { Log } from './log.ts'
import { MOUNT_SOURCE } from './transports/fuse.ts'

const MAX_LEFTOVERS = 16

/**
 * Makes sure that a FUSE file system can be mounted at a path, and gives its real name. A mount that a killed daemon left there is detached.
 * Throws DaemonError 'BAD_CONFIG' or 'BUSY', which say what to do.
 */
export async function prepareMountPoint(path: string, log: Log): Promise<string> {
  const why = whyNoFuse()
  if (why !== undefined) throw new DaemonError('IO', `cannot mount at ${path}: ${why}`)
  await detachLeftovers(resolve(path), log)
  let at: string
  try {
    at = await realpath(path)
    if (!(await stat(at)).isDirectory()) throw new Error('it is not a directory')
  } catch (error) {
    throw new DaemonError(
      'BAD_CONFIG',
      `cannot mount at ${path}: ${messageOf(error)}; give an existing directory with --mountpoint`,
      { cause: error },
    )
  }
  await detachLeftovers(at, log)
  return at
}

/** The real name of a mount point, which is not touched: whoever serves what is mounted there may be gone, and then a question would wait for ever. */
export async function mountPointName(path: string): Promise<string> {
  const whole = resolve(path)
  const target = await readlink(whole).catch(() => undefined) // EINVAL: no link, and the kernel knows that by itself
  if (target !== undefined) return await realpath(whole)
  return join(await realpath(dirname(whole)), basename(whole))
}

/** Has a nydusd mounted at this real name? With a number of a session, in the kernel's own form: that one? */
export async function isMounted(at: string, connection?: bigint): Promise<boolean> {
  const entry = (await readMountInfo()).findLast((mount) => mount.at === at)
  if (entry === undefined || !entry.type.startsWith('fuse')) return false
  if (connection === undefined) return entry.source === MOUNT_SOURCE
  return entry.device === `${connection >> 20n}:${connection & 0xf_ffffn}`
}

/** Only mounts that answer nobody are taken away: another daemon's would be lost with its users. */
async function detachLeftovers(at: string, log: Log): Promise<void> {
  for (let count = 0; count < MAX_LEFTOVERS; count++) {
    const mount = (await readMountInfo()).findLast((entry) => entry.at === at)
    if (mount === undefined || !mount.type.startsWith('fuse') || mount.source !== MOUNT_SOURCE) return
    if (!(await isDead(at)))
      throw new DaemonError(
        'BUSY',
        `cannot mount at ${at}: another nydusd has mounted there and answers; stop it, or run "umount ${at}"`,
      )
    log.warn(`${at} has the mount of a daemon that is gone; it is detached`)
    await unmount(at, true)
  }
}
