import { CommanderError } from 'commander'
import { fromGoFlags } from '../nydusify/go-flags.ts'
import { createOutput, describeError, exitCodeOf, ExitError, runTool } from '../output.ts'
import { isOwn } from './own-command.ts'
import { passOn } from './pass-on.ts'
import { createProgram, switchesOf } from './program.ts'

/** Errors end the program with one line, as in the original. */
function fail(error: unknown): void {
  process.exitCode = exitCodeOf(error)
  const text = describeError(error)
    .replace(/^Error: /, '')
    .trimEnd()
  if (text !== '') process.stderr.write(`ctr-remote: ${text.replace(/\s*Caused by:[^]*$/, '')}\n`)
}

/** Runs one command line; the exit code is the process's. */
export async function main(argv: readonly string[]): Promise<void> {
  await runTool({ ...createOutput('none'), fail }, async (signal) => {
    if (!isOwn(argv)) {
      process.exitCode = await passOn(argv)
      return
    }
    const root = createProgram(signal)
    try {
      await root.parseAsync(fromGoFlags(argv, switchesOf(root)), { from: 'user' })
    } catch (error) {
      if (!(error instanceof CommanderError)) throw error
      if (error.exitCode !== 0) throw new ExitError(1, error.message.replace(/^error: /, ''))
    }
  })
}
