import { type Argument, type Command, InvalidArgumentError, type Option } from 'commander'
import { ALIASES, isSwitch, nameOf, placeOf, rulesOf } from './command-rules.ts'
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
    this.#checkTool()
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
    const [first] = this.#given.keys()
    const command = this.#command.commands.find((candidate) => candidate.name() === name)
    if (command === undefined) {
      const names = this.#command.commands.map((candidate) => candidate.name())
      throw new UsageError(
        `unrecognized subcommand '${name}'`,
        this.#usage(),
        tip('subcommand', mayAdvise ? similar(name, [...names, 'help']) : undefined),
      )
    }
    if (first !== undefined && rulesOf(this.#command).optionsExcludeCommands === true)
      throw new UsageError(`the subcommand '${name}' cannot be used with '${placeOf(first)}'`, this.#usage())
    this.#command = command
    this.#path.push(name)
  }

  #long(argument: string): void {
    const equals = argument.indexOf('=')
    const name = equals < 0 ? argument : argument.slice(0, equals)
    const named = (wanted: string): Option | undefined => this.#command.options.find(({ long }) => long === wanted)
    const option = named(name) ?? named(ALIASES.get(name) ?? name)
    if (option === undefined) throw this.#unexpected(name)
    this.#take(option, equals < 0 ? undefined : argument.slice(equals + 1))
  }

  /** `-v`, `-vJ x`, `-Bx`, `-B=x`. */
  #short(argument: string): void {
    for (let at = 1; at < argument.length; at += 1) {
      const name = `-${argument[at]}`
      const option = this.#command.options.find(({ short }) => short === name)
      if (option === undefined) throw this.#unexpected(name)
      if (isSwitch(option)) {
        this.#take(option, undefined)
        continue
      }
      const attached = argument.slice(at + 1)
      return this.#take(option, attached === '' ? undefined : attached.replace(/^=/, ''))
    }
  }

  #take(option: Option, attached: string | undefined): void {
    const place = placeOf(option)
    if (isSwitch(option)) {
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
    checkValue(option, value)
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
    const hasOwn = [...this.#given.keys()].some((option) => this.#command.options.includes(option))
    const known = hasOwn ? this.#usageWith([], undefined) : this.#usage()
    if (near === undefined) return new UsageError(`unexpected argument '${argument}' found`, known, asValue)
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

  /** What the tool itself must be given before a command. */
  #checkTool(): void {
    const { always = [], optionsExcludeCommands } = rulesOf(this.#root)
    if (this.#command === this.#root || optionsExcludeCommands === true || this.#standsAlone()) return
    const lacking = this.#root.options.filter((option) => always.includes(nameOf(option)) && !this.#given.has(option))
    if (lacking.length === 0) return
    const list = lacking.map((option) => `\n  ${placeOf(option)}`).join('')
    throw new UsageError(
      `the following required arguments were not provided:${list}`,
      ['Usage:', this.#root.name(), ...lacking.map(placeOf)].join(' '),
    )
  }

  #standsAlone(): boolean {
    return rulesOf(this.#command).standsAlone === true
  }

  /** The position of an option or `<OPERAND>` among those that were given; -1 for none. */
  #indexOf(name: string): number {
    if (name.startsWith('<')) return this.#operands.length > 0 ? this.#given.size : -1
    return [...this.#given.keys()].findIndex((option) => nameOf(option) === name)
  }

  #valueOf(name: string): string | undefined {
    return [...this.#given].find(([option]) => nameOf(option) === name)?.[1]
  }

  #placeOf(name: string, isRequired = false): string {
    if (name.startsWith('<')) return isRequired ? name : `[${name.slice(1, -1)}]`
    const option = this.#command.options.find((candidate) => nameOf(candidate) === name)
    return option === undefined ? name : placeOf(option)
  }

  /** The usage line that says what can be given. */
  #usage(): string {
    const rules = rulesOf(this.#command)
    if (rules.usage !== undefined) return rules.usage
    const isTool = this.#command.commands.length > 0
    const what = isTool ? ['[COMMAND]'] : this.#command.registeredArguments.map(operandPlace)
    const always = (rules.always ?? []).map((name) => this.#placeOf(name, true))
    return ['Usage:', this.#name(), '[OPTIONS]', ...always, ...what].join(' ')
  }

  /** The usage line that says what was given and what is lacking: first what must be there, each after what it asks for, then what was given besides. */
  #usageWith(lacking: readonly string[], without: string | undefined): string {
    const rules = rulesOf(this.#command)
    const now = rules.lacking(
      (name) => !name.startsWith('<') && this.#indexOf(name) >= 0,
      (name) => this.#valueOf(name),
    )
    const asked = [...this.#given.keys()].flatMap((option) => rules.needs?.get(nameOf(option)) ?? [])
    const must = [...(rules.always ?? []), ...asked]
      .flatMap((name) => [...(rules.needs?.get(name) ?? []), name])
      .map((name) => this.#placeOf(name, true))
    const given = [...this.#given.keys()]
      .filter((option) => option.long !== without && this.#command.options.includes(option))
      .map(placeOf)
    const operands = this.#command.registeredArguments
      .map((argument) => (now.includes(`<${argument.name()}>`) ? `<${argument.name()}>` : operandPlace(argument)))
      .filter((place) => !lacking.includes(place.replace('[', '<').replace(']', '>')))
    return [
      'Usage:',
      this.#name(),
      ...new Set([
        ...must.filter((place) => lacking.includes(place) || given.includes(place)),
        ...given,
        ...lacking.filter((place) => place.startsWith('-')),
        ...operands,
        ...lacking,
      ]),
    ].join(' ')
  }

  /** The tool, what it must be given before a command, and the command. */
  #name(): string {
    const before = this.#path.length === 0 || this.#standsAlone() ? [] : (rulesOf(this.#root).always ?? [])
    const places = before.map((name) => {
      const option = this.#root.options.find((candidate) => nameOf(candidate) === name)
      return option === undefined ? name : placeOf(option)
    })
    const isOfTool = rulesOf(this.#root).optionsExcludeCommands === true
    return [this.#root.name(), ...(isOfTool ? [] : places), ...this.#path].join(' ')
  }

  #canonical(...end: string[]): string[] {
    const words = (isOwn: boolean): string[] =>
      [...this.#given]
        .filter(([option]) => this.#command.options.some((own) => nameOf(own) === nameOf(option)) === isOwn)
        .map(([option, value]) => wordOf(option, value))
    const operands = this.#operands.length > 0 ? ['--', ...this.#operands] : []
    return [...words(false), ...this.#path, ...words(true), ...end, ...operands]
  }
}

function wordOf(option: Option, value: string | undefined): string {
  if (value === undefined) return nameOf(option)
  return option.long === undefined ? `${option.short}${value}` : `${option.long}=${value}`
}

/** Asks the option itself whether it likes a value. */
function checkValue(option: Option, value: string): void {
  try {
    option.parseArg?.(value, undefined)
  } catch (error) {
    if (!(error instanceof InvalidArgumentError)) throw error
    throw new UsageError(`invalid value '${value}' for '${placeOf(option)}': ${error.message}`, '')
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
