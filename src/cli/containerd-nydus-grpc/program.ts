import { resolve } from 'node:path'
import { Command, Option } from 'commander'
import { versionInfo } from '../../daemon/version/index.ts'
import { DAEMON_MODES, type Flags, FS_DRIVERS, LOG_LEVELS } from '../../snapshotter/settings/index.ts'
import { type Rules, setRules, valueOption } from '../command-rules.ts'
import { addCompletion } from '../completion.ts'
import type { Output } from '../output.ts'
import type { DoctorFlags } from './doctor.ts'
import type { ExportFlags } from './export-state.ts'

/** The flags as the library gives them. */
interface ServeFlags {
  readonly root?: string
  readonly address?: string
  readonly config?: string
  readonly nydusImage?: string
  readonly nydusd?: string
  readonly nydusdConfig?: string
  readonly nydusOverlayfsPath?: string
  readonly daemonMode?: string
  readonly fsDriver?: string
  readonly logLevel?: string
  readonly logToStdout?: boolean
  readonly enableStargz?: boolean
  readonly recoverPolicy?: string
  readonly sharedDaemon?: boolean
  readonly enableNydusOverlayfs?: boolean
}

const EXAMPLES = `
Examples:
  containerd-nydus-grpc --config /etc/nydus/snapshotter.toml     serve containerd until SIGTERM
  containerd-nydus-grpc --log-to-stdout --log-level debug        with defaults; the log goes to stdout
  containerd-nydus-grpc doctor                                   what is wrong with this node, and how to repair it
  containerd-nydus-grpc export-state --root DIR                  upstream's program goes on from here

Flags override the configuration file. docs/containerd-nydus-grpc.md tells every key.`

const RULES: Rules = { conflicts: [['--daemon-mode', '--shared-daemon']], lacking: () => [] }

/** The tool's commands; what they do is loaded when one of them runs. */
export function createProgram(output: Output): Command {
  const root = new Command('containerd-nydus-grpc')
    .description('Snapshotter of containerd: Nydus images start lazily, all others as with overlayfs.')
    .usage('[OPTIONS] [COMMAND]')
    .helpOption('-h, --help', 'Print help')
    .helpCommand(false)
    .exitOverride()
    .configureOutput({ writeErr: () => undefined, outputError: () => undefined })
    .version(versionText(), '-V, --version', 'Print version and build information')
    .addHelpText('after', EXAMPLES)
    .enablePositionalOptions()
  for (const option of [...options(), ...oldOptions()]) root.addOption(option)
  setRules(root, RULES)
  root.action(async (flags: ServeFlags) => {
    const { serve } = await import('./serve.ts')
    for (const warning of oldFlags(flags)) output.note(`warning: ${warning}`)
    await serve({ config: flags.config, flags: settingsFlags(flags) })
  })
  addDoctor(root, output)
  addExportState(root, output)
  addCompletion(root)
  return root
}

function options(): Option[] {
  return [
    valueOption('--root <root>', 'Directory of snapshots, caches and state'),
    valueOption('--address <address>', 'Socket for containerd'),
    valueOption('--config <config>', 'Configuration file (TOML)'),
    valueOption('--nydus-image <nydus-image>', 'Path of nydus-image [default: searched for in $PATH]'),
    valueOption('--nydusd <nydusd>', 'Path of nydusd [default: searched for in $PATH]'),
    valueOption('--nydusd-config <nydusd-config>', 'Template of what nydusd is configured with; also --config-path'),
    valueOption('--nydus-overlayfs-path <nydus-overlayfs-path>', 'Path or name of the mount helper nydus-overlayfs'),
    valueOption('--daemon-mode <daemon-mode>', 'One nydusd for all images, one for each, or none', DAEMON_MODES),
    valueOption('--fs-driver <fs-driver>', 'How images are mounted', FS_DRIVERS),
    valueOption('--log-level <log-level>', 'Log level', LOG_LEVELS),
    new Option('--log-to-stdout', 'Log to stdout, not to a file'),
    new Option('--no-log-to-stdout').hideHelp(),
  ]
}

