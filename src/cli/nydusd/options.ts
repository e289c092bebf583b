import { type Command, InvalidArgumentError, Option } from 'commander'
import { FAILOVER_POLICIES, type FailoverPolicy, type LogLevel, type RunOptions } from '../../daemon/index.ts'
import { type Rules, setRules } from '../command-rules.ts'
import { logFilter } from '../log-filter.ts'
import { ExitError } from '../output.ts'

/** The flags as the library gives them. */
export interface Flags {
  readonly apisock?: string
  readonly config?: string
  readonly id?: string
  readonly supervisor?: string
  readonly upgrade?: boolean
  readonly logLevel?: LogLevel
  readonly logFile?: string
  readonly logRotationSize?: string
  readonly rlimitNofile?: string
  readonly mountpoint?: string
  readonly failoverPolicy?: FailoverPolicy
  readonly keeper?: boolean
  readonly fuseThreads?: number
  readonly writable?: boolean
  readonly bootstrap?: string
  readonly localfsDir?: string
  readonly sharedDir?: string
  readonly prefetchFiles?: string
  readonly virtualMountpoint?: string
  readonly dedupDb?: string
}

export const LEVELS = ['trace', 'debug', 'info', 'warn', 'error'] as const
const DEFAULT_THREADS = 4
const MAX_THREADS = 1024
export const DEFAULT_FILE_LIMIT = 1_000_000
/** A thread that reads from a cold disk waits for it: four keep a disk busy also where there are fewer cores, and more cost memory for little. */
const MOST_THREADS = 4

const USAGE = 'Usage: nydusd [OPTIONS] --mountpoint <mountpoint>\n       nydusd <COMMAND>'

/** A daemon's name and its supervisor belong together. */
export const SUPERVISED = [
  ['--id', ['--supervisor']],
  ['--supervisor', ['--id']],
] as const

export function lackingOfSupervised(has: (name: string) => boolean): string[] {
  return SUPERVISED.flatMap(([name, needed]) => (has(name) ? needed.filter((other) => !has(other)) : []))
}

/** Adds the options of a FUSE daemon to a command. */
export function addFuseOptions(command: Command): void {
  const option = (flags: string, text: string): Option => new Option(flags, text)
  for (const added of [
    option('-A, --apisock <apisock>', 'Unix socket for the administration API'),
    option('-M, --mountpoint <mountpoint>', 'Existing directory to mount on'),
    option('-C, --config <config>', 'Configuration file: JSON (version 1 or 2) or TOML (version 2)'),
    option('-B, --bootstrap <bootstrap>', 'RAFS metadata file of the image; without it the API mounts images'),
    option('-D, --localfs-dir <localfs-dir>', 'Directory of blobs, and of the cache, in the place of --config'),
    option('-m, --virtual-mountpoint <virtual-mountpoint>', 'Where in the session the image is mounted [default: /]'),
    option('--prefetch-files <prefetch-files>', 'File of paths to fetch ahead, a line each; - reads standard input'),
    option(
      '--fuse-threads <fuse-threads>',
      `Threads that serve requests, at most [default: ${DEFAULT_THREADS}]`,
    ).argParser(parseThreads),
    option('-l, --log-level <log-level>', 'Log level [default: info]').choices(LEVELS),
    option(
      '-L, --log-file <log-file>',
      'Append log lines to this file (".log" is added to a name without extension) instead of stderr',
    ),
    option(
      '--log-rotation-size <log-rotation-size>',
      'Put the log file aside when it has so many MiB; 0 = never [default: 0]',
    ),
    option(
      '--rlimit-nofile <rlimit-nofile>',
      `Limit of open files; 0 leaves it unchanged [default: ${DEFAULT_FILE_LIMIT}]`,
    ),
    option('--id <id>', 'Name of this daemon, shown by the API; with --supervisor'),
    option('--supervisor <supervisor>', 'Socket of a supervisor that keeps the session, for another daemon; with --id'),
    option(
      '--failover-policy <failover-policy>',
      'Requests that a dead daemon left unanswered: hand them out again, fail them, or leave them [default: resend]',
    ).choices(FAILOVER_POLICIES),
    option('--upgrade', 'Mount nothing, and wait for a takeover of what another daemon serves; with --apisock'),
    option(
      '--no-keeper',
      'Start no process that brings this daemon back when it dies; with --supervisor there is none',
    ),
    option('--writable', 'Mount read-write: for shared directories, and images with an overlay in their configuration'),
    option('-s, --shared-dir <shared-dir>', 'Show a directory of the host in the place of an image'),
    option(
      '--dedup-db <dedup-db>',
      'Database of where chunks lie in the caches of this node: what one cache has is not fetched for another',
    ),
  ])
    command.addOption(added)
  setRules(
    command,
    command.parent === null ? { ...FUSE_RULES, optionsExcludeCommands: true, usage: USAGE } : FUSE_RULES,
  )
}

