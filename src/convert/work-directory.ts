import { mkdir, mkdtemp, rm, rmdir } from 'node:fs/promises'
import { join } from 'node:path'
import { ConvertError } from './errors.ts'

/** Others that end at the same moment, one after another. */
const MOST_TRIES = 100

/** A folder of our own inside of the user's work directory; `dispose` removes it, and the work directory too when it was made for this. */
export interface WorkDirectory extends AsyncDisposable {
  readonly path: string
}

/** Makes the work directory when it is absent. Throws 'OUTPUT'. */
export async function openWorkDirectory(base: string): Promise<WorkDirectory> {
  try {
    const { path, isOurs } = await makeFolder(base)
    return {
      path,
      async [Symbol.asyncDispose]() {
        await rm(path, { recursive: true, force: true })
        if (isOurs) await removeWhenEmpty(base)
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

/** `isOurs`: the work directory was made for it. Another process may have made it before, and remove it before there is something in it. */
async function makeFolder(base: string): Promise<{ readonly path: string; readonly isOurs: boolean }> {
  let isOurs = false
  for (let tries = 1; ; tries++)
    try {
      if ((await mkdir(base, { recursive: true })) !== undefined) isOurs = true
      return { path: await mkdtemp(join(base, 'nydusify-')), isOurs }
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT' || tries === MOST_TRIES) throw error
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
