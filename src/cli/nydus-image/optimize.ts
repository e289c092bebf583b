import type { Command } from 'commander'
import { setRules, valueOption } from '../command-rules.ts'
import { addBackendOptions, addProgressOption, BACKEND_CONFLICT, createCommand } from './arguments.ts'
import type { OptimizeFlags } from './optimize-image.ts'

const EXAMPLES = `
Examples:
  echo '{"version":"v1","files":[{"path":"/bin/sh"},{"path":"/data","ranges":[[0,65536]]}]}' > files.json
  nydus-image optimize -B image.boot -p files.json -D blobs --output-blob-dir blobs -O optimized.boot

The data of the files goes into one new blob, in the order of the list; it is the last one of the image.
Exit codes: 0 done, 1 failed, 2 wrong command line.`

/** `optimize`: flags, one call. */
export function optimizeCommand(signal: AbortSignal): Command {
  const command = createCommand('optimize', 'Optimize By Prefetch')
  for (const [flags, description] of [
    ['-B, --bootstrap <path>', 'File path of RAFS metadata'],
    ['-p, --prefetch-files <path>', 'JSON file with the files whose data is to come first'],
    ['-C, --config <path>', 'Configuration file of nydusd, which says where the data blobs are'],
  ] as const) {
    command.addOption(valueOption(flags, description))
  }
  addBackendOptions(command)
  for (const [flags, description] of [
    ['-D, --blob-dir <path>', 'Directory that holds the data blobs'],
    ['-b, --blob <path>', 'Path to RAFS data blob file'],
    ['-O, --output-bootstrap <path>', 'Output path of optimized bootstrap [default: optimized_bootstrap]'],
    ['--output-blob-dir <path>', 'Directory path for storing the optimized blob'],
    ['-J, --output-json <path>', 'File path to save operation result in JSON format'],
  ] as const) {
    command.addOption(valueOption(flags, description))
  }
  addProgressOption(command)
  command.addHelpText('after', EXAMPLES)
  setRules(command, {
    always: ['--bootstrap'],
    conflicts: [BACKEND_CONFLICT],
    lacking: (has) => (has('--bootstrap') ? [] : ['--bootstrap']),
  })
  command.action(async (flags: OptimizeFlags) => {
    const { optimizeImageFile } = await import('./optimize-image.ts')
    await optimizeImageFile(flags, signal)
  })
  return command
}
