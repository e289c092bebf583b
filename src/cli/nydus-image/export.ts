import type { Command } from 'commander'
import { setRules, valueOption } from '../command-rules.ts'
import { addProgressOption, createCommand } from './arguments.ts'
import type { ExportFlags } from './export-image.ts'

const EXAMPLES = `
Examples:
  # a disk that the kernel mounts: mount -t erofs -o loop,ro image.disk /mnt
  nydus-image export --block -B image.boot -D blobs -O image.disk
  # and its dm-verity tree; the options for veritysetup go to stdout
  nydus-image export --block --verity -B image.boot -D blobs -O image.disk

RAFS v6 images only. Without -O the disk is BLOBS/NAME-OF-BOOTSTRAP.disk.
Exit codes: 0 done, 1 failed, 2 wrong command line.`

/** `export`: flags, one call. */
export function exportCommand(signal: AbortSignal): Command {
  const command = createCommand('export', 'Export RAFS filesystems as raw block disk images or tar files')
  command.option('--block', 'Export RAFS filesystems as raw block disk images')
  for (const [flags, description] of [
    ['-B, --bootstrap <path>', 'Bootstrap of the RAFS filesystem to be exported'],
    ['-C, --config <path>', 'Configuration file containing a `BlobCacheEntry` object'],
    [
      '-D, --localfs-dir <path>',
      'Path to the `localfs` working directory, which also enables the `localfs` storage backend',
    ],
    ['--threads <number>', 'Taken for the sake of other programs, valid values: [1-1024] [default: 4]'],
    ['-O, --output <path>', 'File path for saving the exported content'],
  ] as const) {
    command.addOption(valueOption(flags, description))
  }
  command.option('--verity', 'Generate dm-verity data for block device')
  setRules(command, {
    conflicts: [['--localfs-dir', '--config']],
    always: ['--block'],
    needs: new Map([
      ['--localfs-dir', ['--bootstrap']],
      ['--bootstrap', ['--localfs-dir']],
    ]),
    lacking: (has) => [
      ...(has('--block') ? [] : ['--block']),
      ...(has('--localfs-dir') && !has('--bootstrap') ? ['--bootstrap'] : []),
      ...(has('--bootstrap') && !has('--localfs-dir') ? ['--localfs-dir'] : []),
      ...(has('--localfs-dir') || has('--output') ? [] : ['--output']),
    ],
  })
  addProgressOption(command)
  command.addHelpText('after', EXAMPLES)
  command.action(async (flags: ExportFlags) => {
    const { exportImageFile } = await import('./export-image.ts')
    await exportImageFile(flags, signal)
  })
  return command
}
