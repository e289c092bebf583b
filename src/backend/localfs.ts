import { constants } from 'node:fs'
import type { FileHandle } from 'node:fs/promises'
import { open, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { Backend, BlobReader, ReadOptions } from './backend.ts'
import { abortedRead, BackendError, checkBlobId, checkRange, fileFailure } from './errors.ts'

/** Where blobs lie. At least one of `blobFile` and `dir`. */
export interface LocalfsOptions {
  /** One file for every blob id. Wins over `dir`. */
  readonly blobFile?: string
  /** Blobs are files in it, named by their ids. */
  readonly dir?: string
  /** Looked into, in order, when `dir` has no such file or an empty one. */
  readonly altDirs?: readonly string[]
}

/** Bytes of one positional read: between two the signal is looked at, and the reader is told how far it is. */
const PIECE_BYTES = 1 << 20

/**
 * Blobs as files. A blob is found and opened by `open`, which is where a missing one is 'NOT_FOUND'; replaced by rename later, the reader keeps the old
 * file. Throws 'BAD_OPTION'.
 */
export function localfsBackend(options: LocalfsOptions): Backend {
  const { blobFile = '', dir = '' } = options
  if (blobFile === '' && dir === '')
    throw new BackendError('BAD_OPTION', 'cannot use backend localfs: give it "blob_file" or "dir"')
  return new LocalfsBackend(options)
}

class LocalfsBackend implements Backend {
  readonly name = 'localfs'
  readonly #options: LocalfsOptions
  readonly #readers = new Set<FileReader>()
  #closed = false

  constructor(options: LocalfsOptions) {
    this.#options = options
  }

  async open(blobId: string): Promise<BlobReader> {
    this.#check(blobId)
    const reader = await openFile(await this.#locate(blobId), blobId, (ended) => this.#readers.delete(ended))
    if (this.#closed) await reader.close()
    this.#check(blobId)
    this.#readers.add(reader)
    return reader
  }

  async close(): Promise<void> {
    this.#closed = true
    await Promise.all([...this.#readers].map((reader) => reader.close()))
  }

  #check(blobId: string): void {
    if (this.#closed) throw new BackendError('CLOSED', `cannot open blob ${blobId}: the backend was closed`)
  }

  /** The first place with a file that is not empty: an empty one may be a download that never began. */
  async #locate(blobId: string): Promise<string> {
    const places = this.#places(blobId)
    let empty: string | undefined
    for (const path of places) {
      const size = await sizeOf(path, blobId)
      if (size !== undefined && size > 0) return path
      if (size === 0) empty ??= path
    }
    if (empty !== undefined) return empty
    throw new BackendError(
      'NOT_FOUND',
      `cannot open blob ${blobId}: there is no ${places.join(', ')}; put the blob there, or correct the backend's "dir"`,
    )
  }

  #places(blobId: string): string[] {
    const { blobFile = '', dir = '', altDirs = [] } = this.#options
    if (blobFile !== '') return [blobFile]
    checkBlobId(blobId)
    return [dir, ...altDirs].map((folder) => join(folder, blobId))
  }
}

async function sizeOf(path: string, blobId: string): Promise<number | undefined> {
  try {
    return (await stat(path)).size
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined
    throw fileFailure(`open blob ${blobId}`, error)
  }
}

async function openFile(path: string, blobId: string, onClose: (reader: FileReader) => void): Promise<FileReader> {
  let file: FileHandle | undefined
  try {
    // O_NONBLOCK: a FIFO in the blob's place would hang the open for ever.
    file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK)
    const info = await file.stat()
    if (!info.isFile()) throw new BackendError('IO', `cannot open blob ${blobId}: ${path} is no file`, NEVER)
    return new FileReader({ file, path, blobId, openedSize: info.size, onClose })
  } catch (error) {
    await file?.close()
    throw fileFailure(`open blob ${blobId}`, error)
  }
}

const NEVER = { retryable: false } as const

class FileReader implements BlobReader {
  readonly #openedSize: number
  readonly #file: FileHandle
  readonly #path: string
  readonly #blobId: string
  readonly #onClose: (reader: FileReader) => void
  #closing: Promise<void> | undefined

  constructor(parts: {
    file: FileHandle
    path: string
    blobId: string
    openedSize: number
    onClose: (reader: FileReader) => void
  }) {
    this.#file = parts.file
    this.#path = parts.path
    this.#blobId = parts.blobId
    this.#openedSize = parts.openedSize
    this.#onClose = parts.onClose
  }

  /** Asks anew: the file may still be growing. */
  async size(signal: AbortSignal): Promise<number> {
    const what = `find the size of blob ${this.#blobId}`
    this.#check(what, signal)
    try {
      return (await this.#file.stat()).size
    } catch (error) {
      throw this.#failure(what, error)
    }
  }

  async read(compressedOffset: number, into: Uint8Array, options: ReadOptions): Promise<void> {
    const what = `read ${into.length} bytes at ${compressedOffset} of blob ${this.#blobId}`
    checkRange(what, compressedOffset, into.length)
    this.#check(what, options.signal)
    for (let filled = 0; filled < into.length; ) {
      const wanted = Math.min(PIECE_BYTES, into.length - filled)
      const got = await this.#readPiece(what, into, { at: filled, wanted, position: compressedOffset + filled })
      if (got === 0) throw await this.#truncated(what, filled)
      filled += got
      options.onFilled?.(filled)
      if (filled < into.length) this.#check(what, options.signal)
    }
  }

  close(): Promise<void> {
    // `FileHandle.close` waits for the reads that are under way.
    this.#closing ??= this.#file.close().finally(() => this.#onClose(this))
    return this.#closing
  }

  async #readPiece(
    what: string,
    into: Uint8Array,
    piece: { at: number; wanted: number; position: number },
  ): Promise<number> {
    try {
      return (await this.#file.read(into, piece.at, piece.wanted, piece.position)).bytesRead
    } catch (error) {
      throw this.#failure(what, error)
    }
  }

  async #truncated(what: string, filled: number): Promise<BackendError> {
    const now = await this.#file.stat().then(
      (info) => info.size,
      () => undefined, // closed meanwhile: the message does without
    )
    const shrunk = now !== undefined && now < this.#openedSize
    const hint = shrunk
      ? `it was cut from ${this.#openedSize} to ${now} bytes while it was open; restore the blob`
      : `it has ${now ?? this.#openedSize} bytes; the blob is incomplete, or the image belongs to another one`
    return new BackendError('TRUNCATED', `cannot ${what}: ${this.#path} ended after ${filled}: ${hint}`, NEVER)
  }

  #check(what: string, signal: AbortSignal): void {
    if (this.#closing !== undefined) throw new BackendError('CLOSED', `cannot ${what}: it was closed`)
    if (signal.aborted) throw abortedRead(what, signal)
  }

  #failure(what: string, error: unknown): BackendError {
    if (this.#closing !== undefined) return new BackendError('CLOSED', `cannot ${what}: it was closed`)
    return new BackendError('IO', `cannot ${what} (${this.#path}): ${(error as Error).message}`, { cause: error })
  }
}
