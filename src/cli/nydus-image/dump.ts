import type { Command } from 'commander'
import { valueOption } from '../command-rules.ts'
import { addImageOperand, createCommand } from './arguments.ts'
import type { DumpFlags } from './dump-image.ts'

const EXAMPLES = `
Each path is a line, a directory before what it holds, names in bytewise order:

  PATH TYPE MODE UID:GID NLINK SIZE MTIME [rdev=MAJOR:MINOR] [target=PATH] [hardlink=PATH] [prefetch=N] [xattr:NAME=BASE64]... [chunks=DIGEST[*COUNT],...]

"hardlink" is the first path of the inode, "prefetch" the place in the prefetch table, "*COUNT" so many equal chunks in a row. Bytes outside
0x21-0x7e and "%" are written as %XX. Lines before the first path begin with "#image" and "#blob".

Examples:
  # what is in an image?
  nydus-image dump image.boot
  # in which files do two images differ? (see also: nydus-image diff)
  diff <(nydus-image dump a.boot) <(nydus-image dump b.boot)
  # the largest files
  nydus-image dump image.boot | grep ' file ' | sort -rnk6 | head
  # the same for programs
  nydus-image dump --json image.boot | jq -r 'select(.type == "file" and .uid == 0) | .path'

Exit codes: 0 done, 1 the image cannot be read or is damaged (what came before the damage was written), 2 wrong command line.`

/** `dump`: flags, one call. */
export function dumpCommand(signal: AbortSignal): Command {
  const command = createCommand('dump', 'Write a RAFS filesystem as canonical text, one line a path')
  addImageOperand(command)
  command.addOption(valueOption('-o, --output <path>', 'File for the text; without it, and for "-": stdout'))
  command.option('--json', 'One JSON object a line')
  command.addHelpText('after', EXAMPLES)
  command.action(async (operand: string | undefined, flags: DumpFlags) => {
    const { dumpImageFile } = await import('./dump-image.ts')
    await dumpImageFile(operand, flags, signal)
  })
  return command
}
