import { createHash } from 'node:crypto'
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { ExitError } from '../output.ts'

/** Where a bootstrap is written to: a file, or a folder in which its digest names it. */
export interface PlaceFlags {
  readonly bootstrap?: string
  readonly blobDir?: string
}

/** Throws ExitError when the flags name no place. */
export async function checkPlace({ bootstrap, blobDir }: PlaceFlags): Promise<void> {
  if (bootstrap !== undefined) return
  if (blobDir === undefined) {
    const advice = 'please specify one to store the generated metadata blob file'
    throw new ExitError(1, `both --bootstrap and --blob-dir are missing, ${advice}`)
  }
  try {
    if ((await stat(blobDir)).isDirectory()) return
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
  }
  throw new ExitError(1, 'Directory to store blobs does not exist')
}

/** The path of the file, of flags that were checked. */
export function placeOf({ bootstrap, blobDir = '.' }: PlaceFlags, bytes: Uint8Array): string {
  return bootstrap ?? join(blobDir, createHash('sha256').update(bytes).digest('hex'))
}
