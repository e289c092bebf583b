import type { Backend } from '../../backend/index.ts'
import { unpackImage, writeStream } from '../../builder/index.ts'
import type { Bootstrap } from '../../rafs/index.ts'
import { createOutput, ExitError, type ProgressMode } from '../output.ts'
import type { CommonFlags } from './arguments.ts'
import { type BackendFlags, backendOf, checkOneBlob } from './backend-flags.ts'
import { openNamedImage } from './bootstrap-file.ts'
import { withImageData } from './image-content.ts'
import { type Log, withLog } from './log.ts'
import { toStdout } from './print-pieces.ts'

/** Values of `unpack`'s options, as the parser gives them. */
export interface UnpackFlags extends CommonFlags, BackendFlags {
  readonly bootstrap?: string
  readonly output: string
  readonly progress: ProgressMode
}

/** What a message about the backend ends with. */
const ADVICE = '--blob, --blob-dir or --backend-type must be specified'
/** Paths that are named in the log when no tar can hold them. */
const MAX_LOST = 10

/** `unpack`: an image as a tar, in a file that is there whole or not at all. */
export async function unpackImageFile(
  operand: string | undefined,
  flags: UnpackFlags,
  signal: AbortSignal,
): Promise<void> {
  if (flags.output === '') throw new ExitError(1, 'invalid empty --output option')
  await withLog(flags, async (log) => {
    const backend = await backendOf(flags, ADVICE)
    try {
      const image = await openNamedImage(operand, flags.bootstrap)
      checkOneBlob(flags, image)
      await unpack(image, backend, { flags, log, signal })
    } finally {
      await backend.close()
    }
  })
}

async function unpack(
  image: Bootstrap,
  backend: Backend,
  { flags, log, signal }: { readonly flags: UnpackFlags; readonly log: Log; readonly signal: AbortSignal },
): Promise<void> {
  const progress = createOutput(flags.progress).progress('unpacking', { total: 0, unit: 'bytes' })
  let lost = 0
  try {
    await withImageData(image, backend, async (data) => {
      await writeTo(flags.output, async (sink) => {
        await unpackImage(image, {
          data,
          sink,
          signal,
          onBytes: (bytes) => progress.advance(bytes),
          onLost: (path, reason) => {
            lost += 1
            if (lost <= MAX_LOST) log.warn(`${path} is left out: ${reason}`)
          },
        })
      })
    })
  } catch (cause) {
    signal.throwIfAborted()
    throw new ExitError(1, 'fail to unpack', { cause })
  } finally {
    progress.done()
  }
  if (lost > MAX_LOST) log.warn(`${lost - MAX_LOST} more paths are left out`)
}

async function writeTo(
  output: string,
  write: (sink: (bytes: Uint8Array) => Promise<void>) => Promise<void>,
): Promise<void> {
  if (output !== '-') return await writeStream(output, write)
  await write(toStdout)
}
