import { mkdir, mkdtemp, rm, rmdir } from 'node:fs/promises'
import { join } from 'node:path'
import { ConvertError } from './errors.ts'

/** A folder of our own inside of the user's work directory; `dispose` removes it, and the work directory too when it was made for this. */
export interface WorkDirectory extends AsyncDisposable {
  readonly path: string
}

/** Makes the work directory when it is absent. Throws 'OUTPUT'. */
export async function openWorkDirectory(base: string): Promise<WorkDirectory> {
  try {
    // The first folder that had to be made, if any.
    const made = await mkdir(base, { recursive: true })
    const path = await mkdtemp(join(base, 'nydusify-'))
    return {
      path,
      async [Symbol.asyncDispose]() {
        await rm(path, { recursive: true, force: true })
        if (made !== undefined) await removeWhenEmpty(base)
      },
    }
  } catch (cause) {
    throw new ConvertError(
      'OUTPUT',
      `cannot use work directory ${base}: ${(cause as Error).message}; choose another with --work-dir`,
      { cause },
    )
  }
}

/** Another process may use the folder meanwhile: its files stay. */
async function removeWhenEmpty(path: string): Promise<void> {
  try {
    await rmdir(path)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code !== 'ENOTEMPTY' && code !== 'EEXIST' && code !== 'ENOENT') throw error
  }
}
