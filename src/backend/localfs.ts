import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { Backend, BlobReader, ReadOptions } from './backend.ts'
import { abortedRead, BackendError, checkBlobId, checkRange, fileFailure } from './errors.ts'
import { openFile, type OpenedFile } from './opened-file.ts'

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
 * file, until that turns out to be wrong or cannot be read: then it takes the one that is there. Throws 'BAD_OPTION'.
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
    const find = async (): Promise<OpenedFile> => await openFile(await this.#locate(blobId), blobId)
    const reader = new FileReader({ file: await find(), blobId, find, onClose: () => this.#readers.delete(reader) })
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

const NEVER = { retryable: false } as const

interface FileReaderParts {
  readonly file: OpenedFile
  readonly blobId: string
  /** Opens what is in the blob's place now. Throws BackendError. */
  readonly find: () => Promise<OpenedFile>
  readonly onClose: () => void
}

class FileReader implements BlobReader {
  readonly #parts: FileReaderParts
  #file: OpenedFile
  #renewal: Promise<boolean> | undefined
  #closing: Promise<void> | undefined

  constructor(parts: FileReaderParts) {
    this.#parts = parts
    this.#file = parts.file
  }

  /** Asks anew: the file may still be growing. */
  async size(signal: AbortSignal): Promise<number> {
    const what = `find the size of blob ${this.#parts.blobId}`
    this.#check(what, signal)
    try {
      return await this.#file.size()
    } catch (error) {
      throw this.#failure(what, error)
    }
  }

  async read(compressedOffset: number, into: Uint8Array, options: ReadOptions): Promise<void> {
    const what = `read ${into.length} bytes at ${compressedOffset} of blob ${this.#parts.blobId}`
    checkRange(what, compressedOffset, into.length)
    this.#check(what, options.signal)
    if (options.afterWrongBytes === true) await this.#renew()
    for (let filled = 0; filled < into.length; ) {
      this.#check(what, options.signal)
      const wanted = Math.min(PIECE_BYTES, into.length - filled)
      const file = this.#file
      const got = await this.#readPiece(what, file, into, { at: filled, wanted, position: compressedOffset + filled })
      if (got === 0) {
        if ((await this.#renew()) && filled === 0) continue
        throw await this.#truncated(what, file, filled)
      }
      filled += got
      options.onFilled?.(filled)
    }
  }

  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    try {
      await this.#renewal // it closes one of its two files
      await this.#file.close()
    } finally {
      this.#parts.onClose()
    }
  }

  async #readPiece(
    what: string,
    file: OpenedFile,
    into: Uint8Array,
    piece: { at: number; wanted: number; position: number },
  ): Promise<number> {
    try {
      return await file.read(into, piece.at, piece.wanted, piece.position)
    } catch (error) {
      await this.#renew() // on a network file system a replaced one is stale: the next try has the new one
      throw this.#failure(what, error)
    }
  }

  /** Goes on with the file that is in the blob's place now. False when that is the one that is open, or none can be opened. */
  #renew(): Promise<boolean> {
    this.#renewal ??= this.#replace().finally(() => (this.#renewal = undefined))
    return this.#renewal
  }

  async #replace(): Promise<boolean> {
    const before = this.#file
    let found: OpenedFile
    try {
      found = await this.#parts.find()
    } catch (error) {
      if (!(error instanceof BackendError)) throw error
      return false // what the read itself failed with is told
    }
    const isOther = !found.isSameAs(before) && this.#closing === undefined
    if (isOther) this.#file = found
    await (isOther ? before : found).close()
    return isOther
  }

  async #truncated(what: string, file: OpenedFile, filled: number): Promise<BackendError> {
    const { openedSize } = file
    const now = await file.size().catch(() => undefined) // closed meanwhile: the message does without
    const shrunk = now !== undefined && now < openedSize
    const hint = shrunk
      ? `it was cut from ${openedSize} to ${now} bytes while it was open; restore the blob`
      : `it has ${now ?? openedSize} bytes; the blob is incomplete, or the image belongs to another one`
    return new BackendError('TRUNCATED', `cannot ${what}: ${file.path} ended after ${filled}: ${hint}`, NEVER)
  }

  #check(what: string, signal: AbortSignal): void {
    if (this.#closing !== undefined) throw new BackendError('CLOSED', `cannot ${what}: it was closed`)
    if (signal.aborted) throw abortedRead(what, signal)
  }

  #failure(what: string, error: unknown): BackendError {
    if (this.#closing !== undefined) return new BackendError('CLOSED', `cannot ${what}: it was closed`)
    return new BackendError('IO', `cannot ${what} (${this.#file.path}): ${(error as Error).message}`, { cause: error })
  }
}
