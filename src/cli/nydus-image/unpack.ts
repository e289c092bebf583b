import type { Command } from 'commander'
import { setRules, valueOption, rulesOf } from '../command-rules.ts'
import { addBackendOptions, addImageOperand, addProgressOption, BACKEND_CONFLICT, createCommand } from './arguments.ts'
import type { UnpackFlags } from './unpack-image.ts'

const EXAMPLES = `
Examples:
  nydus-image unpack -D blobs --output image.tar image.boot
  nydus-image unpack -b layer.blob --output - layer.boot | tar -tvf -
  nydus-image unpack --backend-type registry --backend-config-file backend.json --output image.tar image.boot

Every chunk is verified; the tar appears whole or not at all. Of a node with several names, all but the first are hard links.
Sockets, which no tar can hold, are left out with a warning; that is no failure.
Exit codes: 0 done, 1 failed, 2 wrong command line.`

/** `unpack`: flags, one call. */
export function unpackCommand(signal: AbortSignal): Command {
  const command = createCommand('unpack', 'Unpack a RAFS filesystem to a tar file')
  addImageOperand(command)
  for (const [flags, description] of [
    ['-b, --blob <path>', 'Path to RAFS data blob file'],
    ['-D, --blob-dir <path>', 'Directory that holds the data blobs'],
  ] as const) {
    command.addOption(valueOption(flags, description))
  }
  addBackendOptions(command)
  for (const [flags, description] of [
    ['-C, --config <path>', 'Configuration file of nydusd, which says where the data blobs are'],
    ['--output <path>', 'Path for output tar file; an existing FIFO is written to, "-" is stdout'],
  ] as const) {
    command.addOption(valueOption(flags, description))
  }
  addProgressOption(command)
  command.addHelpText('after', EXAMPLES)
  const image = rulesOf(command)
  const places = ['--blob', '--blob-dir', '--backend-type', '--config']
  setRules(command, {
    always: ['--output'],
    conflicts: [
      ...image.conflicts,
      ...places.flatMap((place, i) => places.slice(i + 1).map((other) => [place, other] as const)),
      BACKEND_CONFLICT,
    ],
    lacking: (has, valueOf) => [...(has('--output') ? [] : ['--output']), ...image.lacking(has, valueOf)],
  })
  command.action(async (operand: string | undefined, flags: UnpackFlags) => {
    const { unpackImageFile } = await import('./unpack-image.ts')
    await unpackImageFile(operand, flags, signal)
  })
  return command
}
