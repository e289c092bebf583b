/** `nydus-image`: builds, merges, checks and inspects RAFS images, with the original's command line. */
import { createOutput, ExitError, runTool } from '../output.ts'
import { createCommand, normalizeArguments, translateError } from './arguments.ts'
import { checkCommand } from './check.ts'
import { createImageCommand } from './create.ts'
import { inspectCommand } from './inspect.ts'
import { mergeCommand } from './merge.ts'
import { versionText } from './version.ts'

function program(signal: AbortSignal): ReturnType<typeof createCommand> {
  const root = createCommand('nydus-image', 'Build, analyze, inspect or validate RAFS filesystems/Nydus accelerated container images')
  root.usage('[OPTIONS] [COMMAND]').version(versionText(), '-V, --version', 'Print version')
  for (const command of [createImageCommand, mergeCommand, checkCommand, inspectCommand]) root.addCommand(command(signal))
  root.action(() => {
    if (root.args.length > 0) throw new ExitError(2, '')
    process.stdout.write('Usage: [OPTIONS] [COMMAND]\n')
  })
  return root
}

async function main(): Promise<void> {
  const output = createOutput('none')
  await runTool(output, async (signal) => {
    const root = program(signal)
    const argv = normalizeArguments(process.argv.slice(2))
    try {
      await root.parseAsync(argv, { from: 'user' })
    } catch (error) {
      const told = translateError(root, argv, error)
      if (told !== undefined) throw told
    }
  })
}

void main()
