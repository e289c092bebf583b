import { Argument, type Command, type Option } from 'commander'
import { setRules } from './command-rules.ts'

const SHELLS = ['bash', 'zsh', 'fish'] as const
type Shell = (typeof SHELLS)[number]

/** What a command takes, as the shells want to know it. */
interface Place {
  readonly name: string
  readonly description: string
  readonly options: readonly Flag[]
  /** Choices of its operands. */
  readonly words: readonly string[]
  /** Its operands, or those of a command below it, are files. */
  readonly takesFiles: boolean
}

interface Flag {
  readonly short: string | undefined
  readonly long: string
  readonly description: string
  readonly takes: 'nothing' | 'words' | 'directory' | 'file'
  readonly words: readonly string[]
}

/** Adds `completion SHELL` to a tool: it prints a script that completes all the tool's commands and flags. To be called when the commands are there. */
export function addCompletion(root: Command): void {
  const completion = root
    .command('completion')
    .description('Print a script that completes this command line in bash, zsh or fish')
    .addArgument(new Argument('<shell>', 'shell that will read the script').choices(SHELLS))
    .addHelpText(
      'after',
      `\nExamples:\n  source <(${root.name()} completion bash)                    # in ~/.bashrc\n  ${root.name()} completion fish > ~/.config/fish/completions/${root.name()}.fish`,
    )
    .action((shell: Shell) => {
      process.stdout.write(completionScript(root, shell))
    })
  setRules(completion, { conflicts: [], lacking: () => [], standsAlone: true })
}

export function completionScript(root: Command, shell: Shell): string {
  const commands = root.commands.map(placeOf)
  const own = placeOf(root)
  switch (shell) {
    case 'bash':
      return bashScript(own, commands)
    case 'zsh':
      return zshScript(own, commands)
    case 'fish':
      return fishScript(own, commands)
    default:
      return shell satisfies never
  }
}

function placeOf(command: Command): Place {
  const help = { short: '-h', long: '--help', description: 'Print help', takes: 'nothing', words: [] } as const
  // A command with commands of its own offers all of their flags: shells look at the first word only.
  const below = command.parent === null ? [] : command.commands.map(placeOf)
  const own = [...command.options.filter(({ hidden }) => !hidden).map(flagOf), help]
  const words = [
    ...command.commands.map((sub) => sub.name()),
    ...command.registeredArguments.flatMap(({ argChoices }) => argChoices ?? []),
  ]
  const known = new Set(own.map(({ long }) => long))
  const more = below.flatMap(({ options }) => options).filter(({ long }) => !known.has(long))
  return {
    name: command.name(),
    description: command.summary() || command.description(),
    options: [...own, ...more],
    words,
    takesFiles: words.length === 0 || below.some(({ takesFiles }) => takesFiles),
  }
}

function flagOf(option: Option): Flag {
  const isDirectory = /dir/.test(option.long ?? '') || /<\w*dir>/.test(option.flags)
  return {
    short: option.short,
    long: option.long ?? option.short ?? '',
    description: option.description.split('\n')[0] ?? '',
    takes: option.isBoolean()
      ? 'nothing'
      : option.argChoices !== undefined
        ? 'words'
        : isDirectory
          ? 'directory'
          : 'file',
    words: option.argChoices ?? [],
  }
}

function namesOf({ short, long }: Flag): string[] {
  return short === undefined || short === long ? [long] : [short, long]
}

/** `nydus-image` as the name of a shell function. */
function functionName(name: string): string {
  return `_${name.replaceAll(/\W/g, '_')}`
}

