/** `nydus-setup`: configures a node so that containerd uses the snapshotter; and takes it back. */
import { createOutput } from '../output.ts'
import { runProgram } from '../run-program.ts'
import { createProgram } from './program.ts'

async function main(argv: readonly string[]): Promise<void> {
  const output = createOutput('none')
  try {
    await runProgram(createProgram(output), argv)
  } catch (error) {
    output.fail(error)
  }
}

void main(process.argv.slice(2))
