import {
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  rmdirSync,
  rmSync,
  statfsSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { type MountEntry, readMountInfoNow } from '../../kernel/index.ts'
import { mountState } from '../daemons/index.ts'
import { Findings } from './finding.ts'
import type { NodeFacts } from './node.ts'

const MIB = 2 ** 20
const LITTLE_BYTES = 1024 * MIB
const NO_BYTES = 64 * MIB
const LITTLE_INODES = 50_000
const NO_INODES = 1000
/** A nydusd that takes longer for a word hangs. */
const ANSWER_MS = 5000

export function checkRoot({ settings }: NodeFacts): Findings {
  const found = new Findings('root')
  const { root } = settings
  const place = nearestThere(root)
  try {
    const probe = mkdtempSync(join(place, '.doctor-'))
    try {
      writeFileSync(join(probe, 'file'), '')
      const [entry] = readdirSync(probe, { withFileTypes: true })
      if (entry?.isFile() === true) found.ok(`${place} can be written to, and tells the types of its entries`)
      else
        found.fail({
          what: `the file system of ${place} does not tell the types of its entries (d_type)`,
          fix: 'On XFS: mkfs.xfs -n ftype=1; or take a root on ext4, XFS or btrfs',
        })
    } finally {
      rmSync(join(probe, 'file'), { force: true })
      rmdirSync(probe)
    }
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    found.fail({
      what: `${place} cannot be written to (${code})`,
      fix:
        code === 'ENOSPC' ? `df -h ${place}` : 'Run doctor as root; is the file system read-only? mount -o remount,rw',
    })
  }
  const type = mountOf(place)?.type
  if (type === 'overlay' || type?.startsWith('fuse') === true || type?.startsWith('nfs') === true)
    found.fail({
      what: `${place} is on ${type}, on which overlayfs cannot write`,
      fix: 'Take a root on ext4, XFS, btrfs or tmpfs; in a container: mount a volume of the host there',
    })
  return found
}

/** Whether another snapshotter has the root: ours, or upstream's. */
export function checkOwner({ settings }: NodeFacts, isAnswered: boolean): Findings {
  const found = new Findings('root-owner')
  const { root } = settings
  const ours = isLocked(join(root, 'snapshotter.lock'))
  const upstreams = isLocked(join(root, 'metadata.db'))
  if (upstreams)
    found.fail({
      what: `upstream's snapshotter runs on ${root} too: it has metadata.db open`,
      fix: `systemctl disable --now nydus-snapshotter\nfuser -v ${join(root, 'metadata.db')}`,
    })
  else if (ours && !isAnswered)
    found.fail({
      what: `another snapshotter runs on ${root}, and answers elsewhere`,
      fix: `fuser -v ${join(root, 'snapshotter.lock')}\nGive each snapshotter a root of its own`,
    })
  else found.ok(ours ? `one snapshotter has ${root}` : `nobody has ${root}`)
  return found
}

/**
 * Whether a process has a file locked. Looked up in the kernel's list: taking the lock, even for a moment, could hinder a snapshotter that starts. Source: proc_locks(5).
 */
function isLocked(path: string): boolean {
  const inode = statSync(path, { throwIfNoEntry: false })?.ino
  if (inode === undefined) return false
  const real = realpathSync(path)
  return readFileSync('/proc/locks', 'utf8')
    .split('\n')
    .map((line) => /FLOCK\s+ADVISORY\s+WRITE\s+(-?\d+)\s+[0-9a-f]+:[0-9a-f]+:(\d+)/.exec(line))
    .some((found) => found !== null && Number(found[2]) === inode && hasOpen(Number(found[1]), real))
}

/** Inodes of other file systems have the same numbers. Of processes that we may not see nothing is known, and they count. */
function hasOpen(pid: number, path: string): boolean {
  try {
    const folder = `/proc/${pid}/fd`
    return readdirSync(folder).some((fd) => linkOf(join(folder, fd)) === path)
  } catch {
    return pid <= 0 // of another namespace; one that has ended has no locks
  }
}

function linkOf(path: string): string {
  try {
    return readlinkSync(path)
  } catch {
    return '' // closed meanwhile
  }
}

export function checkSpace({ settings }: NodeFacts): Findings[] {
  const space = new Findings('disk-space')
  const inodes = new Findings('inodes')
  for (const [name, path] of new Map([
    ['root', settings.root],
    ['cache', settings.cache.dir],
    ['log', settings.log.dir],
  ])) {
    const place = nearestThere(path)
    const { bavail, bsize, ffree, files } = statfsSync(place)
    const bytes = bavail * bsize
    const told = `${Math.floor(bytes / MIB)} MiB are free for the ${name} (${place})`
    const fix = `df -h ${place}\ncrictl rmi --prune`
    if (bytes < NO_BYTES) space.fail({ what: `only ${told}`, fix })
    else if (bytes < LITTLE_BYTES) space.warn({ what: `only ${told}`, fix })
    else space.ok(told)
    if (files === 0) continue // btrfs makes them as they are needed
    const left = `${ffree} inodes are free for the ${name} (${place})`
    const repair = { what: `only ${left}`, fix: `df -i ${place}\ncrictl rmi --prune` }
    if (ffree < NO_INODES) inodes.fail(repair)
    else if (ffree < LITTLE_INODES) inodes.warn(repair)
    else inodes.ok(left)
  }
  return [space, inodes]
}

/** Mounts below the root that nobody serves any more, or whose nydusd hangs. */
export async function checkMounts({ settings }: NodeFacts): Promise<Findings> {
  const found = new Findings('leftover-mounts')
  let served = 0
  for (const { at, type } of readMountInfoNow()) {
    if (!at.startsWith(`${settings.root}/`)) continue
    const state = type.startsWith('fuse') ? await mountState(at, ANSWER_MS) : 'served'
    if (state === 'served') served++
    else if (state === 'dead')
      found.fail({
        what: `${at} is mounted, and its nydusd is gone (Transport endpoint is not connected)`,
        fix: `systemctl restart containerd-nydus-grpc     # mounts it again\nor, when no container uses it: umount -l ${at}`,
      })
    else {
      found.fail({
        what: `${at} is mounted, and its nydusd does not answer within ${ANSWER_MS / 1000} s; mounts behind it were not asked`,
        fix: `ps -eo pid,stat,wchan:20,args | grep nydusd     # stopped (T)? kill -CONT PID; else kill -9 PID, and it is brought back\ntail -n 50 ${settings.log.dir}/*/nydusd.log`,
      })
      break // each such question keeps a thread, and there are four
    }
  }
  if (found.all.length === 0)
    found.ok(served === 1 ? '1 mount below the root, served' : `${served} mounts below the root, all served`)
  return found
}

function mountOf(path: string): MountEntry | undefined {
  return readMountInfoNow()
    .filter(({ at }) => at === '/' || path === at || path.startsWith(`${at}/`))
    .sort((a, b) => a.at.length - b.at.length)
    .at(-1)
}

/** The path, or the nearest folder above it that is there. */
function nearestThere(path: string): string {
  for (let at = path; ; at = dirname(at))
    if (statSync(at, { throwIfNoEntry: false }) !== undefined || at === '/') return at
}
