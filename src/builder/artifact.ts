import { randomBytes } from 'node:crypto'
import { constants, type Stats } from 'node:fs'
import { type FileHandle, lstat, open, rename, rm, stat } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { BuilderError } from './errors.ts'

const BUFFER_BYTES = 1024 * 1024
/** Pieces from here on are worth a system call of their own. */
const LARGE_BYTES = 64 * 1024
/** While a file is written, the disk is kept busy with what it has so far: at the end there is little left to wait for. */
const SYNC_BYTES = 16 * 1024 * 1024

/**
 * A file that is there whole or not at all: written under a temporary name beside its place, flushed to disk, renamed, and the folder flushed.
 * A crash leaves at most the temporary file. A FIFO or device that exists already is written as it is: it is somebody's pipe.
 */
export class Artifact {
  readonly path: string
  readonly #file: FileHandle
  /** Undefined for a pipe, which is neither renamed nor removed. */
  readonly #temporary: string | undefined
  readonly #buffer = Buffer.allocUnsafe(BUFFER_BYTES)
  #buffered = 0
  #size = 0
  /** Where the next bytes go; of a pipe that is where they are. */
  #position = 0
  #hasHoleAtEnd = false
  #open = true
  #isPublished = false
  /** The file that appeared where there was none. */
  #made: string | undefined
  #unsynced = 0
  #syncing: Promise<void> | undefined

  private constructor(path: string, file: FileHandle, temporary: string | undefined) {
    this.path = path
    this.#file = file
    this.#temporary = temporary
  }

  /** Opens the place for `path`. For a FIFO it waits for its reader. */
  static async create(path: string): Promise<Artifact> {
    await refuseDirectory(path)
    if (await isPipe(path)) return new Artifact(path, await opened(path, constants.O_WRONLY), undefined)
    return await Artifact.#createFile(path)
  }

  /** A file in a folder whose name `publish` is given; until then it is called by its kind. */
  static async createIn(folder: string, kind: string): Promise<Artifact> {
    return await Artifact.#createFile(join(folder, kind))
  }

