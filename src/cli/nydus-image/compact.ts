import type { Command } from 'commander'
import { setRules, valueOption } from '../command-rules.ts'
import { addBackendOptions, addProgressOption, BACKEND_CONFLICT, createCommand } from './arguments.ts'
import type { CompactFlags } from './compact-image.ts'

const EXAMPLES = `
Examples:
  # blobs of which less than half is used are rebuilt, and small ones merged
  nydus-image compact -B image.boot -D blobs --min-used-ratio 50 -O compact.boot

New blobs go into the folder; the old ones stay there. When there is nothing to do, nothing is written.
Exit codes: 0 done or nothing to do, 1 failed, 2 wrong command line.`

/** `compact`: flags, one call. */
export function compactCommand(signal: AbortSignal): Command {
  const command = createCommand(
    'compact',
    '(experimental)Compact specific nydus image, remove unused chunks in blobs, merge small blobs',
  )
  command.addOption(valueOption('-B, --bootstrap <path>', 'bootstrap to compact'))
  addBackendOptions(command)
  for (const [flags, description] of [
    [
      '--min-used-ratio <percent>',
      'Lower bound of used ratio for blobs to be kept, possible values: 0-99, 0 means disable [default: 0]',
    ],
    ['--compact-blob-size <bytes>', 'Upper bound of blob size for blobs to be compacted, in bytes [default: 10485760]'],
    ['--max-compact-size <bytes>', 'Upper bound of compacted blob size, in bytes [default: 104857600]'],
    [
      '--layers-to-compact <count>',
      'If number of blobs >= layers_to_compact, do compact. 0 means always compact [default: 0]',
    ],
    ['-D, --blob-dir <path>', 'Local blobs dir for blobs not in backend, also for output blobs'],
    ['--chunk-dict <path>', 'Bootstrap of a chunk dictionary, whose blobs are left alone: PATH or bootstrap=PATH'],
    ['-O, --output-bootstrap <path>', 'bootstrap to output [default: the source with the extension bootstrap.compact]'],
    ['-J, --output-json <path>', 'File path to save operation result in JSON format'],
  ] as const) {
    command.addOption(valueOption(flags, description))
  }
  addProgressOption(command)
  command.addHelpText('after', EXAMPLES)
  const needed = ['--bootstrap', '--blob-dir']
  setRules(command, {
    always: needed,
    conflicts: [BACKEND_CONFLICT],
    lacking: (has) => needed.filter((name) => !has(name)),
  })
  command.action(async (flags: CompactFlags) => {
    const { compactImageFile } = await import('./compact-image.ts')
    await compactImageFile(flags, signal)
  })
  return command
}
