import { type BigIntStats, constants } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { BackendError, fileFailure } from './errors.ts'

/** A blob's file. Others may go on reading while it is closed: it stays open until their reads have ended. */
export class OpenedFile {
  readonly path: string
  readonly openedSize: number
  readonly #handle: FileHandle
  readonly #identity: Pick<BigIntStats, 'dev' | 'ino'>

  constructor(handle: FileHandle, path: string, { dev, ino, size }: BigIntStats) {
    this.#handle = handle
    this.path = path
    this.openedSize = Number(size)
    this.#identity = { dev, ino }
  }

  async size(): Promise<number> {
    return (await this.#handle.stat()).size
  }

  /** Fills a part of `into`; gives the number of bytes, 0 at the file's end. */
  async read(into: Uint8Array, at: number, length: number, position: number): Promise<number> {
    return (await this.#handle.read(into, at, length, position)).bytesRead
  }

  isSameAs(other: OpenedFile): boolean {
    return this.#identity.dev === other.#identity.dev && this.#identity.ino === other.#identity.ino
  }

  /** Resolves when no read is under way. */
  close(): Promise<void> {
    return this.#handle.close()
  }
}

/** Opens a blob's file. Throws BackendError. */
export async function openFile(path: string, blobId: string): Promise<OpenedFile> {
  let handle: FileHandle | undefined
  try {
    // O_NONBLOCK: a FIFO in the blob's place would hang the open for ever.
    handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK)
    const info = await handle.stat({ bigint: true })
    if (!info.isFile())
      throw new BackendError('IO', `cannot open blob ${blobId}: ${path} is no file`, { retryable: false })
    return new OpenedFile(handle, path, info)
  } catch (error) {
    await handle?.close()
    throw fileFailure(`open blob ${blobId}`, error)
  }
}
