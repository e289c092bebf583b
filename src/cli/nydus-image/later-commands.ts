import { Command } from 'commander'
import { ExitError } from '../output.ts'
import { takeAnyWords } from './arguments.ts'

/** Commands of the original that this version does not have. They are named in the help, and refused whatever their flags. */
const LATER: ReadonlyArray<readonly [string, string]> = [
  ['compact', 'Compact specific nydus image, remove unused chunks in blobs, merge small blobs'],
]

export function laterCommands(): Command[] {
  return LATER.map(([name, description]) => {
    const command = new Command(name).description(`${description} (not supported by this version)`)
    command.argument('[arguments...]').allowUnknownOption().helpOption(false).helpCommand(false)
    takeAnyWords(command)
    command.action(() => {
      throw new ExitError(1, `the subcommand '${name}' is not supported by this version of nydus-image`)
    })
    return command
  })
}