/** Flags of old versions, which scripts still have. */
function oldOptions(): Option[] {
  return [
    new Option('--enable-stargz').hideHelp(),
    new Option('--recover-policy <recover-policy>').hideHelp(),
    new Option('--shared-daemon').hideHelp(),
    new Option('--enable-nydus-overlayfs').hideHelp(),
  ]
}

function oldFlags(flags: ServeFlags): string[] {
  const old: ReadonlyArray<readonly [unknown, string, string]> = [
    [flags.enableStargz, '--enable-stargz', 'enable_stargz = true under [experimental]'],
    [flags.recoverPolicy, '--recover-policy', `recover_policy = "${flags.recoverPolicy ?? ''}" under [daemon]`],
    [flags.sharedDaemon, '--shared-daemon', 'daemon_mode = "shared", or give --daemon-mode shared'],
    [flags.enableNydusOverlayfs, '--enable-nydus-overlayfs', 'enable_nydus_overlayfs = true under [snapshot]'],
  ]
  return old
    .filter(([value]) => value !== undefined)
    .map(
      ([, name, instead]) => `${name} is a flag of old versions; it is taken. Write ${instead} into the configuration`,
    )
}

/** Paths of a command line are relative to where it was given. */
function settingsFlags(flags: ServeFlags): Flags {
  const { root, address, nydusdConfig, nydusImage, nydusd, nydusOverlayfsPath, fsDriver, logLevel, logToStdout } = flags
  const { recoverPolicy, enableStargz, enableNydusOverlayfs } = flags
  const daemonMode = flags.sharedDaemon === true ? 'shared' : flags.daemonMode
  const all = {
    root: root && resolve(root),
    address: address && resolve(address),
    nydusdConfig: nydusdConfig && resolve(nydusdConfig),
    nydusImage,
    nydusd,
    nydusOverlayfsPath,
    daemonMode,
    fsDriver,
    logLevel,
    logToStdout,
    recoverPolicy,
    enableStargz,
    enableNydusOverlayfs,
  }
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined))
}

function addDoctor(root: Command, output: Output): void {
  const doctor = root
    .command('doctor')
    .description('Look for what keeps images from starting on this node, and tell how to repair it')
    .helpOption('-h, --help', 'Print help')
    .addOption(
      valueOption(
        '--config <config>',
        'Configuration file of the snapshotter [default: /etc/nydus/snapshotter.toml if it is there]',
      ),
    )
    .addOption(
      valueOption(
        '--containerd-config <containerd-config>',
        'Configuration file of containerd [default: /etc/containerd/config.toml]',
      ),
    )
    .addOption(valueOption('--image <image>', 'Ask the registry of this image, with the credentials of this node'))
    .option('--json', 'Print all findings as JSON')
    .addHelpText('after', '\nExit codes: 0 nothing hinders, 1 something does, 2 wrong command line.')
    .action(async (flags: DoctorFlags) => {
      const { doctor: examine } = await import('./doctor.ts')
      await examine(flags, output)
    })
  setRules(doctor, { conflicts: [], lacking: () => [] })
}

function addExportState(root: Command, output: Output): void {
  const command = root
    .command('export-state')
    .description(
      "Write snapshots and daemons of a stopped snapshotter for upstream's program, which then goes on with them",
    )
    .helpOption('-h, --help', 'Print help')
    .addOption(valueOption('--config <config>', 'Configuration file of the snapshotter'))
    .addOption(valueOption('--root <root>', 'Directory of snapshots, caches and state'))
    .option('--json', 'Print what was written as JSON')
    .action(async (flags: ExportFlags) => {
      const { exportState } = await import('./export-state.ts')
      exportState(flags, output)
    })
  setRules(command, { conflicts: [], lacking: () => [] })
}

/** In upstream's four lines, which programs take apart. */
function versionText(): string {
  const { package_ver: version, git_commit: commit, build_time: time, rustc: runtime } = versionInfo()
  return `Version:     ${version}\nRevision:    ${commit}\nGo version:  ${runtime}\nBuild time:  ${time}`
}
