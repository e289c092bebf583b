import { writeStream } from '../../builder/index.ts'
import { type Bootstrap, dumpLines, RafsError } from '../../rafs/index.ts'
import { ExitError } from '../output.ts'
import type { CommonFlags } from './arguments.ts'
import { openNamedImage } from './bootstrap-file.ts'
import { withLog } from './log.ts'
import { printPieces, writePieces } from './print-pieces.ts'

/** Values of `dump`'s options, as the parser gives them. */
export interface DumpFlags extends CommonFlags {
  readonly bootstrap?: string
  readonly output?: string
  readonly json?: boolean
}

/** `dump`: an image as text, on stdout as it is read, or in a file that is there whole or not at all. */
export async function dumpImageFile(operand: string | undefined, flags: DumpFlags, signal: AbortSignal): Promise<void> {
  await withLog(flags, async () => {
    const image = await openNamedImage(operand, flags.bootstrap)
    try {
      await write(image, flags, signal)
    } catch (error) {
      if (!(error instanceof RafsError)) throw error
      const path = JSON.stringify(flags.bootstrap ?? operand)
      throw new ExitError(1, `failed to dump ${path}`, { cause: error })
    }
  })
}

async function write(image: Bootstrap, { output, json }: DumpFlags, signal: AbortSignal): Promise<void> {
  const pieces = dumpLines(image, json === true ? 'json' : 'text')
  if (output === undefined || output === '-') await printPieces(pieces, signal)
  else await writeStream(output, (sink) => writePieces(pieces, sink, signal))
}
