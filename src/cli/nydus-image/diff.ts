import type { Command } from 'commander'
import { createCommand } from './arguments.ts'
import type { DiffFlags } from './diff-images.ts'

const EXAMPLES = `
A line is "+" for a path that only B has, "-" for one that only A has, "~" for one that changed, with what changed. The figures at the end say
what a node that has all data of A fetches for B: chunks of blobs that A does not use, or of shared blobs that A uses less of.

Examples:
  # what would an update cost the nodes?
  nydus-image diff --summary app-v1.boot app-v2.boot
  # which files changed in content, for programs
  nydus-image diff --json a.boot b.boot | jq -r '.changes[] | select(.parts | index("content")) | .path'
  # in a script
  nydus-image diff --exit-code --summary a.boot b.boot > /dev/null || echo 'they differ'

Both may be RAFS v5 or v6, and blobs that carry their bootstraps. Blobs are not read: contents are compared by the digests of chunks. "content?"
marks files of one size whose chunks cannot be compared (cut or digested in different ways).
Exit codes: 0 compared, 1 an image cannot be read or is damaged, 2 wrong command line, 3 with --exit-code: the images are not the same.`

/** `diff`: flags, one call. */
export function diffCommand(signal: AbortSignal): Command {
  const command = createCommand('diff', 'Compare two RAFS filesystems: files, and what a node would fetch anew')
  command.argument('<A>', 'Bootstrap that a node has, or a blob that carries it')
  command.argument('<B>', 'Bootstrap that it gets')
  command.option('--json', 'One JSON object, see the documentation')
  command.option('--summary', 'The figures alone, without a line for each path')
  command.option('--exit-code', 'Exit with 3 when the images are not the same')
  command.addHelpText('after', EXAMPLES)
  command.action(async (a: string, b: string, flags: DiffFlags) => {
    const { diffImageFiles } = await import('./diff-images.ts')
    await diffImageFiles(a, b, flags, signal)
  })
  return command
}
