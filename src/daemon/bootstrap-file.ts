import { createHash } from 'node:crypto'
import { constants } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { basename } from 'node:path'
import { type Bootstrap, Attributes, isType, MODE, openBootstrap, RafsError } from '../rafs/index.ts'
import { BOOTSTRAP_TAIL_BYTES, locateBootstrap } from '../blob/index.ts'
import { decompressor } from '../codec/index.ts'
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

/** Reads and opens a bootstrap file, or the bootstrap in a blob that carries its own. Throws DaemonError 'BAD_IMAGE'. */
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
    // O_NONBLOCK: a FIFO there would hang this mount, and with it all that come after
    await using file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK)
    const info = await file.stat()
    if (info.isDirectory()) throw Object.assign(new Error('it is a directory'), { code: 'EISDIR' })
    if (!info.isFile()) throw new Error('it is no file')
    return (await readInlined(file, info.size)) ?? (await readPart(file, 0, info.size))
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    const wire = OS_TEXTS[code ?? ''] ?? 'Input/output error (os error 5)'
    throw badImage(`cannot read bootstrap ${path}: ${messageOf(error)}`, wire, error)
  }
}

/** The bootstrap of a blob that carries its own; undefined for another file. */
async function readInlined(file: FileHandle, size: number): Promise<Uint8Array<SharedArrayBuffer> | undefined> {
  const tailBytes = Math.min(size, BOOTSTRAP_TAIL_BYTES)
  const part = locateBootstrap(await readPart(file, size - tailBytes, tailBytes), size)
  if (part === undefined) return undefined
  const stored = await readPart(file, part.compressedOffset, part.compressedSize)
  const plain = new Uint8Array(new SharedArrayBuffer(part.uncompressedSize))
  decompressor(part.compression).decompress(stored, plain)
  if (part.digest !== undefined && !createHash('sha256').update(plain).digest().equals(part.digest))
    throw new Error('the bootstrap in it does not have the digest that its table of contents says; the blob is damaged')
  return plain
}

async function readPart(file: FileHandle, from: number, size: number): Promise<Uint8Array<SharedArrayBuffer>> {
  if (size > MAX_BYTES) throw new Error(`it has ${size} bytes, and a bootstrap has at most ${MAX_BYTES}`)
  const bytes = new Uint8Array(new SharedArrayBuffer(size))
  for (let done = 0; done < size; ) {
    const { bytesRead } = await file.read(bytes, done, size - done, from + done)
    if (bytesRead === 0) throw new Error('it became shorter while it was read')
    done += bytesRead
  }
  return bytes
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
