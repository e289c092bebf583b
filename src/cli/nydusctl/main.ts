import { createOutput, type Output, runTool } from '../output.ts'
import { runProgram } from '../run-program.ts'
import { ClientError } from './client.ts'
import { sortedJson } from './json.ts'
import { createProgram } from './program.ts'

/** Runs one command line (without the tool's own name); sets the exit code of the process. */
export async function main(argv: readonly string[]): Promise<void> {
  await runTool(tellFailures(createOutput('none'), argv), (signal) => runProgram(createProgram(signal), argv))
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
