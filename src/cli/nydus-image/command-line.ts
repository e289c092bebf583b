import type { Argument, Command, Option } from 'commander'
import { ALIASES, placeOf, rulesOf } from './arguments.ts'
import { similar } from './similar.ts'

const MORE = "\nFor more information, try '--help'.\n"

/** A command line that cannot be understood, told in the original's words. Exit code 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
  readonly exitCode = 2

  constructor(problem: string, usage: string, tip = '') {
    super(`error: ${problem}\n${tip}${usage === '' ? '' : `\n${usage}\n`}${MORE}`)
  }
}

/**
 * Checks a command line as the original's parser does, with its words, and gives it in the one form that needs no more interpretation: command, `--long=value`, `--`,
 * operands. What the original's parser knows and the library does not: `-B=x`, aliases, values that look like options are none, nothing twice.
 */
export function readCommandLine(root: Command, argv: readonly string[]): string[] {
  return new CommandLine(root, argv).read()
}

/** One pass over the words. */
class CommandLine {
  readonly #root: Command
  readonly #rest: string[]
  #command: Command
  /** Names of the commands from the root to `#command`. */
  readonly #path: string[] = []
  readonly #given = new Map<Option, string | undefined>()
  readonly #operands: string[] = []

  constructor(root: Command, argv: readonly string[]) {
    this.#root = root
    this.#command = root
    this.#rest = [...argv]
  }

  read(): string[] {
    for (let argument = this.#rest.shift(); argument !== undefined; argument = this.#rest.shift()) {
      if (argument === '--') {
        for (const operand of this.#rest.splice(0)) this.#operand(operand)
      } else if (argument.startsWith('--')) {
        if (argument === '--help') return this.#canonical('--help')
        if (this.#isVersion(argument)) return ['--version']
        this.#long(argument)
      } else if (argument.startsWith('-') && argument !== '-') {
        if (argument === '-h') return this.#canonical('--help')
        if (this.#isVersion(argument)) return ['--version']
        this.#short(argument)
      } else if (this.#command.commands.length > 0) {
        if (argument === 'help') return this.#helpOf(this.#rest)
        this.#enter(argument)
      } else this.#operand(argument)
    }
    this.#checkTogether()
    return this.#canonical()
  }

  #isVersion(argument: string): boolean {
    return this.#command === this.#root && (argument === '-V' || argument === '--version')
  }

  #helpOf(names: readonly string[]): string[] {
    for (const name of names) if (this.#command.commands.length > 0) this.#enter(name, false)
    return [...this.#path, '--help']
  }

  #enter(name: string, mayAdvise = true): void {
    const command = this.#command.commands.find((candidate) => candidate.name() === name)
    if (command === undefined) {
      const names = this.#command.commands.map((candidate) => candidate.name())
      throw new UsageError(
        `unrecognized subcommand '${name}'`,
        this.#usage(),
        tip('subcommand', mayAdvise ? similar(name, [...names, 'help']) : undefined),
      )
    }
    this.#command = command
    this.#path.push(name)
  }

  #long(argument: string): void {
    const equals = argument.indexOf('=')
    const name = equals < 0 ? argument : argument.slice(0, equals)
    const option = this.#command.options.find(({ long }) => long === name || long === ALIASES.get(name))
    if (option === undefined) throw this.#unexpected(name)
    this.#take(option, equals < 0 ? undefined : argument.slice(equals + 1))
  }

  /** `-v`, `-vJ x`, `-Bx`, `-B=x`. */
  #short(argument: string): void {
    for (let at = 1; at < argument.length; at += 1) {
      const name = `-${argument[at]}`
      const option = this.#command.options.find(({ short }) => short === name)
      if (option === undefined) throw this.#unexpected(name)
      if (option.isBoolean()) {
        this.#take(option, undefined)
        continue
      }
      const attached = argument.slice(at + 1)
      return this.#take(option, attached === '' ? undefined : attached.replace(/^=/, ''))
    }
  }

  #take(option: Option, attached: string | undefined): void {
    const place = placeOf(option)
    if (option.isBoolean()) {
      if (attached !== undefined)
        throw new UsageError(
          `unexpected value '${attached}' for '${place}' found; no more were expected`,
          this.#usageWith([place], undefined),
        )
      if (this.#given.has(option)) throw this.#twice(place)
      this.#given.set(option, undefined)
      return
    }
    const value = attached ?? this.#nextValue()
    if (value === undefined)
      throw new UsageError(`a value is required for '${place}' but none was supplied${possible(option.argChoices)}`, '')
    if (option.argChoices?.includes(value) === false) throw invalidValue(value, place, option.argChoices)
    if (this.#given.has(option)) throw this.#twice(place)
    this.#given.set(option, value)
  }

  #nextValue(): string | undefined {
    const [next] = this.#rest
    return next === undefined || (next.startsWith('-') && next !== '-') ? undefined : this.#rest.shift()
  }

