import { readFile } from 'node:fs/promises'
import { basename } from 'node:path'
import { type Bootstrap, openBootstrap, RafsError } from '../../rafs/index.ts'
import { ExitError } from '../output.ts'
import { osError } from './os-error.ts'

/** Opens a bootstrap from its file. One that came out of its own blob does not know the blob's id: the name of the file, up to the first dot, is it. */
export async function openBootstrapFile(path: string): Promise<Bootstrap> {
  const bytes = await readBootstrap(path)
  if (bytes.length === 0)
    throw new ExitError(1, 'failed to fill whole buffer', { cause: new Error(`${path} is empty`) })
  try {
    return openBootstrap(bytes, { inlinedBlobId: blobIdOf(path) })
  } catch (error) {
    if (!(error instanceof RafsError)) throw error
    const cause = new Error(`${path}: ${error.message}`)
    if (error.code === 'NOT_RAFS') throw new ExitError(1, 'invalid RAFS superblock', { cause })
    throw new ExitError(1, 'failed to load the bootstrap', { cause })
  }
}

export function blobIdOf(path: string): string {
  const [id = ''] = basename(path).split('.')
  return id
}

async function readBootstrap(path: string): Promise<Uint8Array> {
  try {
    return await readFile(path)
  } catch (error) {
    throw new ExitError(1, `cannot read the bootstrap ${path}`, { cause: new Error(osError(error)) })
  }
}
