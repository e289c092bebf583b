import { Command, CommanderError, Option } from 'commander'
import { ExitError } from '../output.ts'
import { switchFromEnvironment } from './go-flags.ts'
import type { Log } from './log.ts'

/** What all subcommands get. */
export interface CommandContext {
  readonly signal: AbortSignal
  /** Opens the log that the global flags ask for. */
  openLog(): Log
}

/** Flags that ask how progress is shown; ours, not the original's. */
export interface ProgressFlags {
  readonly progress: 'auto' | 'plain' | 'json' | 'none'
}

/** A command that stops reading flags at the first operand, and leaves it to us to say what is wrong. */
export function createCommand(name: string, description: string): Command {
  const command = new Command(name)
    .description(description)
    .helpCommand(false)
    .exitOverride()
    .allowExcessArguments(true)
  command.configureOutput({ writeErr: () => undefined, outputError: () => undefined })
  command.configureHelp({ helpWidth: 120 })
  return command.helpOption('-h, --help', 'show help')
}

/** A flag with a value, also from the environment variable of the original. */
export function value(
  flags: string,
  description: string,
  more: { readonly env?: string; readonly fallback?: string } = {},
): Option {
  const option = new Option(flags, description)
  if (more.fallback !== undefined) option.default(more.fallback)
  return more.env === undefined ? option : option.env(more.env)
}

/** A flag without a value. The parser's own reading of the environment would take `FLAG=false` for yes. */
export function onOff(flags: string, description: string, env?: string): Option {
  const option = new Option(flags, env === undefined ? description : `${description} (env: ${env})`)
  return env === undefined ? option : option.default(switchFromEnvironment(env), 'false')
}

export function progressOption(): Option {
  return new Option('--progress <mode>', 'how progress is shown')
    .choices(['auto', 'plain', 'json', 'none'])
    .default('auto')
}

/** A mistake in the command line: the help is shown on stdout and the mistake on stderr, as in the original. */
export class UsageError extends ExitError {
  readonly help: string

  constructor(help: string, message: string) {
    super(1, message)
    this.help = help
  }
}

/** Throws a UsageError for flags that must be there. */
export function requireFlags(command: Command, names: readonly string[]): void {
  const missing = names.filter((name) => {
    const given: unknown = command.getOptionValue(name)
    return given === undefined || given === ''
  })
  if (missing.length === 0) return
  throw new UsageError(
    helpOf(command),
    missing.length === 1 ? `Required flag "${missing[0]}" not set` : `Required flags "${missing.join(', ')}" not set`,
  )
}

/** An error of the parser in the original's words; `undefined` for help and version, which are none; any other error as it is. */
export function translateError(root: Command, args: readonly string[], error: unknown): unknown {
  if (!(error instanceof CommanderError)) return error
  if (error.exitCode === 0) return undefined
  const command = commandOf(root, args)
  const flag = /'(?:.*?)(--?[\w-]+)/.exec(error.message)?.[1]?.replace(/^-+/, '') ?? ''
  switch (error.code) {
    case 'commander.unknownOption':
      return incorrect(command, `flag provided but not defined: -${flag}`)
    case 'commander.optionMissingArgument':
      return incorrect(command, `flag needs an argument: -${flag}`)
    default:
      return incorrect(command, error.message.replace(/^error: /, ''))
  }
}

function incorrect(command: Command, message: string): UsageError {
  return new UsageError(`Incorrect Usage: ${message}\n\n${helpOf(command)}`, message)
}

/** The command whose flags were being read: the first operand names it. */
function commandOf(root: Command, args: readonly string[]): Command {
  const command = root.commands.find(
    (candidate) => args.includes(candidate.name()) || candidate.aliases().some((alias) => args.includes(alias)),
  )
  const rest = args.slice(args.findIndex((arg) => arg === command?.name()) + 1)
  return command?.commands.find((candidate) => rest[0] === candidate.name()) ?? command ?? root
}

/** With the examples that follow the flags. */
export function helpOf(command: Command): string {
  let text = ''
  const output = command.configureOutput()
  command.configureOutput({ ...output, writeOut: (part) => void (text += part) })
  command.outputHelp()
  command.configureOutput({ ...output, writeOut: (part) => void process.stdout.write(part) })
  return text
}
