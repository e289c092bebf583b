import { Argument, Command, CommanderError, Option } from 'commander'
import { ExitError } from '../output.ts'

/** Levels of the original's logs. */
export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error'] as const
export type LogLevel = (typeof LOG_LEVELS)[number]

const USAGE_ERROR = 2

/** How the original shows a value's place: `--blob-dir <blob-dir>`. */
function placeOf(option: Option): string {
  return option.isBoolean() ? `${option.long}` : `${option.long} <${option.attributeName().replaceAll(/[A-Z]/g, (upper) => `-${upper.toLowerCase()}`)}>`
}

/** An error of the command line, in the original's words: the problem, the usage, exit code 2. */
export function usageError(command: Command, problem: string, details = ''): ExitError {
  const name = command.parent === null ? command.name() : `${command.parent.name()} ${command.name()}`
  const operands = command.registeredArguments.map((operand) => (operand.required ? `<${operand.name()}>` : `[${operand.name()}]`) + (operand.variadic ? '...' : ''))
  const usage = ['Usage:', name, '[OPTIONS]', ...(command.commands.length > 0 ? ['[COMMAND]'] : operands)].join(' ')
  return new ExitError(USAGE_ERROR, `${problem}\n${details}\n${usage}\n\nFor more information, try '--help'.`)
}

/** An option with a value; given twice it is an error, as in the original. */
export function valueOption(flags: string, description: string, choices?: readonly string[]): Option {
  const option = new Option(flags, description)
  if (choices !== undefined) option.choices(choices)
  const parse = option.parseArg
  let seen = false
  option.argParser((value: string, previous: unknown) => {
    if (seen) throw new RepeatedOption(option)
    seen = true
    if (choices !== undefined && !choices.includes(value)) throw new BadChoice(option, value, choices)
    return parse === undefined || choices !== undefined ? value : parse(value, previous)
  })
  return option
}

class RepeatedOption extends Error {
  readonly option: Option

  constructor(option: Option) {
    super('option given twice')
    this.option = option
  }
}

class BadChoice extends Error {
  readonly option: Option
  readonly value: string
  readonly choices: readonly string[]

  constructor(option: Option, value: string, choices: readonly string[]) {
    super('value is not one of the choices')
    this.option = option
    this.value = value
    this.choices = choices
  }
}

/** A command that reports usage errors in the original's words. */
export function createCommand(name: string, description: string): Command {
  const command = new Command(name).description(description).helpCommand(false).showHelpAfterError(false).exitOverride()
  command.configureOutput({ writeErr: () => undefined, outputError: () => undefined })
  command.helpOption('-h, --help', 'Print help')
  command.configureHelp({ helpWidth: 110, optionTerm: (option) => (option.short ? `${option.short}, ` : '    ') + placeOf(option) })
  command.addOption(valueOption('-L, --log-file <path>', 'Append log lines to this file instead of stderr'))
  command.addOption(valueOption('-l, --log-level <level>', 'Log level: [default: info]', LOG_LEVELS))
  return command
}

/** An operand named as the original names it. */
export function operand(name: string, description: string): Argument {
  return new Argument(name, description)
}

/** Two options of which only one may be given. */
export function refuseTogether(command: Command, a: string, b: string): void {
  const given = (long: string): Option | undefined => {
    const option = command.options.find((candidate) => candidate.long === long)
    const source = option && command.getOptionValueSource(option.attributeName())
    return source === 'cli' ? option : undefined
  }
  const [first, second] = [given(a), given(b)]
  if (first === undefined || second === undefined) return
  throw usageError(command, `the argument '${placeOf(first)}' cannot be used with '${placeOf(second)}'`)
}

/** Lists what is missing, as the original does. */
export function missing(command: Command, places: readonly string[]): ExitError {
  return usageError(command, 'the following required arguments were not provided:', places.map((place) => `  ${place}\n`).join(''))
}

/** `-B=x` and `-Bx` mean `-B x`, as in the original's parser; the library knows only the second form. */
export function normalizeArguments(argv: readonly string[]): string[] {
  const end = argv.indexOf('--')
  return argv.map((argument, index) => ((end === -1 || index < end) && /^-[A-Za-z]=/.test(argument) ? argument.slice(0, 2) + argument.slice(3) : argument))
}

/**
 * Turns an error of the parser into the original's words. Help and version are no errors: `undefined`. Anything that is not the parser's is given back.
 */
export function translateError(root: Command, argv: readonly string[], error: unknown): unknown {
  const command = root.commands.find((candidate) => argv.includes(candidate.name())) ?? root
  if (error instanceof RepeatedOption) return usageError(command, `the argument '${placeOf(error.option)}' cannot be used multiple times`)
  if (error instanceof BadChoice) {
    const { option, value, choices } = error
    return new ExitError(USAGE_ERROR, `invalid value '${value}' for '${placeOf(option)}'\n  [possible values: ${choices.join(', ')}]\n${tip(value, choices, 'value')}\nFor more information, try '--help'.`)
  }
  if (!(error instanceof CommanderError)) return error
  const quoted = /'([^']*)'/.exec(error.message)?.[1] ?? ''
  switch (error.code) {
    case 'commander.help':
    case 'commander.helpDisplayed':
    case 'commander.version':
      return undefined
    case 'commander.unknownOption':
      return usageError(command, `unexpected argument '${quoted}' found`)
    case 'commander.unknownCommand':
      return usageError(root, `unrecognized subcommand '${quoted}'`, tip(quoted, root.commands.map((candidate) => candidate.name()), 'subcommand'))
    case 'commander.excessArguments': {
      const given = root.commands.includes(command) ? (command.args.at(command.registeredArguments.length) ?? '') : (argv.find((argument) => !argument.startsWith('-')) ?? '')
      if (command === root) return usageError(root, `unrecognized subcommand '${given}'`, tip(given, root.commands.map((candidate) => candidate.name()), 'subcommand'))
      return usageError(command, `unexpected argument '${given}' found`)
    }
    case 'commander.missingArgument': {
      const name = command.registeredArguments.find((candidate) => candidate.required)
      return missing(command, [`<${name?.name() ?? quoted}>${name?.variadic === true ? '...' : ''}`])
    }
    case 'commander.optionMissingArgument': {
      const option = command.options.find((candidate) => error.message.includes(candidate.flags))
      return usageError(command, `a value is required for '${option === undefined ? quoted : placeOf(option)}' but none was supplied`)
    }
    default:
      return usageError(command, error.message.replace(/^error: /, ''))
  }
}

/** "A similar value exists", when one is near enough to be a slip of the fingers. */
function tip(given: string, known: readonly string[], noun: string): string {
  const near = known.find((name) => distance(given, name) <= Math.max(1, Math.floor(name.length / 3)))
  return near === undefined ? '' : `\n  tip: a similar ${noun} exists: '${near}'\n`
}

/** Edit distance, of words. */
function distance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (let i = 0; i < Math.min(a.length, 64); i += 1) {
    const current = [i + 1]
    for (let j = 0; j < b.length; j += 1) {
      current.push(Math.min((current[j] ?? 0) + 1, (previous[j + 1] ?? 0) + 1, (previous[j] ?? 0) + (a[i] === b[j] ? 0 : 1)))
    }
    previous = current
  }
  return previous.at(-1) ?? 0
}