/** Between single quotes; fish and the others end them alike. */
function quote(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`
}

function bashScript(root: Place, commands: readonly Place[]): string {
  const name = functionName(root.name)
  return `# bash completion of ${root.name}; source it.
${name}() {
  local current=\${COMP_WORDS[COMP_CWORD]} previous=\${COMP_WORDS[COMP_CWORD-1]} command= word i
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=\${COMP_WORDS[i]}
    case $word in
${commands.map((command) => `      ${command.name}) command=${command.name}; break ;;\n`).join('')}    esac
  done
  COMPREPLY=()
  # Bash takes "=" as a word of its own: --flag=value is three.
  if [ "$current" = = ]; then current=; elif [ "$previous" = = ]; then previous=\${COMP_WORDS[COMP_CWORD-2]}; fi
  case $command:$previous in
${[root, ...commands].flatMap((place) => bashValues(place, place === root ? '' : place.name)).join('')}  esac
  case $command in
${[...commands, root].map((place) => bashWords(place, place === root ? "''" : place.name)).join('')}  esac
}
complete -F ${name} ${root.name}
`
}

function bashValues(place: Place, command: string): string[] {
  return place.options
    .filter(({ takes }) => takes !== 'nothing')
    .map((flag) => {
      const patterns = namesOf(flag)
        .map((flagName) => `${command}:${flagName}`)
        .join('|')
      const how =
        flag.takes === 'words' ? `-W ${quote(flag.words.join(' '))}` : flag.takes === 'directory' ? '-d' : '-f'
      const files = flag.takes === 'words' ? '' : 'compopt -o filenames 2>/dev/null; '
      return `    ${patterns}) ${files}mapfile -t COMPREPLY < <(compgen ${how} -- "$current"); return ;;\n`
    })
}

function bashWords(place: Place, pattern: string): string {
  const flags = place.options.flatMap(namesOf).join(' ')
  const words = place.words.length > 0 ? ` -W ${quote(place.words.join(' '))}` : ''
  const operands = `compgen${place.takesFiles ? ' -f' : ''}${words} -- "$current"`
  const files = place.takesFiles ? 'compopt -o filenames 2>/dev/null; ' : ''
  return `    ${pattern})
      case $current in
        -*) mapfile -t COMPREPLY < <(compgen -W ${quote(flags)} -- "$current") ;;
        *) ${files}mapfile -t COMPREPLY < <(${operands}) ;;
      esac ;;\n`
}

function zshScript(root: Place, commands: readonly Place[]): string {
  const name = functionName(root.name)
  const list = commands.map((command) => `    ${quote(`${command.name}:${command.description}`)}\n`).join('')
  const cases = commands
    .map((command) => `      ${command.name}) _arguments -s -S ${zshArguments(command).join(' ')} ;;\n`)
    .join('')
  return `#compdef ${root.name}
# zsh completion of ${root.name}: put it as ${name} into a folder of $fpath, or eval it.
${name}() {
  local state line
  local -a commands
  commands=(
${list}  )
  _arguments -C -s ${zshFlags(root).join(' ')} '1: :->command' '*:: :->rest'
  case $state in
    command) _describe command commands ;;
    rest) case $line[1] in
${cases}    esac ;;
  esac
}
if [ "$funcstack[1]" = ${name} ]; then ${name} "$@"; else compdef ${name} ${root.name}; fi
`
}

function zshFlags(place: Place): string[] {
  return place.options.flatMap((flag) => {
    const text = flag.description.replaceAll(/[[\]:\\]/g, '\\$&')
    const value =
      flag.takes === 'words'
        ? `:value:(${flag.words.join(' ')})`
        : flag.takes === 'directory'
          ? ':directory:_files -/'
          : flag.takes === 'file'
            ? ':value:_files'
            : ''
    return namesOf(flag).map((flagName) => quote(`${flagName}[${text}]${value}`))
  })
}

function zshArguments(place: Place): string[] {
  const operands = place.takesFiles ? '*: :_files' : `*: :(${place.words.join(' ')})`
  const first = place.takesFiles && place.words.length > 0 ? [quote(`1: :(${place.words.join(' ')})`)] : []
  return [...zshFlags(place), ...first, quote(operands)]
}

function fishScript(root: Place, commands: readonly Place[]): string {
  const names = commands.map(({ name }) => name).join(' ')
  const isAlone = `not __fish_seen_subcommand_from ${names}`
  const lines = [`# fish completion of ${root.name}.`]
  for (const { name, description } of commands) {
    lines.push(`complete -c ${root.name} -n ${quote(isAlone)} -f -a ${name} -d ${quote(description)}`)
  }
  for (const place of [root, ...commands]) {
    const when = quote(place === root ? isAlone : `__fish_seen_subcommand_from ${place.name}`)
    const complete = `complete -c ${root.name} -n ${when}`
    for (const flag of place.options) lines.push(`${complete} ${fishFlag(flag)} -d ${quote(flag.description)}`)
    if (place !== root && place.words.length > 0)
      lines.push(`${complete}${place.takesFiles ? '' : ' -f'} -a ${quote(place.words.join(' '))}`)
  }
  return `${lines.join('\n')}\n`
}

function fishFlag({ short, long, takes, words }: Flag): string {
  const names = [
    short === undefined || short.startsWith('--') ? '' : `-s ${short.slice(1)} `,
    `-l ${long.replace(/^-+/, '')}`,
  ].join('')
  switch (takes) {
    case 'nothing':
      return names
    case 'words':
      return `${names} -x -a ${quote(words.join(' '))}`
    case 'directory':
      return `${names} -x -a '(__fish_complete_directories)'`
    case 'file':
      return `${names} -r -F`
    default:
      return takes satisfies never
  }
}
