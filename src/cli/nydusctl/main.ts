import { CommanderError } from 'commander'
import { readCommandLine, UsageError } from '../command-line.ts'
import { createOutput, ExitError, type Output, runTool } from '../output.ts'
import { ClientError } from './client.ts'
import { sortedJson } from './json.ts'
import { createProgram } from './program.ts'

/** Runs one command line (without the tool's own name); sets the exit code of the process. */
export async function main(argv: readonly string[]): Promise<void> {
  await runTool(tellFailures(createOutput('none'), argv), async (signal) => {
    const root = createProgram(signal)
    try {
      await root.parseAsync(readCommandLine(root, argv), { from: 'user' })
    } catch (error) {
      if (error instanceof UsageError) {
        process.stderr.write(error.message)
        throw new ExitError(error.exitCode, '')
      }
      if (!(error instanceof CommanderError)) throw error
      // Help and version end the parsing this way.
      if (error.exitCode !== 0) throw new ExitError(2, '')
    }
  })
}

/** With `--json` a failure is a line on stdout too, for programs; the exit code and stderr are the same. */
function tellFailures(output: Output, argv: readonly string[]): Output {
  const wantsJson = argv.includes('--json')
  return {
    ...output,
    fail: (error) => {
      if (wantsJson && error instanceof ClientError) process.stdout.write(`${failureJson(error)}\n`)
      output.fail(error)
    },
  }
}

function failureJson({ code, message, status, answer }: ClientError): string {
  return sortedJson({ error: { code, message, status: status ?? null, answer: answer ?? null } })
}
