import { readFile } from 'node:fs/promises'
import type { Backend } from '../../backend/index.ts'
import { blobSourceOf, openSource, parseConfig } from '../../daemon/config/index.ts'
import { ExitError } from '../output.ts'
import { osError } from '../os-error.ts'

/** The place of blobs that a configuration document of nydusd names. */
export async function configuredBackend(path: string): Promise<Backend> {
  return openSource(await readSource(path)).backend
}

export async function readSource(path: string): Promise<ReturnType<typeof blobSourceOf>> {
  try {
    return blobSourceOf(parseConfig(await readFile(path, 'utf8'), path).config)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).syscall === undefined) throw error
    const cause = new Error(`cannot read ${path}: ${osError(error)}`)
    throw new ExitError(1, 'failed to get configuration information', { cause })
  }
}

/** A place of blobs as `--backend-type` and the JSON of its settings name it. `where` is what messages call the JSON. */
export function settledBackend(type: string, json: string, where: string): Backend {
  let settings: unknown
  try {
    settings = JSON.parse(json)
  } catch (cause) {
    throw new ExitError(1, 'failed to parse backend configuration', { cause })
  }
  const document = JSON.stringify({ version: 2, backend: { type, [type]: settings } })
  return openSource(blobSourceOf(parseConfig(document, where).config)).backend
}
