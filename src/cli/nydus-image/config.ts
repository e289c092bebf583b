import { readFile } from 'node:fs/promises'
import { type Backend, localfsBackend } from '../../backend/index.ts'
import { backendOf, blobSourceOf, parseConfig } from '../../daemon/config/index.ts'
import { ExitError } from '../output.ts'
import { osError } from './os-error.ts'

/** Where the flags say that blobs are; undefined when they do not say. */
export async function openBackend(flags: { readonly blobDir?: string; readonly config?: string }): Promise<Backend | undefined> {
  if (flags.config !== undefined) return backendOf(await readSource(flags.config), () => undefined).backend
  return flags.blobDir === undefined ? undefined : localfsBackend({ dir: flags.blobDir })
}

/** For commands that take a configuration and have no need of blobs: a mistake in it is told all the same. */
export async function checkConfig(path: string): Promise<void> {
  await readSource(path)
}

async function readSource(path: string): Promise<ReturnType<typeof blobSourceOf>> {
  try {
    return blobSourceOf(parseConfig(await readFile(path, 'utf8'), path).config)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).syscall === undefined) throw error
    throw new ExitError(1, `failed to get configuration information`, { cause: new Error(`cannot read ${path}: ${osError(error)}`) })
  }
}
