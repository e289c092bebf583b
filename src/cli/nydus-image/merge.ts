import type { Command } from 'commander'
import { valueOption } from '../command-rules.ts'
import { addProgressOption, createCommand } from './arguments.ts'
import type { MergeFlags } from './merge-flags.ts'

const EXAMPLES = `
Examples:
  # layers, lowest first; the name of each file is the id of its blob
  nydus-image merge -B image.boot 3df816e3…0b610 db11e11e…68684
  # names do not matter when the ids are given
  nydus-image merge -B image.boot --original-blob-ids 3df816e3…0b610,db11e11e…68684 layer1.boot layer2.boot

Lists have one entry a SOURCE, in the same order.
Exit codes: 0 done, 1 failed, 2 wrong command line, or layers that do not fit together (chunk size, version, owners).`

/** `merge`: flags, one call. */
export function mergeCommand(signal: AbortSignal): Command {
  const command = createCommand('merge', 'Merge multiple bootstraps into a overlaid bootstrap')
  command.argument('<SOURCE...>', 'bootstrap paths (allow one or more)')
  for (const [flags, description] of [
    ['-B, --bootstrap <path>', 'Output path of nydus overlaid bootstrap'],
    ['-D, --blob-dir <path>', 'Directory path to save the generated bootstrap, named by its digest'],
    ['--parent-bootstrap <path>', 'Bootstrap of an image that lies below all sources'],
    ['--chunk-dict <path>', 'Bootstrap whose blobs any source may refer to: PATH or bootstrap=PATH'],
    ['-J, --output-json <path>', 'File path to save operation result in JSON format'],
    ['--blob-digests <list>', 'RAFS blob digest list separated by comma; they become the blob ids'],
    ['--original-blob-ids <list>', 'original blob id list separated by comma, it may usually be a sha256 hex string'],
    ['--blob-sizes <list>', 'RAFS blob size list separated by comma'],
    ['--blob-toc-digests <list>', 'RAFS blob toc digest list separated by comma'],
    ['--blob-toc-sizes <list>', 'RAFS blob toc size list separated by comma'],
    ['-C, --config <path>', 'Configuration file of nydusd; ids and sizes are then those that the bootstraps tell'],
  ] as const) {
    command.addOption(valueOption(flags, description))
  }
  command.addOption(
    valueOption('--prefetch-policy <policy>', 'Data to have first; patterns are read from stdin: [default: none]', [
      'fs',
      'blob',
      'none',
    ]).default('none'),
  )
  addProgressOption(command)
  command.addHelpText('after', EXAMPLES)
  command.action(async (sources: string[], flags: MergeFlags) => {
    const { mergeImageFiles } = await import('./merge-image.ts')
    await mergeImageFiles(sources, flags, signal)
  })
  return command
}
