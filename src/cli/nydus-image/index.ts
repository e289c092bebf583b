/** `nydus-image`: builds, merges, checks and inspects RAFS images, with the original's command line. */
import { CommanderError } from 'commander'
import { createOutput, ExitError, runTool } from '../output.ts'
import { readCommandLine, UsageError } from './command-line.ts'
import { createProgram } from './program.ts'

async function main(): Promise<void> {
  await runTool(createOutput('none'), async (signal) => {
    const root = createProgram(signal)
    try {
      await root.parseAsync(readCommandLine(root, process.argv.slice(2)), { from: 'user' })
    } catch (error) {
      if (error instanceof UsageError) {
        process.stderr.write(error.message)
        throw new ExitError(error.exitCode, '')
      }
      // Help and version end the parsing this way.
      if (!(error instanceof CommanderError) || error.exitCode !== 0) throw error
    }
  })
}

void main()
