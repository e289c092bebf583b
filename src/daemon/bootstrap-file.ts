import { open } from 'node:fs/promises'
import { basename } from 'node:path'
import { type Bootstrap, Attributes, isType, MODE, openBootstrap, RafsError } from '../rafs/index.ts'
import { DaemonError, messageOf } from './errors.ts'

/** A bootstrap in memory that all threads share. */
export interface LoadedBootstrap {
  readonly bytes: Uint8Array<SharedArrayBuffer>
  /** From the file's name: what a bootstrap is called that came out of its own blob. */
  readonly inlinedBlobId: string | undefined
  readonly bootstrap: Bootstrap
}

/** Larger ones would not fit memory, and no real image comes near. */
const MAX_BYTES = 2 ** 31

/** Reads and opens a bootstrap file. Throws DaemonError 'BAD_IMAGE'. */
export async function loadBootstrap(path: string): Promise<LoadedBootstrap> {
  const bytes = await readShared(path)
  const [id = ''] = basename(path).split('.')
  const inlinedBlobId = /^[0-9a-f]{64}$/.test(id) ? id : undefined
  try {
    const bootstrap = openBootstrap(bytes, { inlinedBlobId })
    const root = new Attributes()
    bootstrap.attributes(bootstrap.root, root)
    if (!isType(root.mode, MODE.DIRECTORY)) throw new RafsError('BAD_INODE', 'its root is no directory')
    return { bytes, inlinedBlobId, bootstrap }
  } catch (error) {
    if (!(error instanceof RafsError)) throw error
    throw badImage(`cannot use bootstrap ${path}: ${error.message}`, 'invalid RAFS superblock', error)
  }
}

async function readShared(path: string): Promise<Uint8Array<SharedArrayBuffer>> {
  try {
    await using file = await open(path, 'r')
    const info = await file.stat()
    if (info.isDirectory()) throw Object.assign(new Error('it is a directory'), { code: 'EISDIR' })
    if (!info.isFile() || info.size > MAX_BYTES) throw new Error(`it is no file of at most ${MAX_BYTES} bytes`)
    const bytes = new Uint8Array(new SharedArrayBuffer(info.size))
    for (let done = 0; done < bytes.length; ) {
      const { bytesRead } = await file.read(bytes, done, bytes.length - done, done)
      if (bytesRead === 0) throw new Error('it became shorter while it was read')
      done += bytesRead
    }
    return bytes
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    const wire = OS_TEXTS[code ?? ''] ?? 'Input/output error (os error 5)'
    throw badImage(`cannot read bootstrap ${path}: ${messageOf(error)}`, wire, error)
  }
}

/** How upstream's API words them. */
const OS_TEXTS: Readonly<Record<string, string>> = {
  ENOENT: 'No such file or directory (os error 2)',
  EACCES: 'Permission denied (os error 13)',
  ENOTDIR: 'Not a directory (os error 20)',
  EISDIR: 'Is a directory (os error 21)',
}

function badImage(message: string, wire: string, cause: unknown): DaemonError {
  return new DaemonError('BAD_IMAGE', message, {
    cause,
    wire: `RAFS failed to handle request, Failed to fill superBlock: ${wire}\``,
  })
}
