import { type Command, InvalidArgumentError, Option } from 'commander'
import { FAILOVER_POLICIES, type FailoverPolicy, type LogLevel, type RunOptions } from '../../daemon/index.ts'
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
    option('--thread-num <fuse-threads>', '').argParser(parseThreads).hideHelp(),
    option('--threads <fuse-threads>', '').argParser(parseThreads).hideHelp(),
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
    option('--writable', 'Mount read-write: for shared directories, and images with an overlay in their configuration'),
    option('-s, --shared-dir <shared-dir>', 'Show a directory of the host in the place of an image'),
    option(
      '--dedup-db <dedup-db>',
      'Database of where chunks lie in the caches of this node: what one cache has is not fetched for another',
    ),
  ])
    command.addOption(added)
}

export function parseThreads(text: string): number {
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError(`invalid thread number configuration: ${text}`)
  const count = Number(text)
  if (count < 1 || count > MAX_THREADS)
    throw new InvalidArgumentError(`invalid thread number ${text}, valid range: [1-${MAX_THREADS}]`)
  return count
}

/** Checks what must or must not be given together. Throws ExitError 2 for a command line that makes no sense, 1 for what this version does not do. */
export function runOptions(flags: Flags & { readonly threadNum?: number; readonly threads?: number }): RunOptions {
  checkTogether(flags)
  if (flags.mountpoint === undefined) throw lacking('--mountpoint')
  return {
    mountPoint: flags.mountpoint,
    apiSocket: flags.apisock,
    id: flags.id,
    supervisor: flags.supervisor,
    upgrade: flags.upgrade === true,
    failover: flags.failoverPolicy ?? 'resend',
    threads: Math.min(flags.fuseThreads ?? flags.threadNum ?? flags.threads ?? DEFAULT_THREADS, MOST_THREADS),
    dedupDb: flags.dedupDb,
    fileLimit: wholeNumber(flags.rlimitNofile, '--rlimit-nofile', DEFAULT_FILE_LIMIT),
    log: {
      level: flags.logLevel ?? 'info',
      file: flags.logFile,
      rotationMib: wholeNumber(flags.logRotationSize, '--log-rotation-size', 0),
    },
    image: imageOf(flags),
    share:
      flags.sharedDir === undefined
        ? undefined
        : { directory: flags.sharedDir, virtualMountPoint: flags.virtualMountpoint ?? '/' },
    writable: flags.writable === true,
  }
}

function imageOf(flags: Flags): RunOptions['image'] {
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

function checkTogether(flags: Flags): void {
  const pairs: ReadonlyArray<readonly [keyof Flags, string, keyof Flags, string]> = [
    ['bootstrap', '--bootstrap <bootstrap>', 'sharedDir', '--shared-dir <shared-dir>'],
    ['config', '--config <config>', 'localfsDir', '--localfs-dir <localfs-dir>'],
  ]
  for (const [one, oneName, other, otherName] of pairs)
    if (flags[one] !== undefined && flags[other] !== undefined)
      throw usageError(`the argument '${oneName}' cannot be used with '${otherName}'`)
  if (flags.mountpoint === undefined) throw lacking('--mountpoint')
  if (flags.prefetchFiles !== undefined && flags.bootstrap === undefined) throw lacking('--bootstrap')
  if (flags.id !== undefined && flags.supervisor === undefined) throw lacking('--supervisor')
  if (flags.supervisor !== undefined && flags.id === undefined) throw lacking('--id')
}

export function wholeNumber(text: string | undefined, flag: string, fallback: number): number {
  if (text === undefined) return fallback
  if (!/^\d{1,15}$/.test(text))
    throw new ExitError(1, `invalid value for option \`${flag.slice(2)}\`: give a whole number`)
  return Number(text)
}

export function usageError(problem: string): ExitError {
  return new ExitError(
    2,
    `error: ${problem}\n\nUsage: nydusd [OPTIONS] --mountpoint <mountpoint>\n       nydusd <COMMAND>\n\nFor more information, try '--help'.`,
  )
}

export function lacking(flag: string): ExitError {
  return usageError(`the following required arguments were not provided:\n  ${flag} <${flag.slice(2)}>`)
}
