import { Command, Option } from 'commander'
import { PROGRESS_MODES } from '../output.ts'

/** Levels of the original's logs. */
export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error'] as const
export type LogLevel = (typeof LOG_LEVELS)[number]

/** Options that every command has. */
export interface CommonFlags {
  readonly logFile?: string
  readonly logLevel?: LogLevel
}

/** What a command's flags must obey together. Long names, `<OPERAND>` for an operand. */
export interface Rules {
  /** Of each pair only one may be given. */
  readonly conflicts: ReadonlyArray<readonly [string, string]>
  /** Options that no command line may be without; the usage line names them first. */
  readonly always?: readonly string[]
  /** Long names of options, and operands, that this command line lacks. */
  lacking(has: (name: string) => boolean, valueOf: (name: string) => string | undefined): string[]
}

const RULES = new WeakMap<Command, Rules>()

export function setRules(command: Command, rules: Rules): void {
  RULES.set(command, rules)
}

export function rulesOf(command: Command): Rules {
  return RULES.get(command) ?? { conflicts: [], lacking: () => [] }
}

/** Other names of options that the original takes. */
export const ALIASES: ReadonlyMap<string, string> = new Map([
  ['--source-type', '--type'],
  ['--inline-bootstrap', '--blob-inline-meta'],
])

/** How an option's place is shown: `--blob-dir <blob-dir>`. */
export function placeOf(option: Option): string {
  const long = option.long ?? ''
  return option.isBoolean() ? long : `${long} <${long.slice(2)}>`
}

/** An option with a value. */
export function valueOption(flags: string, description: string, choices?: readonly string[]): Option {
  const option = new Option(flags, description)
  return choices === undefined ? option : option.choices(choices)
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
    [
      '--backend-type <type>',
      'Type of backend [possible values: registry, http-proxy] (oss, s3, localdisk: not supported)',
    ],
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
