import type { Command } from 'commander'
import { valueOption } from '../command-rules.ts'
import { addImageOptions, addProgressOption, createCommand } from './arguments.ts'
import type { CheckFlags } from './check-image.ts'

const EXAMPLES = `
Examples:
  # the metadata: every inode, chunk and link
  nydus-image check image.boot
  # and the data: every chunk of every blob is read and its digest compared
  nydus-image check -D blobs image.boot

With -B (which other programs use) blobs are never touched. All that is wrong is logged, not the first thing.
Exit codes: 0 valid, 1 not valid or not readable, 2 wrong command line.`

/** `check`: flags, one call. */
export function checkCommand(signal: AbortSignal): Command {
  const command = createCommand('check', 'Validate RAFS filesystem metadata')
  addImageOptions(command)
  command.option('-v, --verbose', 'Output message in verbose mode: all inodes and chunks')
  command.addOption(valueOption('-J, --output-json <path>', 'File path to save operation result in JSON format'))
  addProgressOption(command)
  command.addHelpText('after', EXAMPLES)
  command.action(async (operand: string | undefined, flags: CheckFlags) => {
    const { checkImageFile } = await import('./check-image.ts')
    await checkImageFile(operand, flags, signal)
  })
  return command
}
