/** Configurations of containerd, the snapshotter and nydusd: those that the handbook shows, for a private folder. */
import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Runtime } from './runtimes.ts'

const root = join(import.meta.dirname, '../..')

/** What the configurations of a node differ in. */
export interface NodeSettings {
  readonly mode: 'shared' | 'dedicated'
  readonly recover: 'none' | 'restart' | 'failover'
  /** A service manager keeps descriptors for the snapshotter. */
  readonly isManaged?: boolean
  /** As the handbook has it, if absent. */
  readonly driver?: 'fusedev' | 'nodev'
  /** TOML that follows the snapshotter's, for the node's folder. */
  readonly more?: (path: string) => string
}

export interface Wanted extends NodeSettings {
  /** The folder in which everything is. */
  readonly path: string
  readonly metricsPort: number
  readonly runtime: Pick<Runtime, 'configVersion'>
  /** For sandboxes. */
  readonly pauseImage: string
  /** Of registries without TLS. */
  readonly registryHost: string
  readonly nydusd: string
}

/** The snapshotter's root: where the kubelet of containerd 1.x looks for a proxy plugin's. */
export function snapshotterRoot(path: string): string {
  return join(path, 'c/io.containerd.snapshotter.v1.nydus')
}

/** Writes `snapshotter.toml`, `nydusd.json` and `containerd.toml`, and makes the folders that they name. */
export function writeConfigurations(wanted: Wanted): void {
  const { path, nydusd } = wanted
  for (const name of ['cni', 'networks', 'pods', `certs/${wanted.registryHost}`])
    mkdirSync(join(path, name), { recursive: true })
  for (const name of ['nydusd', 'nydusd-new']) symlinkSync(nydusd, join(path, name))
  const shown = shownConfigurations(wanted)
  const document = JSON.parse(shown.nydusd) as { device: { backend: { config: Record<string, unknown> } } }
  Object.assign(document.device.backend.config, { scheme: 'http', skip_verify: true })
  writeFileSync(join(path, 'nydusd.json'), JSON.stringify(document))
  const more = '[log]\nlog_to_stdout = true\nlevel = "debug"\n[snapshot]\nsync_remove = true\n'
  const metrics = 'collect_interval = "1s"\nhung_io_interval = "1s"\n'
  writeFileSync(join(path, 'snapshotter.toml'), `${shown.snapshotter}${metrics}${more}${wanted.more?.(path) ?? ''}`)
  const server = `http://${wanted.registryHost}`
  writeFileSync(
    join(path, `certs/${wanted.registryHost}/hosts.toml`),
    `server = "${server}"\n[host."${server}"]\n  capabilities = ["pull", "resolve"]\n`,
  )
  const containerd = wanted.runtime.configVersion === 2 ? version2(wanted, shown.containerd) : version3(wanted)
  writeFileSync(join(path, 'containerd.toml'), containerd)
}

function places(path: string): string {
  return `root = "${path}/c"
state = "${path}/s"
[grpc]
  address = "${path}/c.sock"
[ttrpc]
  address = "${path}/c.sock.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "${path}/opt"
`
}

function runc(plugin: string, path: string): string {
  return `  [${plugin}.containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [${plugin}.containerd.runtimes.runc.options]
      Root = "${path}/runc"
  [${plugin}.cni]
    bin_dir = "${path}/cni"
    conf_dir = "${path}/networks"
`
}

/** Of containerd 1.6 and 1.7. `shown` has the proxy plugin and the CRI's snapshotter. */
function version2({ path, pauseImage }: Wanted, shown: string): string {
  const cri = 'plugins."io.containerd.grpc.v1.cri"'
  const [version = '', rest = ''] = shown.split(/(?<=^version = 2\n)/)
  return `${version}${places(path)}${rest}
[${cri}]
  sandbox_image = "${pauseImage}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  stats_collect_period = 1
  [${cri}.registry]
    config_path = "${path}/certs"
${runc(cri, path)}`
}

/** Of containerd 2. */
function version3({ path, pauseImage }: Wanted): string {
  const [images, runtime] = ['plugins."io.containerd.cri.v1.images"', 'plugins."io.containerd.cri.v1.runtime"'] as const
  return `version = 3
temp = "${path}/tmp"
${places(path)}[proxy_plugins.nydus]
  type = "snapshot"
  address = "${path}/s.sock"
  capabilities = ["remap-ids"]
  [proxy_plugins.nydus.exports]
    root = "${snapshotterRoot(path)}"
    enable_remote_snapshot_annotations = "true"
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
  platform = "linux"
  snapshotter = "overlayfs"
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
  platform = "linux"
  snapshotter = "nydus"
  differ = "walking"
[plugins."io.containerd.nri.v1.nri"]
  disable = true
[${images}]
  snapshotter = "nydus"
  disable_snapshot_annotations = false
  stats_collect_period = 1
  [${images}.pinned_images]
    sandbox = "${pauseImage}"
  [${images}.registry]
    config_path = "${path}/certs"
[${runtime}]
  disable_apparmor = true
  restrict_oom_score_adj = true
${runc(runtime, path)}`
}

interface Shown {
  readonly snapshotter: string
  readonly nydusd: string
  readonly containerd: string
}

/** The configurations of the handbook, with the names of a test. */
function shownConfigurations({ path, mode, recover, driver = 'fusedev', metricsPort }: Wanted): Shown {
  const page = readFileSync(join(root, 'docs/running-containers.md'), 'utf8')
  const section = page.slice(page.indexOf("## With upstream's snapshotter"))
  const blocks = [...section.matchAll(/^```(?:toml|json)\n(.*?)^```$/gms)].map(([, text = '']) =>
    text
      .replaceAll('/var/lib/containerd/io.containerd.snapshotter.v1.nydus', snapshotterRoot(path))
      .replaceAll('/run/containerd-nydus/containerd-nydus-grpc.sock', `${path}/s.sock`)
      .replaceAll('/run/containerd-nydus/system.sock', `${path}/system.sock`)
      .replaceAll('/opt/nydus-node/bin/nydusd', `${path}/nydusd`)
      .replaceAll('/etc/nydus/nydusd-config.json', `${path}/nydusd.json`)
      .replaceAll('127.0.0.1:9110', `127.0.0.1:${metricsPort}`)
      .replaceAll('daemon_mode = "shared"', `daemon_mode = "${mode}"`)
      .replaceAll('fs_driver = "fusedev"', `fs_driver = "${driver}"`)
      .replaceAll('recover_policy = "failover"', `recover_policy = "${recover}"`),
  )
  assert.equal(blocks.length, 3)
  const [snapshotter = '', nydusd = '', containerd = ''] = blocks
  return { snapshotter, nydusd, containerd }
}
