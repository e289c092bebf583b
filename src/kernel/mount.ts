import { closeSync, readFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { KernelError } from './errors.ts'
import { cPath, later, libc } from './syscall.ts'

const MS = { RDONLY: 1, NOSUID: 2, NODEV: 4, NOATIME: 1024 } as const
const MNT_DETACH = 2
const MOUNT_TABLE = '/proc/self/mountinfo'
const O_RDWR_CLOEXEC = 2 | 0o2000000

/** What the mount table shows, and what the kernel may ask. */
export interface FuseMountOptions {
  /** First column of the mount table. */
  readonly source: string
  readonly readOnly: boolean
  /** Largest READ, bytes. */
  readonly maxReadBytes: number
}

/** Mounts a FUSE file system and gives the device's descriptor, which the caller owns. Nobody is answered before `serveFuse` runs on it. */
export function mountFuse(at: string, options: FuseMountOptions): number {
  const c = libc()
  const fd = c.open(cPath('/dev/fuse'), O_RDWR_CLOEXEC, 0)
  if (fd < 0)
    throw new KernelError(
      'open',
      c.errno(),
      '/dev/fuse cannot be opened; load the module with "modprobe fuse", and give a container the device',
    )
  const data = `fd=${fd},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions,max_read=${options.maxReadBytes}`
  const flags = MS.NOSUID | MS.NODEV | MS.NOATIME | (options.readOnly ? MS.RDONLY : 0)
  const result = c.mount(cPath(options.source), cPath(at), 'fuse', flags, data)
  if (result < 0) {
    const error = new KernelError(
      'mount',
      c.errno(),
      `cannot mount FUSE at ${at}${c.errno() === 1 ? '; this needs root (or CAP_SYS_ADMIN)' : ''}`,
    )
    closeSync(fd)
    throw error
  }
  return fd
}

/** A plain mount; `flags` as mount(2) wants them. */
async function mount(type: string, source: string, at: string, flags: number, data: string): Promise<void> {
  await later(libc().mount, 'mount', `cannot mount ${type} at ${at}`, cPath(source), cPath(at), type, flags, data)
}

/** Mounts overlayfs. `lower` from the top layer down; `upper` and `work` undefined = read only. */
export async function mountOverlay(
  at: string,
  layers: { readonly lower: readonly string[]; readonly upper?: string; readonly work?: string },
): Promise<void> {
  const escape = (path: string): string => path.replaceAll(/[\\,:]/g, '\\$&')
  const writable =
    layers.upper !== undefined && layers.work !== undefined
      ? `,upperdir=${escape(layers.upper)},workdir=${escape(layers.work)}`
      : ''
  const data = `lowerdir=${layers.lower.map(escape).join(':')}${writable}`
  if (data.length >= 4096)
    throw new KernelError(
      'mount',
      7,
      `the list of ${layers.lower.length} lower layers for ${at} is longer than a page; use shorter paths`,
    )
  await mount('overlay', 'overlay', at, writable === '' ? MS.RDONLY : 0, data)
}

/**
 * Mounts an EROFS image file (Linux ≥ 6.12) with the files of its extra devices, in device-slot order. A disk that holds its devices itself must be a block device: of a file, Linux (6.18 at least) compares a chunk's offset
 * in its device with where the chunk before ends on the disk, and takes equal ones for neighbours.
 */
export async function mountErofs(image: string, at: string, devices: readonly string[]): Promise<void> {
  await mount(
    'erofs',
    image,
    at,
    MS.RDONLY | MS.NOSUID | MS.NODEV,
    devices.map((device) => `device=${device}`).join(','),
  )
}

/** Mounts a tmpfs of at most `bytes`. */
export async function mountTmpfs(at: string, bytes: number): Promise<void> {
  await mount('tmpfs', 'tmpfs', at, MS.NOSUID | MS.NODEV, `size=${bytes},mode=0755`)
}

/** Unmounts; `lazy` detaches a busy one at once and lets its last user end it. A path that is no mount point is no error. */
export async function unmount(at: string, lazy = false): Promise<void> {
  try {
    await later(libc().umount2, 'umount', `cannot unmount ${at}`, cPath(at), lazy ? MNT_DETACH : 0)
  } catch (error) {
    // EINVAL: nothing is mounted there; the others: there is no such folder
    if (!(error instanceof KernelError && ['EINVAL', 'ENOENT', 'ENOTDIR'].includes(error.code))) throw error
  }
}

/** A line of the mount table. */
export interface MountEntry {
  readonly at: string
  readonly type: string
  readonly source: string
  /** `major:minor`, as in /sys. */
  readonly device: string
}

/** The mount table of this process, topmost mounts last. Never touches the mounts themselves (a dead one would hang). */
export async function readMountInfo(): Promise<MountEntry[]> {
  return entriesOf(await readFile(MOUNT_TABLE, 'latin1'))
}

/** The same at once, for decisions that nothing may come between. */
export function readMountInfoNow(): MountEntry[] {
  return entriesOf(readFileSync(MOUNT_TABLE, 'latin1'))
}

function entriesOf(table: string): MountEntry[] {
  const unescape = (text: string): string =>
    text.replaceAll(/\\([0-7]{3})/g, (_all, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)))
  const lines = table.trimEnd().split('\n')
  return lines.map((line) => {
    const [left = '', right = ''] = line.split(' - ')
    const fields = left.split(' ')
    const [type = '', source = ''] = right.split(' ')
    return {
      at: Buffer.from(unescape(fields[4] ?? ''), 'latin1').toString(),
      type,
      source: unescape(source),
      device: fields[2] ?? '',
    }
  })
}
