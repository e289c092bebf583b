import { CommanderError } from 'commander'
import { createOutput, ExitError, runTool } from '../output.ts'
import { readCommandLine, UsageError } from './command-line.ts'
import { createProgram } from './program.ts'

/** Runs one command line (without the tool's own name); sets the exit code of the process. */
export async function main(argv: readonly string[]): Promise<void> {
  await runTool(createOutput('none'), async (signal) => {
    const root = createProgram(signal)
    try {
      await root.parseAsync(readCommandLine(root, argv), { from: 'user' })
    } catch (error) {
      if (error instanceof UsageError) {
        process.stderr.write(error.message)
        throw new ExitError(error.exitCode, '')
      }
      if (!(error instanceof CommanderError)) throw error
      // Help and version end the parsing this way; anything else was told by the library.
      if (error.exitCode !== 0) throw new ExitError(2, '')
    }
  })
}
