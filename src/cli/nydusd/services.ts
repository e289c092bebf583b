import { type Command, Option } from 'commander'
import type * as Services from '../../daemon/services/index.ts'
import { logFilter } from '../log-filter.ts'
import { ExitError } from '../output.ts'
import { type Rules, setRules } from '../command-rules.ts'
import {
  DEFAULT_FILE_LIMIT,
  type Flags,
  imageOf,
  lackingOfSupervised,
  LEVELS,
  parseThreads,
  SUPERVISED,
  wholeNumber,
} from './options.ts'

interface ServiceFlags extends Flags {
  /** There for the services that ask for it. */
  readonly sock: string
  readonly threads?: number
  readonly fscache?: string
  readonly fscacheTag?: string
}

/** What the options of `virtiofs` must obey together. */
const VIRTIOFS_RULES: Rules = {
  always: ['--sock'],
  conflicts: [['--config', '--localfs-dir']],
  needs: new Map<string, readonly string[]>([['--prefetch-files', ['--bootstrap']], ...SUPERVISED]),
  lacking: (has) => [
    ...(has('--sock') ? [] : ['--sock']),
    ...(has('--prefetch-files') && !has('--bootstrap') ? ['--bootstrap'] : []),
    ...lackingOfSupervised(has),
  ],
}

/** And of `uffd`. */
const UFFD_RULES: Rules = {
  always: ['--sock'],
  conflicts: [['--config', '--localfs-dir']],
  needs: new Map<string, readonly string[]>([['--localfs-dir', ['--bootstrap']], ...SUPERVISED]),
  lacking: (has) => [
    ...(has('--sock') ? [] : ['--sock']),
    ...(has('--localfs-dir') && !has('--bootstrap') ? ['--bootstrap'] : []),
    ...lackingOfSupervised(has),
  ],
}

const NBD_PAIR = [
  ['--bootstrap', ['--localfs-dir']],
  ['--localfs-dir', ['--bootstrap']],
] as const

/** And of `nbd`. */
const NBD_RULES: Rules = {
  conflicts: [
    ['--bootstrap', '--config'],
    ['--localfs-dir', '--config'],
  ],
  needs: new Map<string, readonly string[]>([...NBD_PAIR, ...SUPERVISED]),
  lacking: (has) => [
    ...NBD_PAIR.flatMap(([name, needed]) => (has(name) ? needed.filter((other) => !has(other)) : [])),
    ...lackingOfSupervised(has),
  ],
}

/** And of `singleton`. */
const SINGLETON_RULES: Rules = {
  conflicts: [],
  needs: new Map<string, readonly string[]>([['--fscache-tag', ['--fscache']], ...SUPERVISED]),
  lacking: (has) => [...(has('--fscache-tag') && !has('--fscache') ? ['--fscache'] : []), ...lackingOfSupervised(has)],
}

/** Adds the services that mount nothing. */
export function addServices(root: Command): void {
  addVirtioFs(root.command('virtiofs'))
  addUffd(root.command('uffd'))
  addNbd(root.command('nbd'))
  addSingleton(root.command('singleton'))
}

function addVirtioFs(command: Command): void {
  setRules(command, VIRTIOFS_RULES)
  addOptions(
    command
      .description('Serve images as a file system of a virtual machine (virtio-fs, by vhost-user)')
      .action(async (flags: ServiceFlags) => await (await services()).runVirtioFs(virtioFsOptions(flags))),
    [
      new Option('--sock <sock>', 'Unix socket for the virtual machine monitor (vhost-user)'),
      new Option('-B, --bootstrap <bootstrap>', 'RAFS metadata file of the image; without it the API mounts images'),
      new Option('-C, --config <config>', 'Configuration file: JSON (version 1 or 2) or TOML (version 2)'),
      new Option('-D, --localfs-dir <localfs-dir>', 'Directory of blobs, and of the cache, in the place of --config'),
      new Option('-m, --virtual-mountpoint <virtual-mountpoint>', 'Where the image is mounted [default: /]'),
      new Option(
        '--prefetch-files <prefetch-files>',
        'File of paths to fetch ahead, a line each; - reads standard input',
      ),
      new Option('--hybrid-mode', 'Taken, without effect: there are images only'),
      new Option('-s, --shared-dir <shared-dir>', 'Refused: directories are shared by FUSE only'),
    ],
  )
}

function addUffd(command: Command): void {
  setRules(command, UFFD_RULES)
  addOptions(
    command
      .description('Serve an image as a disk in the memory of virtual machines, by their page faults (userfaultfd)')
      .action(async (flags: ServiceFlags) => await (await services()).runUffd(uffdOptions(flags))),
    [
      new Option('-S, --sock <sock>', 'Unix socket for virtual machine monitors'),
      new Option('-B, --bootstrap <bootstrap>', 'RAFS v6 metadata file of the image'),
      new Option('-C, --config <config>', 'Configuration file of version 2: where the blobs are, and the cache'),
      new Option('-D, --localfs-dir <localfs-dir>', 'Directory of blobs, and of the cache, in the place of --config'),
      threads('Taken, without effect: one thread serves [default: 4]'),
    ],
  )
}

