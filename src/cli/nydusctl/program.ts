import { Argument, Command } from 'commander'
import { versionInfo } from '../../daemon/version/index.ts'
import { placeOf, requireOptions, setRules, valueOption } from '../command-rules.ts'
import { addCompletion } from '../completion.ts'
import { NydusdClient } from './client.ts'
import type { CommonFlags, MetricsFlags, MountFlags } from './commands.ts'
import type { TopFlags } from './top.ts'

const EXAMPLES = `
Examples:
  nydusctl -S /run/nydusd.sock info                    state, version, what is mounted
  nydusctl -S /run/nydusd.sock top                     mounts, bytes, hit rate, slow reads, as they change; q ends it
  nydusctl -S /run/nydusd.sock metrics backend -I 2    what the backend did in the last 2 s, again and again
  nydusctl -S /run/nydusd.sock set log-level debug

Exit codes: 0 done, 1 failed, 2 wrong command line, 130 interrupted.`

const SET_HELP = `
Configurable parameters:
         <KIND>  : <VALUE>
        log-level: trace, debug, info, warn, error`

/** What every command works with. */
interface Context {
  readonly client: NydusdClient
  readonly signal: AbortSignal
}

/** The tool's commands; what they do is loaded when one of them runs. */
export function createProgram(signal: AbortSignal): Command {
  const root = command('nydusctl', 'A client to query and configure the nydusd daemon')
  root.addOption(valueOption('-S, --sock <sock>', 'Sets file path for the nydusd API socket'))
  addCommon(root)
  root
    .usage('[OPTIONS] --sock <sock> [COMMAND]')
    .version(versionText(), '-V, --version', 'Print version')
    .addHelpText('after', EXAMPLES)
  setRules(root, { conflicts: [], always: ['--sock'], lacking: (has) => (has('--sock') ? [] : ['--sock']) })
  // parsed first, hence known when a command runs
  const context = (): Context => ({ client: new NydusdClient(root.opts<{ sock: string }>().sock, signal), signal })
  for (const add of [addInfo, addSet, addMetrics, addMount, addUmount, addTop]) add(root, context)
  addCompletion(root)
  root.enablePositionalOptions()
  root.action(() => undefined) // the original asks nothing either
  return root
}

type Adder = (root: Command, context: () => Context) => void

const addInfo: Adder = (root, context) => {
  const info = command('info', 'Gets information about the nydusd daemon')
  info.action(async (flags: CommonFlags) => (await import('./commands.ts')).showInfo(context().client, flags))
  addCommon(info)
  root.addCommand(info)
}

const addSet: Adder = (root, context) => {
  const set = command('set', 'Configures parameters for the nydusd daemon').addHelpText('after', SET_HELP)
  set.addArgument(new Argument('<KIND>', 'the parameter to configure').choices(['log-level']))
  set.addArgument(new Argument('<VALUE>', 'the configuration value'))
  set.action(async (kind: 'log-level', value: string, flags: CommonFlags) =>
    (await import('./commands.ts')).setParameter(context().client, kind, value, flags),
  )
  addCommon(set)
  root.addCommand(set)
}

const addMetrics: Adder = (root, context) => {
  const metrics = command('metrics', 'Gets runtime metrics about backend, cache and filesystems')
  metrics.addArgument(
    new Argument('<category>', 'the metrics category to fetch').choices(['backend', 'cache', 'fsstats']),
  )
  metrics.addOption(valueOption('-I, --interval <interval>', 'Seconds after which backend metrics are shown again'))
  metrics.action(async (category: 'backend' | 'cache' | 'fsstats', flags: MetricsFlags) =>
    (await import('./commands.ts')).showMetrics(context().client, category, flags, signalOf(context)),
  )
  addCommon(metrics)
  root.addCommand(metrics)
}

const addMount: Adder = (root, context) => {
  const mount = command('mount', 'Mounts a new filesystem instance')
  mount.addOption(valueOption('-s, --source <source>', 'Storage backend for the filesystem instance'))
  mount.addOption(valueOption('-c, --config <config>', 'Configuration file for the new filesystem instance'))
  mount.addOption(valueOption('-m, --mountpoint <mountpoint>', 'Mountpoint for the new filesystem instance'))
  mount.addOption(valueOption('-t, --type <type>', 'Type of the new filesystem instance', ['rafs', 'passthrough_fs']))
  requireOptions(mount, '--source', '--config', '--mountpoint', '--type')
  mount.action(async (flags: MountFlags) => (await import('./commands.ts')).mount(context().client, flags))
  addCommon(mount)
  root.addCommand(mount)
}

const addUmount: Adder = (root, context) => {
  const umount = command('umount', 'Umounts a filesystem instance')
  umount.addOption(valueOption('-m <mountpoint>', 'Mountpoint of the filesystem instance'))
  requireOptions(umount, '-m')
  umount.action(async (flags: CommonFlags & { readonly m: string }) =>
    (await import('./commands.ts')).umount(context().client, flags.m, flags),
  )
  addCommon(umount)
  root.addCommand(umount)
}

const addTop: Adder = (root, context) => {
  const top = command('top', 'Shows mounts, bytes, hit rate and slow reads as they change; q or Ctrl-C ends it')
  top.addOption(valueOption('-I, --interval <interval>', 'Seconds between two looks [default: 2]'))
  top.option('--once', 'Look once, print a table of totals, and end; so it is without a terminal')
  top.action(async (flags: TopFlags) => (await import('./top.ts')).top(context().client, flags, signalOf(context)))
  addCommon(top)
  root.addCommand(top)
}

function signalOf(context: () => Context): AbortSignal {
  return context().signal
}

/** A command whose help looks like the original's. Its command line is checked before the library sees it. */
function command(name: string, description: string): Command {
  const made = new Command(name).description(description).helpCommand(false).exitOverride()
  made.helpOption('-h, --help', 'Print help')
  made.configureHelp({
    helpWidth: 120,
    optionTerm: (option) =>
      option.short === undefined || option.long === undefined
        ? `${option.short === undefined ? '    ' : ''}${placeOf(option)}`
        : `${option.short}, ${placeOf(option)}`,
    optionDescription: ({ description: text, argChoices }) =>
      argChoices === undefined ? text : `${text} [possible values: ${argChoices.join(', ')}]`,
  })
  return made
}

/** Options that work before a command and behind it. */
function addCommon(to: Command): void {
  to.option('-r, --raw', 'Outputs messages in plain json mode')
  to.option('--json', 'One line of JSON on stdout, also for a command that fails')
}

/** Byte for byte in upstream's layout. */
function versionText(): string {
  const { package_ver: version, git_commit: commit, build_time: time, profile, rustc: runtime } = versionInfo()
  return `A client to query and configure the nydusd daemon\n \rVersion: \t${version}\nGit Commit: \t${commit}\nBuild Time: \t${time}\nProfile: \t${profile}\nRustc: \t\t${runtime}\n`
}