  #operand(value: string): void {
    const places = this.#command.registeredArguments
    if (this.#operands.length >= places.length && places.at(-1)?.variadic !== true) throw this.#unexpected(value)
    const place = places[Math.min(this.#operands.length, places.length - 1)]
    if (place?.argChoices?.includes(value) === false) throw invalidValue(value, operandPlace(place), place.argChoices)
    this.#operands.push(value)
  }

  #unexpected(argument: string): UsageError {
    const isOption = argument.startsWith('-')
    const near = argument.startsWith('--')
      ? similar(
          argument.slice(2),
          this.#command.options.map(({ long }) => (long ?? '').slice(2)),
        )
      : undefined
    const asValue =
      isOption && this.#command.registeredArguments.length > 0
        ? `\n  tip: to pass '${argument}' as a value, use '-- ${argument}'\n`
        : ''
    if (near === undefined) return new UsageError(`unexpected argument '${argument}' found`, this.#usage(), asValue)
    const usage = this.#usageWith([this.#placeOf(`--${near}`)], undefined)
    return new UsageError(`unexpected argument '${argument}' found`, usage, tip('argument', `--${near}`))
  }

  #twice(place: string): UsageError {
    return new UsageError(`the argument '${place}' cannot be used multiple times`, this.#usage())
  }

  #checkTogether(): void {
    const rules = rulesOf(this.#command)
    const has = (name: string): boolean => this.#indexOf(name) >= 0
    for (const pair of rules.conflicts) {
      if (!pair.every(has)) continue
      // The one that was given first is the one that "cannot be used"; operands come last, wherever they stood.
      const [first, second] = this.#indexOf(pair[0]) < this.#indexOf(pair[1]) ? pair : [pair[1], pair[0]]
      throw new UsageError(
        `the argument '${this.#placeOf(first)}' cannot be used with '${this.#placeOf(second)}'`,
        this.#usageWith([], second),
      )
    }
    const required = this.#command.registeredArguments.filter(
      (argument, i) => argument.required && i >= this.#operands.length,
    )
    const lacking = [
      ...rules.lacking(has, (name) => this.#valueOf(name)).map((name) => this.#placeOf(name, true)),
      ...required.map(operandPlace),
    ]
    if (lacking.length === 0) return
    const list = lacking.map((place) => `\n  ${place}`).join('')
    throw new UsageError(
      `the following required arguments were not provided:${list}`,
      this.#usageWith(lacking, undefined),
    )
  }

  /** The position of an option or `<OPERAND>` among those that were given; -1 for none. */
  #indexOf(name: string): number {
    if (name.startsWith('<')) return this.#operands.length > 0 ? this.#given.size : -1
    return [...this.#given.keys()].findIndex(({ long }) => long === name)
  }

  #valueOf(name: string): string | undefined {
    return [...this.#given].find(([{ long }]) => long === name)?.[1]
  }

  #placeOf(name: string, isRequired = false): string {
    if (name.startsWith('<')) return isRequired ? name : `[${name.slice(1, -1)}]`
    const option = this.#command.options.find(({ long }) => long === name)
    return option === undefined ? name : placeOf(option)
  }

  /** The usage line that says what can be given. */
  #usage(): string {
    const what = this.#command.commands.length > 0 ? ['[COMMAND]'] : this.#command.registeredArguments.map(operandPlace)
    return ['Usage:', this.#name(), '[OPTIONS]', ...what].join(' ')
  }

  /** The usage line that says what was given and what is lacking. */
  #usageWith(lacking: readonly string[], without: string | undefined): string {
    const rules = rulesOf(this.#command)
    const always = (rules.always ?? []).map((name) => this.#placeOf(name, true))
    const now = rules.lacking(
      (name) => !name.startsWith('<') && this.#indexOf(name) >= 0,
      (name) => this.#valueOf(name),
    )
    const given = [...this.#given.keys()]
      .filter(({ long }) => long !== without)
      .map(placeOf)
      .sort((a, b) => Number(always.includes(b)) - Number(always.includes(a)))
    const operands = this.#command.registeredArguments
      .map((argument) => (now.includes(`<${argument.name()}>`) ? `<${argument.name()}>` : operandPlace(argument)))
      .filter((place) => !lacking.includes(place.replace('[', '<').replace(']', '>')))
    return [
      'Usage:',
      this.#name(),
      ...new Set([
        ...always.filter((place) => lacking.includes(place)),
        ...given,
        ...lacking.filter((place) => place.startsWith('-')),
        ...operands,
        ...lacking,
      ]),
    ].join(' ')
  }

  #name(): string {
    return [this.#root.name(), ...this.#path].join(' ')
  }

  #canonical(...end: string[]): string[] {
    const options = [...this.#given].map(([{ long }, value]) => (value === undefined ? `${long}` : `${long}=${value}`))
    return [...this.#path, ...options, ...end, ...(this.#operands.length > 0 ? ['--', ...this.#operands] : [])]
  }
}

function operandPlace(argument: Argument): string {
  return (argument.required ? `<${argument.name()}>` : `[${argument.name()}]`) + (argument.variadic ? '...' : '')
}

function possible(values: readonly string[] | undefined): string {
  return values === undefined ? '' : `\n  [possible values: ${values.join(', ')}]`
}

function invalidValue(value: string, place: string, choices: readonly string[]): UsageError {
  return new UsageError(
    `invalid value '${value}' for '${place}'${possible(choices)}`,
    '',
    tip('value', similar(value, choices)),
  )
}

function tip(noun: string, word: string | undefined): string {
  return word === undefined ? '' : `\n  tip: a similar ${noun} exists: '${word}'\n`
}
