import { createOutput } from '../output.ts'
import { runProgram } from '../run-program.ts'
import { withoutGoForms } from './go-forms.ts'
import { createProgram } from './program.ts'

/** Runs one command line (without the tool's own name); sets the exit code of the process. */
export async function main(argv: readonly string[]): Promise<void> {
  const output = createOutput('none')
  try {
    await runProgram(createProgram(output), withoutGoForms(argv))
  } catch (error) {
    output.fail(error)
  }
}
