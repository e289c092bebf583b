import { createOutput, describeError, exitCodeOf, ExitError, runTool } from '../output.ts'
import { translateError, UsageError } from './command.ts'
import { fromGoFlags } from './go-flags.ts'
import { Log } from './log.ts'
import { createProgram, switchesOf } from './program.ts'

/** Errors end the program with a line of the log, as in the original. */
function fail(error: unknown): void {
  process.exitCode = exitCodeOf(error)
  const text = describeError(error)
    .replace(/^Error: /, '')
    .trimEnd()
  if (text === '') return
  if (error instanceof UsageError) process.stdout.write(error.help)
  if (error instanceof ExitError && error.exitCode === 3) process.stderr.write(`${text}\n`)
  else
    Log.open({ logLevel: 'info' }).fatal(text.replace(/\nCaused by:\n\s*/, ': ').replaceAll(/\n\s+(?:\d+: )?/g, ': '))
}

/** Runs one command line; the exit code is the process's. */
export async function main(argv: readonly string[]): Promise<void> {
  await runTool({ ...createOutput('none'), fail }, async (signal) => {
    const root = createProgram(signal)
    const args = fromGoFlags(argv, switchesOf(root))
    try {
      await root.parseAsync(args, { from: 'user' })
    } catch (error) {
      const told = translateError(root, args, error)
      if (told !== undefined) throw told
    }
  })
}
