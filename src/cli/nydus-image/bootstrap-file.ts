import { createHash } from 'node:crypto'
import { constants } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { basename } from 'node:path'
import { BOOTSTRAP_TAIL_BYTES, BlobError, locateBootstrap, type TocEntry } from '../../blob/index.ts'
import { decompressor } from '../../codec/index.ts'
import { type Bootstrap, openBootstrap, RafsError } from '../../rafs/index.ts'
import { ExitError } from '../output.ts'
import { osError } from '../os-error.ts'

/** No bootstrap is larger; a blob may be. */
const MAX_BOOTSTRAP_BYTES = 0x4000_0000

/** The file was read, and is no image that can be used. */
export class ImageError extends ExitError {
  /** Something else than an image, as far as it can be told; not an image that is damaged. */
  readonly isOther: boolean

  constructor(message: string, { cause, isOther }: { readonly cause: Error; readonly isOther: boolean }) {
    super(1, message, { cause })
    this.isOther = isOther
  }
}

/** Opens a bootstrap from its file. One that came out of its own blob does not know the blob's id: the name of the file, up to the first dot, is it. */
export async function openBootstrapFile(path: string): Promise<Bootstrap> {
  return opened(path, await withFile(path, (file) => readWhole(file, path)))
}

/** The image that a command is asked about. An operand may also be a blob that carries its bootstrap; with -B other programs mean a bootstrap and nothing else. */
export async function openNamedImage(operand: string | undefined, bootstrap: string | undefined): Promise<Bootstrap> {
  return (await readNamedImage(operand, bootstrap)).image
}

/** The same, with the bytes of its bootstrap. */
export async function readNamedImage(
  operand: string | undefined,
  bootstrap: string | undefined,
): Promise<{ readonly image: Bootstrap; readonly bytes: Uint8Array }> {
  const path = bootstrap ?? operand ?? ''
  const bytes = await withFile(path, async (file) => {
    const inlined = bootstrap === undefined ? await readInlined(file, path) : undefined
    return inlined ?? (await readWhole(file, path))
  })
  return { image: opened(path, bytes), bytes }
}

export function blobIdOf(path: string): string {
  const [id = ''] = basename(path).split('.')
  return id
}

function opened(path: string, bytes: Uint8Array): Bootstrap {
  if (bytes.length === 0)
    throw new ImageError('failed to fill whole buffer', { cause: new Error(`${path} is empty`), isOther: true })
  try {
    return openBootstrap(bytes, { inlinedBlobId: blobIdOf(path) })
  } catch (error) {
    if (!(error instanceof RafsError)) throw error
    const cause = new Error(`${path}: ${error.message}`)
    if (error.code === 'NOT_RAFS') throw new ImageError('invalid RAFS superblock', { cause, isOther: true })
    throw new ImageError('failed to load the bootstrap', { cause, isOther: false })
  }
}

async function withFile(path: string, read: (file: FileHandle) => Promise<Uint8Array>): Promise<Uint8Array> {
  let file: FileHandle | undefined
  try {
    file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK) // a FIFO there must not hang us
    return await read(file)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).syscall === undefined) throw error
    throw new ExitError(1, `cannot read the bootstrap ${path}`, { cause: new Error(osError(error)) })
  } finally {
    await file?.close()
  }
}

async function readWhole(file: FileHandle, path: string): Promise<Uint8Array> {
  const stats = await file.stat()
  const { size } = stats
  // A directory says so itself when it is read.
  if (!stats.isFile() && !stats.isDirectory())
    throw new ExitError(1, `cannot read the bootstrap ${path}`, { cause: new Error('it is not a regular file') })
  if (size > MAX_BOOTSTRAP_BYTES) {
    const cause = new Error(`${path} has ${size} bytes, more than any bootstrap; is it a data blob?`)
    throw new ImageError('invalid RAFS superblock', { cause, isOther: false })
  }
  return await file.readFile()
}

/** The bootstrap in a blob; undefined for a file that is no such blob. */
async function readInlined(file: FileHandle, path: string): Promise<Uint8Array | undefined> {
  const stats = await file.stat()
  if (!stats.isFile()) return undefined
  const tailSize = Math.min(stats.size, BOOTSTRAP_TAIL_BYTES)
  try {
    const part = locateBootstrap(await readAt(file, stats.size - tailSize, tailSize), stats.size)
    return part && unpacked(part, await readAt(file, part.compressedOffset, part.compressedSize))
  } catch (error) {
    if (!(error instanceof BlobError)) throw error
    const cause = new Error(`blob ${path}: ${error.message}`)
    throw new ImageError('failed to load the bootstrap', { cause, isOther: false })
  }
}

function unpacked(part: TocEntry, stored: Uint8Array): Uint8Array {
  const plain = new Uint8Array(part.uncompressedSize)
  try {
    decompressor(part.compression).decompress(stored, plain)
  } catch (cause) {
    throw new BlobError('BAD_TOC', `its bootstrap cannot be decompressed: ${(cause as Error).message}`, { cause })
  }
  const digest = createHash('sha256').update(plain).digest()
  if (part.digest === undefined || digest.equals(part.digest)) return plain
  throw new BlobError('BAD_TOC', 'its bootstrap does not have the digest that the table of contents says')
}

async function readAt(file: FileHandle, position: number, size: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(size)
  for (let read = 0; read < size; ) {
    const { bytesRead } = await file.read(bytes, read, size - read, position + read)
    if (bytesRead === 0) throw new BlobError('BAD_TOC', `it ends at byte ${position + read}, before its bootstrap does`)
    read += bytesRead
  }
  return bytes
}