function addNbd(command: Command): void {
  setRules(command, NBD_RULES)
  addOptions(
    command
      .description('Serve an image as a network block device of the kernel')
      .argument('<DEVICE>', 'NBD device node, like /dev/nbd0')
      .action(async (device: string, flags: ServiceFlags) => {
        await (await services()).runNbd(nbdOptions(device, flags))
      }),
    [
      new Option('-B, --bootstrap <bootstrap>', 'RAFS v6 metadata file of the image; with --localfs-dir'),
      new Option('-D, --localfs-dir <localfs-dir>', 'Directory of blobs, and of the cache; with --bootstrap'),
      new Option('-C, --config <config>', 'In their place: a blob cache entry, JSON or TOML'),
      threads('Connections to the driver [default: 4]'),
    ],
  )
}

function addSingleton(command: Command): void {
  setRules(command, SINGLETON_RULES)
  addOptions(
    command
      .description('Keep a registry of images and their blobs, for drivers of the kernel')
      .action(async (flags: ServiceFlags) => await (await services()).runSingleton(singletonOptions(flags))),
    [
      new Option('-C, --config <config>', 'JSON file with "blobs", an array of blob cache entries'),
      new Option('-F, --fscache <fscache-dir>', 'Fill the cache of files (cachefiles) that the kernel keeps there'),
      new Option('--fscache-tag <fscache-tag>', 'Name of that cache; goes with --fscache'),
      new Option('--fscache-threads <fscache-threads>', 'Taken, without effect').argParser(parseThreads),
    ],
  )
}

/** Loaded when it is asked for: a FUSE mount starts without it. */
async function services(): Promise<typeof Services> {
  const isSource = import.meta.url.endsWith('.ts')
  const url = new URL(isSource ? '../../daemon/services/index.ts' : './nydusd-services.cjs', import.meta.url)
  return (await import(url.href)) as typeof Services
}

function threads(text: string): Option {
  return new Option('--threads <threads>', text).argParser(parseThreads)
}

const DEFAULT_CONNECTIONS = 4

/** What every service has. */
const COMMON = [
  new Option('-A, --apisock <apisock>', 'Unix socket for the administration API'),
  new Option('-l, --log-level <log-level>', 'Log level [default: info]').choices(LEVELS),
  new Option('-L, --log-file <log-file>', 'Append log lines to this file instead of stderr'),
  new Option(
    '--log-rotation-size <log-rotation-size>',
    'Put the log file aside at so many MiB; 0 = never [default: 0]',
  ),
  new Option('--rlimit-nofile <rlimit-nofile>', `Limit of open files; 0 leaves it [default: ${DEFAULT_FILE_LIMIT}]`),
  new Option('--id <id>', 'Name of this daemon, shown by the API; with --supervisor'),
  new Option('--supervisor <supervisor>', 'Socket of the supervisor, shown by the API; with --id'),
  new Option('--upgrade', 'Refused: this service has no state that could be taken over'),
]

function addOptions(command: Command, own: readonly Option[]): void {
  for (const option of [...own, ...COMMON]) command.addOption(option)
}

/** Throws ExitError 2 for what makes no sense, 1 for what a service does not do. */
function commonOptions(flags: ServiceFlags): Services.ServiceOptions {
  if (flags.upgrade === true)
    throw new ExitError(1, 'this service has no state that could be taken over; start it without --upgrade')
  return {
    apiSocket: flags.apisock,
    id: flags.id,
    supervisor: flags.supervisor,
    fileLimit: wholeNumber(flags.rlimitNofile, '--rlimit-nofile', DEFAULT_FILE_LIMIT),
    log: {
      level: flags.logLevel ?? 'info',
      file: flags.logFile,
      rotationMib: wholeNumber(flags.logRotationSize, '--log-rotation-size', 0),
      filter: logFilter('nydusd'),
    },
  }
}

function singletonOptions(flags: ServiceFlags): Services.SingletonRunOptions {
  const { fscache: directory, fscacheTag: tag } = flags
  return {
    ...commonOptions(flags),
    config: flags.config,
    fscache: directory === undefined ? undefined : { directory, tag },
  }
}

function virtioFsOptions(flags: ServiceFlags): Services.VirtioFsRunOptions {
  if (flags.sharedDir !== undefined)
    throw new ExitError(
      1,
      'nydusd does not share directories by virtio-fs; it does by FUSE: nydusd --mountpoint DIRECTORY --shared-dir DIRECTORY',
    )
  return { ...commonOptions(flags), socketPath: flags.sock, image: imageOf(flags) }
}

function uffdOptions(flags: ServiceFlags): Services.UffdRunOptions {
  const common = commonOptions(flags)
  const { bootstrap, config, localfsDir } = flags
  if (bootstrap === undefined)
    throw new ExitError(1, '--bootstrap is missing: give the image, and its blobs with --config or --localfs-dir')
  if (config === undefined && localfsDir === undefined)
    throw new ExitError(1, 'both --config and --localfs-dir are missing: one of them says where the blobs are')
  const from = config === undefined ? { localfsDir: localfsDir ?? '' } : { file: config }
  return { ...common, socketPath: flags.sock, bootstrap, config: from }
}

function nbdOptions(device: string, flags: ServiceFlags): Services.NbdRunOptions {
  const common = commonOptions(flags)
  const { bootstrap, config, localfsDir, threads: count } = flags
  const of = { ...common, device, threads: count ?? DEFAULT_CONNECTIONS }
  if (config !== undefined) return { ...of, from: { file: config } }
  if (bootstrap === undefined || localfsDir === undefined)
    throw new ExitError(1, 'both --config and --bootstrap are missing: one of them names the image')
  return { ...of, from: { bootstrap, localfsDir } }
}
