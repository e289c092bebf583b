import { Command, CommanderError } from 'commander'
import { runDaemon, versionInfo } from '../../daemon/index.ts'
import { readCommandLine, UsageError } from '../command-line.ts'
import { addCompletion } from '../completion.ts'
import { describeError, exitCodeOf } from '../output.ts'
import { addFuseOptions, type Flags, runOptions } from './options.ts'
import { addServices } from './services.ts'

const EXAMPLES = `
Examples:
  nydusd -M /mnt -B image.boot -D ./blobs                             an image whose blobs lie in a folder
  nydusd -M /mnt -B image.boot -C registry.json -A /run/nydusd.sock   blobs in a registry, and an API
  nydusd -M /mnt -A /run/nydusd.sock                                  empty; the API mounts images in it
  curl --unix-socket /run/nydusd.sock http://d/api/v1/daemon          what is mounted, and the state

End it with Ctrl-C, SIGTERM or "umount /mnt". docs/nydusd.md and docs/configuration.md tell the rest.`

function program(): Command {
  const root = new Command('nydusd')
    .description('Mounts Nydus images by FUSE; what is read is fetched when it is read, verified and kept.')
    .helpOption('-h, --help', 'Print help')
    .helpCommand(false)
    .exitOverride()
    .configureOutput({ writeErr: () => undefined, outputError: () => undefined })
    .version(versionText(), '-V, --version', 'Print version')
    .addHelpText('after', EXAMPLES)
  root.enablePositionalOptions()
  addFuseOptions(root)
  const run = async (flags: Flags): Promise<void> => {
    await runDaemon(runOptions(flags))
  }
  root.action(run)
  const fuse = root.command('fuse').description('Serve by FUSE; the same as without a command').action(run)
  addFuseOptions(fuse)
  addServices(root)
  addCompletion(root)
  return root
}

/** Byte for byte in upstream's layout, which its clients take apart. */
function versionText(): string {
  const { package_ver: version, git_commit: commit, build_time: time, profile, rustc: runtime } = versionInfo()
  return `nydusd \rVersion: \t${version}\nGit Commit: \t${commit}\nBuild Time: \t${time}\nProfile: \t${profile}\nRustc: \t\t${runtime}\n`
}

/** Runs the command line; errors are printed and become the exit code. */
export async function main(argv: readonly string[]): Promise<void> {
  try {
    const root = program()
    await root.parseAsync(readCommandLine(root, argv), { from: 'user' })
  } catch (error) {
    if (error instanceof CommanderError && error.exitCode === 0) return
    process.exitCode = exitCodeOf(error)
    process.stderr.write(error instanceof UsageError ? error.message : describeError(error))
  }
}