  static async #createFile(path: string): Promise<Artifact> {
    const temporary = join(dirname(path), `.${basename(path).slice(0, 128)}.${randomBytes(6).toString('hex')}.tmp`)
    const flags = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL
    return new Artifact(path, await opened(temporary, flags, path), temporary)
  }

  /** Bytes written so far. */
  get size(): number {
    return this.#size
  }

  /** Where the bytes can be read again before they are published; undefined for a pipe. */
  get temporaryPath(): string | undefined {
    return this.#temporary
  }

  async write(bytes: Uint8Array): Promise<void> {
    this.#size += bytes.length
    if (bytes.length >= LARGE_BYTES || this.#buffered + bytes.length > BUFFER_BYTES) await this.flush()
    if (bytes.length >= LARGE_BYTES) return await this.#writeAll(bytes)
    this.#buffer.set(bytes, this.#buffered)
    this.#buffered += bytes.length
  }

  /** Leaves bytes out, which read as zeros and take no space; a pipe gets them written. */
  async skip(length: number): Promise<void> {
    await this.flush()
    if (this.#temporary === undefined) {
      const zeros = new Uint8Array(Math.min(length, BUFFER_BYTES))
      for (let left = length; left > 0; left -= zeros.length)
        await this.write(zeros.subarray(0, Math.min(left, zeros.length)))
      return
    }
    this.#size += length
    this.#position += length
    this.#hasHoleAtEnd = true
  }

  async flush(): Promise<void> {
    const length = this.#buffered
    this.#buffered = 0
    if (length > 0) await this.#writeAll(this.#buffer.subarray(0, length))
  }

  /** Brings all bytes to the disk: nothing that `publish` still does needs room there. */
  async settle(): Promise<void> {
    try {
      await this.flush()
      if (this.#temporary === undefined) return
      await this.#syncing
      if (this.#hasHoleAtEnd) await this.#file.truncate(this.#size)
      await this.#file.sync()
    } catch (cause) {
      if (cause instanceof BuilderError) throw cause
      throw new BuilderError('OUTPUT', `cannot write ${this.path}: ${messageOf(cause)}`, { cause })
    }
  }

  /** Makes the file be there, under `name` in its folder when its name became known only now. Gives its path. */
  async publish(name?: string): Promise<string> {
    const path = name === undefined ? this.path : join(dirname(this.path), name)
    try {
      await this.settle()
      await this.#close()
      if (this.#temporary === undefined) return path
      const isNew = (await statOrUndefined(path, lstat)) === undefined
      await rename(this.#temporary, path)
      this.#isPublished = true
      if (isNew) this.#made = path
      await syncFolder(dirname(path))
      return path
    } catch (cause) {
      if (cause instanceof BuilderError) throw cause
      throw new BuilderError('OUTPUT', `cannot write ${path}: ${messageOf(cause)}`, { cause })
    }
  }

  /** Gives it up: nothing is left behind. Does nothing after `publish`. */
  async discard(): Promise<void> {
    if (this.#open) await this.#close()
    if (this.#temporary !== undefined && !this.#isPublished) await rm(this.#temporary, { force: true })
  }

  /** Takes back what `publish` let appear, also when it failed then. What was there before, which it replaced, is not to be had again: the new file stays. */
  async retract(): Promise<void> {
    if (this.#made === undefined) return
    try {
      await rm(this.#made, { force: true })
    } catch (cause) {
      throw new BuilderError('OUTPUT', `cannot remove ${this.#made} again: ${messageOf(cause)}`, { cause })
    }
  }

  async #writeAll(bytes: Uint8Array): Promise<void> {
    try {
      for (let at = 0; at < bytes.length; ) {
        const place = this.#temporary === undefined ? null : this.#position
        const { bytesWritten } = await this.#file.write(bytes, at, bytes.length - at, place)
        at += bytesWritten
        this.#position += bytesWritten
      }
      if (bytes.length > 0) this.#hasHoleAtEnd = false
      this.#syncNow(bytes.length)
    } catch (cause) {
      throw new BuilderError('OUTPUT', `cannot write ${this.path}: ${messageOf(cause)}`, { cause })
    }
  }

  #syncNow(written: number): void {
    this.#unsynced += written
    if (this.#unsynced < SYNC_BYTES || this.#syncing !== undefined || this.#temporary === undefined) return
    this.#unsynced = 0
    this.#syncing = this.#file.datasync().then(() => {
      this.#syncing = undefined
    })
    this.#syncing.catch(() => undefined) // an error stays, and is thrown by `publish`
  }

  async #close(): Promise<void> {
    this.#open = false
    await this.#file.close()
  }
}

/** True for a FIFO, device or socket: what is written to it cannot be taken back. */
export async function isPipe(path: string): Promise<boolean> {
  const found = await statOrUndefined(path)
  return found !== undefined && !found.isFile() && !found.isDirectory()
}

/** Throws BuilderError 'OUTPUT' where a file cannot be because a directory is there. */
export async function refuseDirectory(path: string): Promise<void> {
  if ((await statOrUndefined(path))?.isDirectory() === true)
    throw new BuilderError('OUTPUT', `cannot write ${path}: it is a directory`)
}

/** Writes a whole small file the same way. */
export async function writeWhole(path: string, bytes: Uint8Array): Promise<void> {
  const artifact = await Artifact.create(path)
  try {
    await artifact.write(bytes)
    await artifact.publish()
  } finally {
    await artifact.discard()
  }
}

/** Writes a file of any length the same way, piece by piece; `write` is given where the pieces go. */
export async function writeStream(
  path: string,
  write: (sink: (bytes: Uint8Array) => Promise<void>) => Promise<void>,
): Promise<void> {
  const artifact = await Artifact.create(path)
  try {
    await write((bytes) => artifact.write(bytes))
    await artifact.publish()
  } finally {
    await artifact.discard()
  }
}

async function statOrUndefined(
  path: string,
  call: (path: string) => Promise<Stats> = stat,
): Promise<Stats | undefined> {
  try {
    return await call(path)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw new BuilderError('OUTPUT', `cannot write ${path}: ${messageOf(error)}`, { cause: error })
  }
}

async function opened(path: string, flags: number, shown = path): Promise<FileHandle> {
  try {
    return await open(path, flags, 0o644)
  } catch (cause) {
    throw new BuilderError('OUTPUT', `cannot write ${shown}: ${messageOf(cause)}`, { cause })
  }
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, constants.O_RDONLY | constants.O_DIRECTORY)
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}

function messageOf(error: unknown): string {
  // Node adds the call and its path, which is that of the temporary file.
  return error instanceof Error ? error.message.replace(/, \w+( '.*')?$/, '') : String(error)
}
