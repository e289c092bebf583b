import { type Backend, localfsBackend } from '../../backend/index.ts'
import { ExitError } from '../output.ts'

/** Where the flags say that blobs are; undefined when they do not say. */
export async function openBackend(flags: { readonly blobDir?: string; readonly config?: string }): Promise<Backend | undefined> {
  if (flags.config !== undefined) await checkConfig(flags.config)
  return flags.blobDir === undefined ? undefined : localfsBackend({ dir: flags.blobDir })
}

export async function checkConfig(path: string): Promise<void> {
  throw new ExitError(1, `--config ${path} is not supported by this version of nydus-image`)
}
