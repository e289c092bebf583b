import { readFile } from 'node:fs/promises'
import { type Backend, localfsBackend } from '../../backend/index.ts'
import { unpackImage, writeStream } from '../../builder/index.ts'
import type { Bootstrap } from '../../rafs/index.ts'
import { createOutput, ExitError, type ProgressMode } from '../output.ts'
import type { CommonFlags } from './arguments.ts'
import { openBackend } from './blob-source.ts'
import { openNamedImage } from './bootstrap-file.ts'
import { withImageData } from './image-content.ts'
import { type Log, withLog } from './log.ts'
import { osError } from './os-error.ts'
import { toStdout } from './print-pieces.ts'

/** Values of `unpack`'s options, as the parser gives them. */
export interface UnpackFlags extends CommonFlags {
  readonly bootstrap?: string
  readonly blob?: string
  readonly blobDir?: string
  readonly backendType?: string
  readonly backendConfig?: string
  readonly backendConfigFile?: string
  readonly config?: string
  readonly output: string
  readonly progress: ProgressMode
}

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
    const backend = await backendOf(flags)
    try {
      const image = await openNamedImage(operand, flags.bootstrap)
      if (flags.blob !== undefined && image.blobs.length > 1)
        throw new ExitError(1, `the image has ${image.blobs.length} blobs, --blob gives one; use --blob-dir`)
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

const ADVICE = '--blob, --blob-dir or --backend-type must be specified'

async function backendOf(flags: UnpackFlags): Promise<Backend> {
  if (flags.blob !== undefined) return localfsBackend({ blobFile: flags.blob })
  if (flags.backendType !== undefined) return await typedBackend(flags.backendType, flags)
  const backend = await openBackend(flags)
  if (backend === undefined) throw new ExitError(1, `invalid backend configuration, ${ADVICE}`)
  return backend
}

/** The original's types; `localfs` is `--blob-dir`. */
const TYPES: ReadonlySet<string> = new Set(['oss', 's3', 'registry', 'localdisk', 'http-proxy'])

async function typedBackend(
  type: string,
  { backendConfig, backendConfigFile }: Pick<UnpackFlags, 'backendConfig' | 'backendConfigFile'>,
): Promise<Backend> {
  if (backendConfig === undefined && backendConfigFile === undefined)
    throw new ExitError(1, `--backend-config or --backend-config-file must be specified, ${ADVICE}`)
  const text = backendConfigFile === undefined ? (backendConfig ?? '') : await readConfig(backendConfigFile)
  if (type === 'localfs') throw new ExitError(1, `Use --blob-dir to specify localfs backend, ${ADVICE}`)
  if (!TYPES.has(type)) {
    const cause = new Error(`unsupported backend type '${type}'`)
    throw new ExitError(1, `Invalid argument (os error 22), ${ADVICE}`, { cause })
  }
  return (await import('./config.ts')).typedBackend(type, text)
}

async function readConfig(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    const cause = new Error(osError(error))
    throw new ExitError(1, `fail to read backend config file ${JSON.stringify(path)}, ${ADVICE}`, { cause })
  }
}
