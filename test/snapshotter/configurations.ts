/** Configurations of containerd, the snapshotter and nydusd: those that the handbook shows, for a private folder. */
import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

const root = join(import.meta.dirname, '../..')

/** What the configurations of the snapshotter differ in. */
export interface BenchOptions {
  readonly mode: 'shared' | 'dedicated'
  readonly recover: 'none' | 'restart' | 'failover'
}

interface Wanted extends BenchOptions {
  /** The folder in which everything is. */
  readonly path: string
  readonly metricsPort: number
}

interface Shown {
  readonly snapshotter: string
  readonly nydusd: string
  readonly containerd: string
}

/** Writes `snapshotter.toml`, `nydusd.json` and `containerd.toml`, and makes the folders that they name. */
export function writeConfigurations(wanted: Wanted): void {
  const { path } = wanted
  for (const name of ['cni', 'certs', 'nydus']) mkdirSync(join(path, name))
  for (const name of ['nydusd', 'nydusd-new']) symlinkSync(join(root, 'bin/nydusd'), join(path, name))
  const cri = 'plugins."io.containerd.grpc.v1.cri"'
  const { snapshotter, nydusd, containerd } = shownConfigurations(wanted)
  const document = JSON.parse(nydusd) as { device: { backend: { config: Record<string, unknown> } } }
  document.device.backend.config['scheme'] = 'http'
  writeFileSync(join(path, 'nydusd.json'), JSON.stringify(document))
  const more = '[log]\nlog_to_stdout = true\nlevel = "debug"\n[snapshot]\nsync_remove = true\n'
  const metrics = 'collect_interval = "1s"\nhung_io_interval = "1s"\n'
  writeFileSync(join(path, 'snapshotter.toml'), `${snapshotter}${metrics}${more}`)
  writeFileSync(
    join(path, 'containerd.toml'),
    `root = "${path}/root"
state = "${path}/state"
${containerd}
[grpc]
  address = "${path}/c.sock"
[ttrpc]
  address = "${path}/c.sock.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "${path}/opt"
[${cri}]
  disable_apparmor = true
  restrict_oom_score_adj = true
  [${cri}.registry]
    config_path = "${path}/certs"
  [${cri}.cni]
    bin_dir = "${path}/cni"
    conf_dir = "${path}/cni"
`,
  )
}

/** The configurations of the handbook, with the names of a test. */
function shownConfigurations({ path, mode, recover, metricsPort }: Wanted): Shown {
  const page = readFileSync(join(root, 'docs/running-containers.md'), 'utf8')
  const section = page.slice(page.indexOf("## With upstream's snapshotter"))
  const blocks = [...section.matchAll(/^```(?:toml|json)\n(.*?)^```$/gms)].map(([, text = '']) =>
    text
      .replaceAll('/var/lib/containerd/io.containerd.snapshotter.v1.nydus', `${path}/nydus`)
      .replaceAll('/run/containerd-nydus/containerd-nydus-grpc.sock', `${path}/s.sock`)
      .replaceAll('/run/containerd-nydus/system.sock', `${path}/system.sock`)
      .replaceAll('/opt/nydus-node/bin/nydusd', `${path}/nydusd`)
      .replaceAll('/etc/nydus/nydusd-config.json', `${path}/nydusd.json`)
      .replaceAll('127.0.0.1:9110', `127.0.0.1:${metricsPort}`)
      .replaceAll('daemon_mode = "shared"', `daemon_mode = "${mode}"`)
      .replaceAll('recover_policy = "failover"', `recover_policy = "${recover}"`),
  )
  assert.equal(blocks.length, 3)
  const [snapshotter = '', nydusd = '', containerd = ''] = blocks
  return { snapshotter, nydusd, containerd }
}
