import { createInterface, type Interface } from 'node:readline'
import { ImageInspector, INSPECT_COMMANDS, type InspectAnswer, quoted } from '../../builder/index.ts'
import { RafsError } from '../../rafs/index.ts'
import { ExitError } from '../output.ts'
import { checkConfig } from './blob-source.ts'
import type { CommonFlags } from './arguments.ts'
import { readNamedImage } from './bootstrap-file.ts'
import { withLog } from './log.ts'

/** Values of `inspect`'s options, as the parser gives them. */
export interface InspectFlags extends CommonFlags {
  readonly bootstrap?: string
  readonly blobDir?: string
  readonly config?: string
  readonly request?: string
}

const PROMPT = 'Inspecting RAFS :> '

/** `inspect`: answers one request as JSON, or asks for commands until the end of stdin. */
export async function inspectImageFile(
  operand: string | undefined,
  flags: InspectFlags,
  signal: AbortSignal,
): Promise<void> {
  await withLog(flags, async () => {
    await checkConfig(flags.config)
    const source = await readNamedImage(operand, flags.bootstrap)
    const inspector = new ImageInspector(source, flags.request !== undefined)
    if (flags.request === undefined) await converse(inspector, signal)
    else answer(inspector, flags.request)
  })
}

function answer(inspector: ImageInspector, request: string): void {
  const { text, value, status } = executed(inspector, request)
  process.stdout.write(text)
  switch (status) {
    case 'done':
    case 'exit':
      process.stdout.write(JSON.stringify(value))
      return
    case 'bad-argument':
      throw new ExitError(1, `invalid arguments in inspect request \`${request}\``)
    case 'unknown':
      throw new ExitError(1, `unsupported inspect request \`${request}\``)
    case 'help':
      throw new ExitError(1, 'help is not supported in inspect request mode')
    default:
      status satisfies never
  }
}

function executed(inspector: ImageInspector, request: string): InspectAnswer {
  try {
    return inspector.execute(request)
  } catch (cause) {
    throw new ExitError(1, `failed to execute inspect request \`${request}\``, { cause })
  }
}

async function converse(inspector: ImageInspector, signal: AbortSignal): Promise<void> {
  const lines = createInterface({
    input: process.stdin,
    output: process.stdout,
    prompt: PROMPT,
    historySize: 1000,
    completer: completerOf(inspector),
  })
  const close = (): void => lines.close()
  signal.addEventListener('abort', close, { once: true })
  // On a terminal, Ctrl-C reaches the line editor and not the process.
  lines.on('SIGINT', close)
  try {
    await readCommands(lines, inspector)
  } finally {
    signal.removeEventListener('abort', close)
    lines.close()
  }
  signal.throwIfAborted()
}

async function readCommands(lines: Interface, inspector: ImageInspector): Promise<void> {
  lines.prompt()
  for await (const line of lines) {
    try {
      const { text, status } = inspector.execute(line)
      process.stdout.write(text)
      if (status === 'exit') return
    } catch (error) {
      process.stdout.write(`Failed to execute command, ${error instanceof Error ? error.message : String(error)}\n`)
    }
    lines.prompt()
  }
  process.stdout.write('\n')
}

/** Completes commands, and paths after `cd` and `stat`; after a quote, names in quotes, as `ls` shows them. */
export function completerOf(inspector: ImageInspector): (line: string) => [string[], string] {
  return (line) => {
    const [, command, word = ''] = /^\s*(?:(cd|stat)\s+)?(.*)$/s.exec(line) ?? []
    const known = command === undefined ? [...INSPECT_COMMANDS] : pathsOf(inspector, word, command === 'cd')
    return [known.filter((name) => name.startsWith(word)), word]
  }
}

function pathsOf(inspector: ImageInspector, word: string, areDirectories: boolean): string[] {
  const isQuoted = word.startsWith('"')
  const directory = isQuoted ? '' : word.slice(0, word.lastIndexOf('/') + 1)
  try {
    return inspector
      .entries(Buffer.from(directory))
      .filter(({ isDirectory }) => isDirectory || !areDirectories)
      .flatMap(({ name, isDirectory }) => {
        if (isQuoted) return [quoted(name)]
        const plain = name.toString()
        return quoted(name) === `"${plain}"` && !plain.includes(' ')
          ? [`${directory}${plain}${isDirectory ? '/' : ''}`]
          : []
      })
  } catch (error) {
    if (!(error instanceof RafsError)) throw error
    // A damaged directory has no names to offer; the command itself tells what is wrong.
    return []
  }
}
