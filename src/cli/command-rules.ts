import { type Command, Option } from 'commander'

/** What a command's flags must obey together. Long names (short ones of options without a long one), `<OPERAND>` for an operand. */
export interface Rules {
  /** Of each pair only one may be given. */
  readonly conflicts: ReadonlyArray<readonly [string, string]>
  /** Options that no command line may be without; the usage line names them first. */
  readonly always?: readonly string[]
  /** Long names of options, and operands, that this command line lacks. */
  lacking(has: (name: string) => boolean, valueOf: (name: string) => string | undefined): string[]
  /** Options that an option asks for: the usage line names them before it. */
  readonly needs?: ReadonlyMap<string, readonly string[]>
  /** An option of the tool itself leaves no place for a command behind it. */
  readonly optionsExcludeCommands?: boolean
  /** A command for which the tool needs not be told what its others must be (`always` of the tool). */
  readonly standsAlone?: boolean
  /** Usage lines of the tool, where the usual form does not tell it. */
  readonly usage?: string
}

const RULES = new WeakMap<Command, Rules>()

export function setRules(command: Command, rules: Rules): void {
  RULES.set(command, rules)
}

export function rulesOf(command: Command): Rules {
  return RULES.get(command) ?? { conflicts: [], lacking: () => [] }
}

/** Rules of options without which a command does nothing. */
export function requireOptions(command: Command, ...always: string[]): void {
  setRules(command, { conflicts: [], always, lacking: (has) => always.filter((name) => !has(name)) })
}

/** Other names of options that the originals take. */
export const ALIASES: ReadonlyMap<string, string> = new Map([
  ['--source-type', '--type'],
  ['--inline-bootstrap', '--blob-inline-meta'],
  ['--thread-num', '--fuse-threads'],
  ['--config-path', '--nydusd-config'],
  ['--threads', '--fuse-threads'],
])

/** The name by which rules know an option. */
export function nameOf(option: Option): string {
  return option.long ?? option.short ?? ''
}

/** Whether an option stands alone; `--no-x` does, which the library does not call a boolean. */
export function isSwitch(option: Option): boolean {
  return !option.required && !option.optional
}

/** How an option's place is shown: `--blob-dir <blob-dir>`; `-m <mountpoint>` without a long name. */
export function placeOf(option: Option): string {
  const name = nameOf(option)
  if (isSwitch(option)) return name
  return name.startsWith('--') ? `${name} <${name.slice(2)}>` : `${name} ${/<.*>/.exec(option.flags)?.[0] ?? ''}`
}

/** An option with a value. */
export function valueOption(flags: string, description: string, choices?: readonly string[]): Option {
  const option = new Option(flags, description)
  return choices === undefined ? option : option.choices(choices)
}
