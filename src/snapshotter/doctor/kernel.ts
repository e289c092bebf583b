import { accessSync, constants, existsSync, readFileSync } from 'node:fs'
import { release } from 'node:os'
import { join } from 'node:path'
import { knowsFileSystem, readMountInfoNow, whyNoFuse } from '../../kernel/index.ts'
import { SnapshotterError } from '../errors.ts'
import { configuredWish, whyNoKernelImages } from '../kernel-images/index.ts'
import { readTemplate } from '../registry-config.ts'
import { findProgram } from '../settings/index.ts'
import { Findings } from './finding.ts'
import type { NodeFacts } from './node.ts'

export async function checkKernel({ settings }: NodeFacts): Promise<Findings[]> {
  return [
    fuse(settings.daemonMode),
    overlay(),
    erofs(settings.tarfs.enable),
    await erofsFromFiles(settings),
    fanotify(),
    userNamespaces(),
    cgroup(settings.cgroup.enable),
  ]
}

function fuse(mode: string): Findings {
  const found = new Findings('kernel-fuse')
  const why = whyNoFuse()
  if (why === undefined || mode === 'none') found.ok('FUSE can be mounted')
  else
    found.fail({
      what: `FUSE cannot be mounted: ${why}`,
      fix: 'modprobe fuse && echo fuse > /etc/modules-load.d/fuse.conf\nRun as root; in a container: --privileged --device /dev/fuse',
    })
  return found
}

function overlay(): Findings {
  const found = new Findings('kernel-overlay')
  if (knowsFileSystem('overlay')) found.ok('the kernel has overlayfs')
  else
    found.fail({
      what: 'the kernel has no overlayfs',
      fix: 'modprobe overlay && echo overlay > /etc/modules-load.d/overlay.conf',
    })
  return found
}

function erofs(isNeeded: boolean): Findings {
  const found = new Findings('kernel-erofs')
  const problem = {
    what: 'the kernel has no EROFS, which tarfs needs',
    fix: 'modprobe erofs && echo erofs > /etc/modules-load.d/erofs.conf',
  }
  if (knowsFileSystem('erofs')) found.ok('the kernel has EROFS')
  else if (isNeeded) found.fail(problem)
  else found.skip('the kernel has no EROFS; only tarfs needs it')
  return found
}

/** Tried in the directory that the mounts would be in: not every file system can have them. */
async function erofsFromFiles(settings: NodeFacts['settings']): Promise<Findings> {
  const { root, daemon } = settings
  const found = new Findings('kernel-erofs-files')
  const wish = configuredWish(settings, await readTemplate(daemon.configPath))
  if (typeof wish !== 'string') {
    found.ok(`the kernel shows no images from the cache, since ${wish.why}`)
    return found
  }
  if (!existsSync(root)) {
    found.skip(`${root} is not there yet; the snapshotter tries at its start`)
    return found
  }
  const why = await whyNoKernelImages(root, wish)
  if (why !== undefined) {
    found.skip(`images that are all in the cache are served by nydusd, not by the kernel: ${why}`)
    return found
  }
  const directory = `${join(root, 'erofs')}/`
  const shown = readMountInfoNow().filter(({ at, type }) => type === 'erofs' && at.startsWith(directory))
  found.ok(`the kernel shows images that are all in the cache, without nydusd: ${shown.length} now`)
  return found
}

/** Events before a file is read came with Linux 6.14. */
function fanotify(): Findings {
  const found = new Findings('kernel-fanotify')
  const [major = 0, minor = 0] = release().split('.').map(Number)
  if (major > 6 || (major === 6 && minor >= 14)) found.ok(`Linux ${release()} tells before a file is read`)
  else found.skip(`Linux ${release()} does not tell before a file is read (6.14 does); nothing here needs it`)
  return found
}

function userNamespaces(): Findings {
  const found = new Findings('kernel-user-namespaces')
  const most = numberIn('/proc/sys/user/max_user_namespaces')
  if (!existsSync('/proc/self/ns/user') || most === 0)
    found.warn({
      what: 'user namespaces are switched off: pods with hostUsers = false cannot start',
      fix: 'sysctl -w user.max_user_namespaces=65536\necho user.max_user_namespaces=65536 > /etc/sysctl.d/90-userns.conf',
    })
  else found.ok('user namespaces can be made')
  return found
}

function cgroup(isWanted: boolean): Findings {
  const found = new Findings('kernel-cgroup')
  const controllers = existsSync('/sys/fs/cgroup/cgroup.controllers')
    ? readFileSync('/sys/fs/cgroup/cgroup.controllers', 'utf8')
    : undefined
  const hasMemory =
    controllers === undefined ? existsSync('/sys/fs/cgroup/memory') : controllers.split(/\s+/).includes('memory')
  if (!isWanted) found.ok('no control group for nydusd is asked for')
  else if (hasMemory) found.ok('the memory of nydusds can be limited')
  else
    found.warn({
      what: 'the memory of nydusds cannot be limited: there is no memory controller',
      fix: 'Boot with cgroup_enable=memory, or write enable = false under [cgroup]',
    })
  return found
}

function numberIn(path: string): number | undefined {
  try {
    return Number(readFileSync(path, 'utf8'))
  } catch {
    return undefined // an older kernel
  }
}

/** What mounts of the type `fuse.nydus-overlayfs` need. */
export function checkMountHelper({ settings }: NodeFacts): Findings {
  const found = new Findings('mount-helper')
  const { nydusOverlayfs, nydusOverlayfsPath } = settings.snapshot
  if (!nydusOverlayfs && settings.daemonMode !== 'none') {
    found.ok('no mount helper is asked for')
    return found
  }
  const places = ['/sbin', '/usr/sbin', '/bin', '/usr/bin'].map((folder) => `${folder}/mount.fuse3`)
  if (places.some(isProgram)) found.ok('mount.fuse3 is there')
  else
    found.fail({
      what: 'mount.fuse3 is missing, which runs the mount helper',
      fix: 'apt-get install fuse3     # or: dnf install fuse3',
    })
  try {
    found.ok(
      `the mount helper is ${findProgram(nydusOverlayfsPath, 'nydus-overlayfs', 'snapshot.nydus_overlayfs_path')}`,
    )
  } catch (error) {
    if (!(error instanceof SnapshotterError)) throw error
    found.fail({ what: error.message, fix: 'Put nydus-overlayfs of this package into /usr/local/bin' })
  }
  return found
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false // not here
  }
}
