import type { Command } from 'commander'
import { addCompletion } from '../completion.ts'
import { toolVersion } from '../nydus-image/version.ts'
import { ExitError } from '../output.ts'
import { checkCommand } from './check.ts'
import { type CommandContext, createCommand, helpOf, onOff, value } from './command.ts'
import { convertCommand } from './convert.ts'
import { laterCommands } from './later-commands.ts'
import { Log } from './log.ts'
import { mountCommand } from './mount.ts'

/** The original's exit code for a command that it does not know. */
const UNKNOWN_COMMAND = 3

const EXAMPLES = `
Examples:
  nydusify convert --source localhost:5000/app:1 --target localhost:5000/app:1-nydus
  nydusify check --source localhost:5000/app:1 --target localhost:5000/app:1-nydus
  nydusify mount --target localhost:5000/app:1-nydus --mount-path ./image-fs

"nydusify COMMAND --help" tells more. Global flags come before the command.`

/** The whole command line. */
export function createProgram(signal: AbortSignal): Command {
  const root = createCommand('nydusify', 'Nydus utility tool to convert, verify and mount container images')
  root
    .enablePositionalOptions()
    .version(versionText(), '-v, --version', 'print the version')
    .addHelpText('after', EXAMPLES)
  root
    .addOption(onOff('-D, --debug', "Enable debug log level, overwrites the 'log-level' option", 'DEBUG_LOG_LEVEL'))
    .addOption(
      value('-l, --log-level <level>', 'Set log level (panic, fatal, error, warn, info, debug, trace)', {
        env: 'LOG_LEVEL',
        fallback: 'info',
      }),
    )
    .addOption(value('--log-file <file>', 'Write logs to a file', { env: 'LOG_FILE' }))
  const context: CommandContext = {
    signal,
    openLog: () => Log.open(root.opts<{ debug?: boolean; logLevel: string; logFile?: string }>()),
  }
  for (const command of [convertCommand(context), checkCommand(context), mountCommand(context), ...laterCommands()])
    root.addCommand(command.passThroughOptions())
  addCompletion(root)
  return root.action(() => {
    const [name] = root.args
    if (name !== undefined && name !== 'help' && name !== 'h')
      throw new ExitError(UNKNOWN_COMMAND, `No help topic for '${name}'`)
    const topic = root.commands.find(
      (command) => command.name() === root.args[1] || command.aliases().includes(root.args[1] ?? ''),
    )
    if (topic === undefined && root.args[1] !== undefined)
      throw new ExitError(UNKNOWN_COMMAND, `No help topic for '${root.args[1]}'`)
    process.stdout.write(helpOf(topic ?? root))
  })
}

/** Long names of all flags without a value. */
export function switchesOf(root: Command): ReadonlySet<string> {
  const options = [root, ...root.commands].flatMap((command) => command.options)
  return new Set(
    options.filter((option) => option.isBoolean()).flatMap(({ long }) => (long == null ? [] : [long.slice(2)])),
  )
}

function versionText(): string {
  return `Nydusify version \nVersion\t: ${toolVersion()}\nRevision\t: unknown\nNode version\t: ${process.version}\nBuild time\t: unknown`
}
