import { type Command, CommanderError } from 'commander'
import { readCommandLine, UsageError } from './command-line.ts'
import { ExitError } from './output.ts'

/** Does what a command line (without the tool's own name) says. Throws ExitError with code 2 for one that cannot be understood, which was told then. */
export async function runProgram(root: Command, argv: readonly string[]): Promise<void> {
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
}
