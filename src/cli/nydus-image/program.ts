import type { Command } from 'commander'
import { addCompletion } from '../completion.ts'
import { createCommand } from './arguments.ts'
import { checkCommand } from './check.ts'
import { chunkdictCommand } from './chunkdict.ts'
import { compactCommand } from './compact.ts'
import { createImageCommand } from './create.ts'
import { diffCommand } from './diff.ts'
import { dumpCommand } from './dump.ts'
import { exportCommand } from './export.ts'
import { inspectCommand } from './inspect.ts'
import { mergeCommand } from './merge.ts'
import { optimizeCommand } from './optimize.ts'
import { statCommand } from './stat.ts'
import { unpackCommand } from './unpack.ts'
import { versionText } from './version.ts'

const DESCRIPTION = 'Build, analyze, inspect or validate RAFS filesystems/Nydus accelerated container images'

/** The tool's commands; what they do is loaded when one of them runs. */
export function createProgram(signal: AbortSignal): Command {
  const root = createCommand('nydus-image', DESCRIPTION)
  root.usage('[OPTIONS] [COMMAND]').version(versionText(), '-V, --version', 'Print version')
  for (const command of [
    createImageCommand,
    mergeCommand,
    checkCommand,
    inspectCommand,
    exportCommand,
    unpackCommand,
    statCommand,
    dumpCommand,
    diffCommand,
    chunkdictCommand,
    optimizeCommand,
    compactCommand,
  ])
    root.addCommand(command(signal))
  addCompletion(root)
  root.enablePositionalOptions()
  root.action(() => void process.stdout.write('Usage: [OPTIONS] [COMMAND]\n'))
  return root
}
