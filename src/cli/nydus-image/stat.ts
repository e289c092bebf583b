import type { Command } from 'commander'
import { valueOption } from '../command-rules.ts'
import { addProgressOption, createCommand } from './arguments.ts'
import type { StatFlags } from './stat-image.ts'

const EXAMPLES = `
Examples:
  nydus-image stat -B image.boot -J image.json       sizes and counts of one image
  nydus-image stat -D bootstraps -T image.boot       how much of an image do all those in a folder have already?

Exit codes: 0 done, 1 failed, 2 wrong command line.`

/** `stat`: flags, one call. */
export function statCommand(signal: AbortSignal): Command {
  const command = createCommand('stat', 'Generate statistics information for RAFS filesystems')
  for (const [flags, description] of [
    ['-B, --bootstrap <path>', 'Generate statistics information for the RAFS filesystem'],
    ['-D, --blob-dir <path>', 'Generate statistics information for all RAFS filesystems in the directory'],
    [
      '-T, --target <path>',
      'Generate statistics information for the RAFS filesystem after applying chunk deduplication',
    ],
    ['-C, --config <path>', 'Configuration file of nydusd; files may then be blobs that carry their bootstraps'],
  ] as const) {
    command.addOption(valueOption(flags, description))
  }
  command.addOption(
    valueOption('--digester <algorithm>', 'Algorithm that chunks are compared by: [default: blake3]', [
      'blake3',
      'sha256',
    ]).default('blake3'),
  )
  command.addOption(valueOption('-J, --output-json <path>', 'File path to save operation result in JSON format'))
  addProgressOption(command)
  command.addHelpText('after', EXAMPLES)
  command.action(async (flags: StatFlags) => {
    const { statImages } = await import('./stat-image.ts')
    await statImages(flags, signal)
  })
  return command
}
