import { spawnSync } from 'node:child_process'
import { realpathSync, statSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { createInterface } from 'node:readline/promises'
import {
  applyPlan,
  hasReadConfiguration,
  planSetup,
  planUndo,
  RECORD,
  SERVICE,
  type SetupOptions,
  type SetupPlan,
  START_PROPERTIES,
  unifiedDiff,
} from '../../snapshotter/node-setup/index.ts'
import { ExitError, type Output } from '../output.ts'

export interface SetupFlags {
  readonly dryRun?: boolean
  readonly undo?: boolean
  readonly restart?: boolean
  readonly yes?: boolean
  readonly docker?: boolean
  readonly containerdConfig?: string
  readonly containerdVersion?: SetupOptions['containerd']
  readonly prefix?: string
}

const BIN = resolve(import.meta.dirname, import.meta.url.endsWith('.ts') ? '../../../bin' : '../bin')
const CONTAINERD_CONFIG = '/etc/containerd/config.toml'
const RUN_MS = 120_000
const ASK_MS = 20_000

/** Shows what is changed, asks on a terminal, changes it. Throws ExitError, and what planning throws. */
export async function setup(flags: SetupFlags, output: Output): Promise<void> {
  const prefix = resolve(flags.prefix ?? '/')
  if (flags.restart === true && prefix !== '/')
    throw new ExitError(2, '--restart needs the system that runs: leave --prefix out')
  const plan = flags.undo === true ? planUndo(prefix) : planSetup(optionsOf(flags, prefix))
  for (const note of plan.notes) output.note(`note: ${note}`)
  for (const { path, before, after } of plan.changes)
    if (path !== join(prefix, RECORD)) output.line(unifiedDiff(path, before, after).trimEnd())
  if (plan.changes.length === 0) output.line('nothing to do')
  if (flags.dryRun === true) return
  if (plan.changes.length > 0) {
    if (flags.yes !== true && !(await isWanted())) throw new ExitError(1, 'nothing was changed')
    write(plan)
    output.line(`${plan.changes.length} files ${flags.undo === true ? 'restored' : 'written'}`)
  }
  const config = join(prefix, flags.containerdConfig ?? CONTAINERD_CONFIG)
  const commands = commandsOf(flags.undo === true)
  if (flags.restart === true && isRead(config)) {
    commands.pop()
    output.note('containerd has read its configuration since that was changed: it is not restarted')
  }
  if (flags.restart === true) for (const command of commands) run(command, output)
  else if (plan.changes.length > 0)
    output.line(`Now, or with --restart:\n${commands.map((command) => `  ${command.join(' ')}`).join('\n')}`)
}

function optionsOf(flags: SetupFlags, prefix: string): SetupOptions {
  return {
    prefix,
    containerdConfig: flags.containerdConfig ?? CONTAINERD_CONFIG,
    containerd: flags.containerdVersion ?? installedVersion(),
    docker: flags.docker === true,
    program: prefix === '/' ? realpathOf(join(BIN, 'containerd-nydus-grpc')) : '/usr/bin/containerd-nydus-grpc',
  }
}

/** A checkout and a package both have it beside them. */
function realpathOf(path: string): string {
  try {
    return realpathSync(path)
  } catch {
    return path // not installed yet; systemd will say so
  }
}

function installedVersion(): SetupOptions['containerd'] {
  const { stdout } = spawnSync('containerd', ['--version'], { encoding: 'utf8', timeout: ASK_MS })
  const parts = /v?(\d+)\.(\d+)\.\d+/.exec(stdout ?? '')
  if (parts === null)
    throw new ExitError(1, 'cannot ask containerd for its version: install it, or give --containerd-version 1.7')
  return { major: Number(parts[1]), minor: Number(parts[2]) }
}

async function isWanted(): Promise<boolean> {
  if (!process.stdin.isTTY) return true
  const terminal = createInterface({ input: process.stdin, output: process.stderr })
  try {
    return /^y(es)?$/i.test((await terminal.question('Change these files? [y/N] ')).trim())
  } finally {
    terminal.close()
  }
}

function write(plan: SetupPlan): void {
  try {
    applyPlan(plan)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    const why = code === 'EACCES' || code === 'EPERM' || code === 'EROFS' ? '; run it as root: sudo nydus-setup' : ''
    throw new ExitError(1, `cannot write: ${(error as Error).message}${why}`, { cause: error })
  }
}

/** By the containerd that runs. */
function isRead(config: string): boolean {
  const changed = statSync(config, { throwIfNoEntry: false })
  const shown = spawnSync('systemctl', ['show', 'containerd', `--property=${START_PROPERTIES}`], {
    encoding: 'utf8',
    timeout: ASK_MS,
  })
  if (changed === undefined || shown.status !== 0) return false
  const clocks = { wallMs: Date.now(), monotonicMs: Number(process.hrtime.bigint() / 1_000_000n) }
  return hasReadConfiguration(shown.stdout, changed.mtimeMs, clocks)
}

/** What follows the change of files; containerd comes last. */
function commandsOf(isUndo: boolean): string[][] {
  const containerd = ['systemctl', 'restart', 'containerd']
  if (isUndo) return [['systemctl', 'stop', SERVICE], ['systemctl', 'daemon-reload'], containerd]
  return [
    ['systemctl', 'daemon-reload'],
    ['systemctl', 'enable', SERVICE],
    ['systemctl', 'restart', SERVICE],
    containerd,
  ]
}

function run([program = '', ...args]: readonly string[], output: Output): void {
  output.note([program, ...args].join(' '))
  const { status, error } = spawnSync(program, args, { stdio: ['ignore', 'inherit', 'inherit'], timeout: RUN_MS })
  if (status === 0) return
  const why = error === undefined ? `it ended with ${status}` : error.message
  throw new ExitError(
    1,
    `${program} ${args.join(' ')} failed: ${why}; the files are written, the rest is to be done by hand`,
  )
}
