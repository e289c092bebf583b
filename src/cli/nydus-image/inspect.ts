import type { Command } from 'commander'
import { valueOption } from '../command-rules.ts'
import { addImageOptions, createCommand } from './arguments.ts'
import type { InspectFlags } from './inspect-image.ts'

const EXAMPLES = `
Examples:
  nydus-image inspect image.boot                     asks for commands; "help" lists them, Tab completes, Ctrl-D ends
  nydus-image inspect image.boot -R blobs            [{"blob_id":"…","compressed_size":…,"decompressed_size":…,…}]
  nydus-image inspect image.boot -R stats            {"inodes_count":…}
  nydus-image inspect image.boot -R 'stat etc'

Exit codes: 0 done, 1 the image or the request cannot be used, 2 wrong command line.`

/** `inspect`: flags, one call. */
export function inspectCommand(signal: AbortSignal): Command {
  const command = createCommand('inspect', 'Inspect RAFS filesystem metadata in interactive or request mode')
  addImageOptions(command)
  command.addOption(valueOption('-R, --request <request>', 'One command; its result is printed as JSON'))
  command.addHelpText('after', EXAMPLES)
  command.action(async (operand: string | undefined, flags: InspectFlags) => {
    const { inspectImageFile } = await import('./inspect-image.ts')
    await inspectImageFile(operand, flags, signal)
  })
  return command
}
