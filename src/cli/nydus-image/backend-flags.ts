import { readFile } from 'node:fs/promises'
import { type Backend, localfsBackend } from '../../backend/index.ts'
import type { Bootstrap } from '../../rafs/index.ts'
import { ExitError } from '../output.ts'
import { openBackend } from './blob-source.ts'
import { osError } from '../os-error.ts'

/** Values of the options that say where blobs are, as the parser gives them. */
export interface BackendFlags {
  readonly blob?: string | undefined
  readonly blobDir?: string | undefined
  readonly backendType?: string | undefined
  readonly backendConfig?: string | undefined
  readonly backendConfigFile?: string | undefined
  readonly config?: string | undefined
}

/** Opens the place of blobs that the flags name. `advice` ends the messages when they name none that can be used. */
export async function backendOf(flags: BackendFlags, advice: string): Promise<Backend> {
  if (flags.blob !== undefined) return localfsBackend({ blobFile: flags.blob })
  if (flags.backendType !== undefined) return await typedBackend(flags.backendType, flags, advice)
  const backend = await openBackend(flags)
  if (backend === undefined) throw new ExitError(1, `invalid backend configuration, ${advice}`)
  return backend
}

/** A single file is the data of one blob. `places` are the flags that `backendOf` was given. */
export function checkOneBlob(places: BackendFlags, image: Bootstrap): void {
  if (places.blob !== undefined && image.blobs.length > 1)
    throw new ExitError(1, `the image has ${image.blobs.length} blobs, --blob gives one; use --blob-dir`)
}

/** The original's types; `localfs` is `--blob-dir`. */
const TYPES: ReadonlySet<string> = new Set(['oss', 's3', 'registry', 'localdisk', 'http-proxy'])

async function typedBackend(
  type: string,
  { backendConfig, backendConfigFile }: BackendFlags,
  advice: string,
): Promise<Backend> {
  if (backendConfig === undefined && backendConfigFile === undefined)
    throw new ExitError(1, `--backend-config or --backend-config-file must be specified, ${advice}`)
  const text = backendConfigFile === undefined ? (backendConfig ?? '') : await readConfig(backendConfigFile, advice)
  if (type === 'localfs') throw new ExitError(1, `Use --blob-dir to specify localfs backend, ${advice}`)
  if (!TYPES.has(type)) {
    const cause = new Error(`unsupported backend type '${type}'`)
    throw new ExitError(1, `Invalid argument (os error 22), ${advice}`, { cause })
  }
  const where = backendConfigFile ?? '--backend-config'
  return (await import('./config.ts')).settledBackend(type, text, where)
}

async function readConfig(path: string, advice: string): Promise<string> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    const cause = new Error(osError(error))
    throw new ExitError(1, `fail to read backend config file ${JSON.stringify(path)}, ${advice}`, { cause })
  }
}
