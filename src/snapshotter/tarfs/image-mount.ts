import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { KernelError, mountErofs, readMountInfo } from '../../kernel/index.ts'
import { SnapshotterError } from '../errors.ts'

const run = promisify(execFile)
const ENOTBLK = 15
const PROGRAM_MS = 60_000

export async function isMounted(at: string): Promise<boolean> {
  return (await readMountInfo()).some((entry) => entry.at === at)
}

/** Mounts an EROFS image with the files of its devices, in their order in its table. Kernels before 6.12 take only block devices: files become some then, which go away with the mount. */
export async function mountImage(
  image: string,
  at: string,
  devices: readonly string[],
  isFileTaken = mountErofs,
): Promise<void> {
  try {
    return await isFileTaken(image, at, devices)
  } catch (error) {
    if (!(error instanceof KernelError) || error.errno !== ENOTBLK) throw coded(error, at)
  }
  const loops: string[] = []
  try {
    for (const file of [image, ...devices]) loops.push(await attach(file))
    const [first = '', ...more] = loops
    await mountErofs(first, at, more)
  } catch (error) {
    throw coded(error, at)
  } finally {
    // A device in use goes when its user does.
    for (const loop of loops) await run('losetup', ['-d', loop], { timeout: PROGRAM_MS })
  }
}

async function attach(file: string): Promise<string> {
  const { stdout } = await run('losetup', ['--find', '--show', '--read-only', file], { timeout: PROGRAM_MS })
  return stdout.trim()
}

function coded(error: unknown, at: string): SnapshotterError {
  return new SnapshotterError('INTERNAL', `cannot mount the image at ${at}: ${(error as Error).message}`, {
    cause: error,
  })
}