export function parseThreads(text: string): number {
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError(`invalid thread number configuration: ${text}`)
  const count = Number(text)
  if (count < 1 || count > MAX_THREADS)
    throw new InvalidArgumentError(`invalid thread number ${text}, valid range: [1-${MAX_THREADS}]`)
  return count
}

/** Throws ExitError 1 for what cannot be: what must or must not stand together has been checked by `FUSE_RULES`. */
export function runOptions(flags: Flags): RunOptions {
  if (flags.mountpoint === undefined) throw new ExitError(2, 'no --mountpoint') // not without one: FUSE_RULES
  return {
    mountPoint: flags.mountpoint,
    apiSocket: flags.apisock,
    id: flags.id,
    supervisor: flags.supervisor,
    upgrade: flags.upgrade === true,
    failover: flags.failoverPolicy ?? 'resend',
    keeper: flags.keeper ?? true,
    threads: Math.min(flags.fuseThreads ?? DEFAULT_THREADS, MOST_THREADS),
    dedupDb: flags.dedupDb,
    fileLimit: wholeNumber(flags.rlimitNofile, '--rlimit-nofile', DEFAULT_FILE_LIMIT),
    log: {
      level: flags.logLevel ?? 'info',
      file: flags.logFile,
      rotationMib: wholeNumber(flags.logRotationSize, '--log-rotation-size', 0),
      filter: logFilter('nydusd'),
    },
    image: imageOf(flags),
    share:
      flags.sharedDir === undefined
        ? undefined
        : { directory: flags.sharedDir, virtualMountPoint: flags.virtualMountpoint ?? '/' },
    writable: flags.writable === true,
  }
}

export function imageOf(flags: Flags): RunOptions['image'] {
  if (flags.bootstrap === undefined) return undefined
  const config =
    flags.config === undefined
      ? flags.localfsDir === undefined
        ? undefined
        : { localfsDir: flags.localfsDir }
      : { file: flags.config }
  if (config === undefined)
    throw new ExitError(
      1,
      'both --config and --localfs-dir are missing: --bootstrap needs one of them, which says where the blobs are',
    )
  return {
    bootstrap: flags.bootstrap,
    virtualMountPoint: flags.virtualMountpoint ?? '/',
    config,
    prefetchFiles: flags.prefetchFiles,
  }
}

/** What a FUSE daemon's options must obey together. */
const FUSE_RULES: Rules = {
  always: ['--mountpoint'],
  conflicts: [
    ['--bootstrap', '--shared-dir'],
    ['--config', '--localfs-dir'],
  ],
  needs: new Map<string, readonly string[]>([['--prefetch-files', ['--bootstrap']], ...SUPERVISED]),
  lacking: (has) => [
    ...(has('--mountpoint') ? [] : ['--mountpoint']),
    ...(has('--prefetch-files') && !has('--bootstrap') ? ['--bootstrap'] : []),
    ...lackingOfSupervised(has),
  ],
}

export function wholeNumber(text: string | undefined, flag: string, fallback: number): number {
  if (text === undefined) return fallback
  if (!/^\d{1,15}$/.test(text))
    throw new ExitError(1, `invalid value for option \`${flag.slice(2)}\`: give a whole number`)
  return Number(text)
}
