import type { Command } from 'commander'
import { valueOption } from '../command-rules.ts'
import { createCommand } from './arguments.ts'
import type { ChunkdictFlags } from './chunkdict-image.ts'

const EXAMPLES = `
Examples:
  # folders are named IMAGE:VERSION; the more versions, the better the choice
  nydus-image chunkdict generate --database sqlite:///var/lib/chunks.db -B dict.boot app:1/bootstrap app:2/bootstrap app:3/bootstrap
  # then builds need not store again what the dictionary has
  nydus-image create --chunk-dict dict.boot -D out -B app.boot rootfs

Exit codes: 0 done, 1 failed, 2 wrong command line.`

/** `chunkdict generate`: flags, one call. */
export function chunkdictCommand(signal: AbortSignal): Command {
  const command = createCommand('chunkdict', 'Deduplicate RAFS filesystem metadata')
  command.usage('[OPTIONS] [COMMAND]').enablePositionalOptions()
  command.addCommand(generateCommand(signal))
  command.action(() => void process.stdout.write('Usage: [OPTIONS] [COMMAND]\n'))
  return command
}

function generateCommand(signal: AbortSignal): Command {
  const command = createCommand('generate', 'Generate chunk dictionary based on database')
  command.argument('<SOURCE...>', 'bootstrap paths (allow one or more)')
  command.addOption(
    valueOption(
      '--database <url>',
      'Database of chunks, made when there is none: sqlite:///PATH or sqlite://:memory: [default: sqlite:///home/runner/output/database.db]',
    ).default('sqlite:///home/runner/output/database.db'),
  )
  for (const [flags, description] of [
    ['-B, --bootstrap <path>', 'Output path of the dictionary'],
    ['-D, --blob-dir <path>', 'Directory path to save the dictionary, named by its digest'],
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
  command.addOption(valueOption('-J, --output-json <path>', 'File path to save operation result in JSON format'))
  command.addOption(valueOption('-C, --config <path>', 'Configuration file of nydusd; it is only checked'))
  command.option('-v, --verbose', 'Taken for the sake of other programs')
  command.addHelpText('after', EXAMPLES)
  command.action(async (sources: string[], flags: ChunkdictFlags) => {
    const { generateChunkdict } = await import('./chunkdict-image.ts')
    await generateChunkdict(sources, flags, signal)
  })
  return command
}
