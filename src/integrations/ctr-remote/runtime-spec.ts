import { type ImageConfig } from '../../registry/index.ts'
import { IntegrationError } from '../errors.ts'

/** What of an image's configuration a run changes; undefined leaves it. */
export interface ProcessChanges {
  readonly args: readonly string[] | undefined
  readonly entrypoint: readonly string[] | undefined
  readonly env: readonly string[]
  readonly cwd: string | undefined
  /** `uid[:gid]`. */
  readonly user: string | undefined
  readonly usesHostNetwork: boolean
}

/** What containerd gives containers. */
const CAPABILITIES =
  'CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE'
    .split(' ')
    .map((name) => `CAP_${name}`)
const PATH = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
const HIDDEN = ['/proc/acpi', '/proc/kcore', '/proc/keys', '/proc/latency_stats', '/proc/timer_list', '/sys/firmware']
const FIXED = ['/proc/asound', '/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger']

/** The specification of a container of an image, as `ctr run` makes it. Source: OCI runtime specification, config.md. Throws 'BAD_IMAGE' when there is nothing to run. */
export function runtimeSpec(
  id: string,
  image: ImageConfig,
  changes: ProcessChanges,
  cgroup: string,
): Readonly<Record<string, unknown>> {
  const network = changes.usesHostNetwork ? [] : [{ type: 'network' }]
  return {
    ociVersion: '1.0.2',
    process: processOf(image, changes),
    root: { path: 'rootfs' },
    hostname: id.slice(0, 12),
    mounts: mounts(),
    linux: {
      cgroupsPath: `${cgroup}/${id}`,
      resources: { devices: [{ allow: false, access: 'rwm' }] },
      namespaces: [...['pid', 'ipc', 'uts', 'mount'].map((type) => ({ type })), ...network],
      maskedPaths: HIDDEN,
      readonlyPaths: FIXED,
    },
  }
}

function processOf({ config = {} }: ImageConfig, changes: ProcessChanges): Readonly<Record<string, unknown>> {
  const entrypoint = changes.entrypoint ?? texts(config['Entrypoint'])
  const args = [...entrypoint, ...(changes.args ?? (changes.entrypoint === undefined ? texts(config['Cmd']) : []))]
  if (args.length === 0)
    throw new IntegrationError('BAD_IMAGE', 'the image has no command to run; give one with --entrypoint or --args')
  const env = texts(config['Env'])
  const cwd = changes.cwd ?? config['WorkingDir']
  return {
    user: userOf(changes.user ?? (typeof config['User'] === 'string' ? config['User'] : '')),
    args,
    env: [...(env.some((text) => text.startsWith('PATH=')) ? [] : [PATH]), ...env, ...changes.env],
    cwd: typeof cwd === 'string' && cwd !== '' ? cwd : '/',
    noNewPrivileges: true,
    rlimits: [{ type: 'RLIMIT_NOFILE', hard: 1024, soft: 1024 }],
    capabilities: { bounding: CAPABILITIES, effective: CAPABILITIES, permitted: CAPABILITIES },
  }
}

function userOf(text: string): { readonly uid: number; readonly gid: number } {
  if (text === '' || text === 'root') return { uid: 0, gid: 0 }
  const [, uid, gid = '0'] = /^(\d+)(?::(\d+))?$/.exec(text) ?? []
  if (uid !== undefined) return { uid: Number(uid), gid: Number(gid) }
  throw new IntegrationError(
    'UNSUPPORTED',
    `the image runs as user ${JSON.stringify(text)}; its number is not known without the image's files: give it with --user UID:GID`,
  )
}

function mounts(): ReadonlyArray<Readonly<Record<string, unknown>>> {
  const quiet = ['nosuid', 'noexec', 'nodev']
  const pts = ['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620', 'gid=5']
  const row = (destination: string, type: string, source: string, options: readonly string[]) => ({
    destination,
    type,
    source,
    options,
  })
  return [
    row('/proc', 'proc', 'proc', quiet),
    row('/dev', 'tmpfs', 'tmpfs', ['nosuid', 'strictatime', 'mode=755', 'size=65536k']),
    row('/dev/pts', 'devpts', 'devpts', pts),
    row('/dev/shm', 'tmpfs', 'shm', [...quiet, 'mode=1777', 'size=65536k']),
    row('/dev/mqueue', 'mqueue', 'mqueue', quiet),
    row('/sys', 'sysfs', 'sysfs', [...quiet, 'ro']),
    row('/run', 'tmpfs', 'tmpfs', ['nosuid', 'strictatime', 'mode=755', 'size=65536k']),
  ]
}

function texts(value: unknown): string[] {
  return Array.isArray(value) ? value.filter((one) => typeof one === 'string') : []
}
