import { createOutput, runTool } from '../output.ts'
import { versionText } from './version.ts'

/** Runs one command line (without the tool's own name); sets the exit code of the process. */
export async function main(argv: readonly string[]): Promise<void> {
  await runTool(createOutput('none'), async (signal) => {
    // Programs ask this often, to see what they have: it needs none of the commands.
    if (argv.length === 1 && (argv[0] === '--version' || argv[0] === '-V')) {
      process.stdout.write(`${versionText()}\n`)
      return
    }
    const { runCommand } = await import('./run-command.ts')
    await runCommand(argv, signal)
  })
}
