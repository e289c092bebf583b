import { Command, CommanderError } from 'commander'
import { runDaemon, versionInfo } from '../../daemon/index.ts'
import { addCompletion } from '../completion.ts'
import { describeError, ExitError, exitCodeOf } from '../output.ts'
import { addFuseOptions, type Flags, runOptions, usageError } from './options.ts'
import { addServices, SERVICES } from './services.ts'

/** Services of the original that this version has not. */
const LATER: ReadonlyMap<string, string> = new Map([
  ['virtiofs', 'Serve a virtual machine by virtio-fs (not in this version)'],
  ['singleton', 'Host fscache services (not in this version)'],
])

const EXAMPLES = `
Examples:
  nydusd -M /mnt -B image.boot -D ./blobs                             an image whose blobs lie in a folder
  nydusd -M /mnt -B image.boot -C registry.json -A /run/nydusd.sock   blobs in a registry, and an API
  nydusd -M /mnt -A /run/nydusd.sock                                  empty; the API mounts images in it
  curl --unix-socket /run/nydusd.sock http://d/api/v1/daemon          what is mounted, and the state

End it with Ctrl-C, SIGTERM or "umount /mnt". docs/nydusd.md and docs/configuration.md tell the rest.`

function program(command: string | undefined): Command {
  const root = new Command('nydusd')
    .description('Mounts Nydus images by FUSE; what is read is fetched when it is read, verified and kept.')
    .helpOption('-h, --help', 'Print help')
    .helpCommand(false)
    .exitOverride()
    .configureOutput({ writeErr: () => undefined, outputError: () => undefined })
    .version(versionText(), '-V, --version', 'Print version')
    .addHelpText('after', EXAMPLES)
  // The root's options would be taken before a service's own.
  if (!SERVICES.has(command ?? '')) addFuseOptions(root)
  const run = async (): Promise<void> => {
    await runDaemon(runOptions(root.opts<Flags>()))
  }
  root.action(run)
  const fuse = root.command('fuse').description('Serve by FUSE; the same as without a command').action(run)
  addFuseOptions(fuse)
  for (const [name, text] of LATER)
    root
      .command(name)
      .description(text)
      .action(() => refuse(name))
  addServices(root)
  addCompletion(root)
  return root
}

function refuse(service: string): never {
  throw new ExitError(
    1,
    `this version of nydusd has no service "${service}"; it mounts by FUSE: nydusd --mountpoint DIRECTORY`,
  )
}

/** Byte for byte in upstream's layout, which its clients take apart. */
function versionText(): string {
  const { package_ver: version, git_commit: commit, build_time: time, profile, rustc: runtime } = versionInfo()
  return `nydusd \rVersion: \t${version}\nGit Commit: \t${commit}\nBuild Time: \t${time}\nProfile: \t${profile}\nRustc: \t\t${runtime}\n`
}

/** The library's complaints in upstream's words; exit code 2. */
function translate(error: CommanderError): ExitError {
  const quoted = /'([^']*)'/.exec(error.message)?.[1] ?? ''
  switch (error.code) {
    case 'commander.unknownOption':
      return usageError(`unexpected argument '${quoted.split('=')[0]}' found`)
    case 'commander.unknownCommand':
    case 'commander.excessArguments':
      return usageError(`unrecognized subcommand '${quoted}'`)
    case 'commander.optionMissingArgument':
      return usageError(`a value is required for '${quoted.replace(/^-\w, /, '')}' but none was supplied`)
    case 'commander.invalidArgument': {
      const [, flags = '', value = '', why = ''] =
        /option '([^']*)' argument '([^']*)' is invalid\. (.*)/s.exec(error.message) ?? []
      const place = flags.replace(/^-\w, /, '').replace(/--(?:thread-num|threads) /, '--fuse-threads ')
      const allowed = /^Allowed choices are (.*)\.$/.exec(why)
      return usageError(
        `invalid value '${value}' for '${place}'${allowed === null ? `: ${why}` : `\n  [possible values: ${allowed[1]}]`}`,
      )
    }
    default:
      return usageError(error.message.replace(/^error: /, ''))
  }
}

/** Runs the command line; errors are printed and become the exit code. */
export async function main(argv: readonly string[]): Promise<void> {
  try {
    if (LATER.has(argv[0] ?? '')) refuse(argv[0] ?? '')
    const word = argv.find((argument) => !argument.startsWith('-'))
    if (word === argv[0] && word !== undefined && word !== 'fuse' && word !== 'completion' && !SERVICES.has(word))
      throw usageError(`unrecognized subcommand '${word}'`)
    await program(argv[0]).parseAsync([...argv], { from: 'user' })
  } catch (error) {
    if (error instanceof CommanderError && error.exitCode === 0) return
    const told = error instanceof CommanderError ? translate(error) : error
    process.exitCode = exitCodeOf(told)
    process.stderr.write(process.exitCode === 2 && told instanceof Error ? `${told.message}\n` : describeError(told))
  }
}
