import type { Command } from 'commander'
import { createCommand, onOff, value } from '../nydusify/command.ts'
import { ExitError } from '../output.ts'
import { addImageFlags, type ImageFlags, prefetchPaths, readPrefetchList } from './convert-flags.ts'
import { convertInStore } from './convert-in-store.ts'
import type { Context } from './program.ts'

interface ConvertFlags extends ImageFlags {
  readonly nydusPrefetchPatterns?: string
}

export function convertCommand(context: Context): Command {
  const command = createCommand('convert', "convert an image of containerd's store to Nydus")
    .usage('[flags] <source_ref> <target_ref>')
    .argument('[source_ref]', 'image in the store')
    .argument('[target_ref]', 'name of the new one; it replaces an image of that name')
    .addOption(onOff('--nydus', 'the default; with --estargz, --zstdchunked or --uncompress, ctr converts'))
    .addOption(value('--nydus-prefetch-patterns <paths>', 'paths that nodes fetch first, a line each; default: /'))
  addImageFlags(command)
  return command.action(async (source: string | undefined, target: string | undefined, flags: ConvertFlags) => {
    if (source === undefined || source === '' || target === undefined || target === '')
      throw new ExitError(1, 'src and target image need to be specified')
    if (flags.prefetchList !== undefined && flags.nydusPrefetchPatterns !== undefined)
      throw new ExitError(1, '--prefetch-list and --nydus-prefetch-patterns cannot be used together')
    const warn = (line: string): void => void process.stderr.write(`${line}\n`)
    const list = flags.prefetchList === undefined ? flags.nydusPrefetchPatterns : readPrefetchList(flags.prefetchList)
    const paths = prefetchPaths(typeof list === 'string' ? Buffer.from(list) : list, warn)
    await using session = await context.open()
    const digest = await convertInStore(session, { source, target, flags, prefetchPaths: paths, warn })
    process.stdout.write(`${digest}\n`)
  })
}
