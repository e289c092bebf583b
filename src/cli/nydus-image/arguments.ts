import { Command } from 'commander'
import { placeOf, setRules, valueOption } from '../command-rules.ts'
import { PROGRESS_MODES } from '../output.ts'

/** Levels of the original's logs. */
export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error'] as const
export type LogLevel = (typeof LOG_LEVELS)[number]

/** Options that every command has. */
export interface CommonFlags {
  readonly logFile?: string
  readonly logLevel?: LogLevel
}

/** A command whose help looks like the original's. Its command line is checked before the library sees it (`command-line.ts`). */
export function createCommand(name: string, description: string): Command {
  const command = new Command(name).description(description).helpCommand(false).exitOverride()
  command.helpOption('-h, --help', 'Print help')
  command.configureHelp({
    helpWidth: 110,
    optionTerm: (option) => (option.short === undefined ? '    ' : `${option.short}, `) + placeOf(option),
    optionDescription: ({ description: text, argChoices }) =>
      argChoices === undefined ? text : `${text} [possible values: ${argChoices.join(', ')}]`,
  })
  command.addOption(valueOption('-L, --log-file <path>', 'Append log lines to this file instead of stderr'))
  command.addOption(valueOption('-l, --log-level <level>', 'Log level: [default: info]', LOG_LEVELS))
  return command
}

/** How work of more than two seconds shows itself. */
export function addProgressOption(command: Command): void {
  command.addOption(
    valueOption('--progress <mode>', 'Progress on stderr: [default: none]', PROGRESS_MODES).default('none'),
  )
}

/** Of these only one may be given; for `conflicts` of a command that has them. */
export const BACKEND_CONFLICT = ['--backend-config', '--backend-config-file'] as const

/** Where else than in a folder the blobs are. */
export function addBackendOptions(command: Command): void {
  for (const [flags, description] of [
    ['--backend-type <type>', 'Type of backend [possible values: registry, oss, s3, localdisk, http-proxy]'],
    ['--backend-config <json>', 'Config string of backend'],
    ['--backend-config-file <path>', 'Config file of backend'],
  ] as const) {
    command.addOption(valueOption(flags, description))
  }
}

/** The options of `check` and `inspect` that say which image, and where its data is. */
export function addImageOptions(command: Command): void {
  addImageOperand(command)
  command.addOption(valueOption('-D, --blob-dir <path>', 'Directory that holds the data blobs'))
  command.addOption(
    valueOption('-C, --config <path>', 'Configuration file of nydusd, which says where the data blobs are'),
  )
}

/** Which image: an operand, or -B. */
export function addImageOperand(command: Command): void {
  command.argument('[BOOTSTRAP]', 'File path of RAFS metadata, or of a blob that carries it')
  command.addOption(valueOption('-B, --bootstrap <path>', '[Deprecated] File path of RAFS meta blob/bootstrap'))
  setRules(command, {
    conflicts: [['--bootstrap', '<BOOTSTRAP>']],
    lacking: (has) => (has('--bootstrap') || has('<BOOTSTRAP>') ? [] : ['<BOOTSTRAP>']),
  })
}
