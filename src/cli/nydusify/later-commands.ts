import type { Command } from 'commander'
import { ConvertError } from '../../convert/index.ts'
import { createCommand } from './command.ts'

/** Subcommands of the original that this version does not have. They are named in the help, and say so. */
const LATER: ReadonlyArray<{
  readonly name: string
  readonly alias?: string
  readonly description: string
  readonly instead: string
}> = [
  {
    name: 'chunkdict',
    description: 'Deduplicate chunk for Nydus image (experimental)',
    instead: 'a converted image can serve as --chunk-dict of another conversion',
  },
  {
    name: 'build',
    alias: 'pack',
    description: 'Build a Nydus filesystem from a source directory',
    instead: 'use nydus-image create',
  },
  {
    name: 'copy',
    description: 'Copy an image from source to target',
    instead: 'any OCI client copies Nydus images (crane, skopeo, oras)',
  },
  {
    name: 'optimize',
    description: 'Optimize a source nydus image and push to the target',
    instead: 'convert with --prefetch-patterns',
  },
  {
    name: 'commit',
    description: "Create and push a new nydus image from a container's changes that use a nydus image",
    instead: 'commit to a plain image and convert that',
  },
]

export function laterCommands(): Command[] {
  return LATER.map(({ name, alias, description, instead }) => {
    const command = createCommand(name, `${description} (not in this version)`).allowUnknownOption(true)
    if (alias !== undefined) command.alias(alias)
    return command.action(() => {
      throw new ConvertError('UNSUPPORTED', `nydusify ${name} is not part of this version; ${instead}`)
    })
  })
}
