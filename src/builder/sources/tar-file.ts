import { closeSync, openSync, readSync, statSync } from 'node:fs'
import { setImmediate } from 'node:timers/promises'
import { detectCompression } from '../../codec/index.ts'
import type { ByteInput } from '../../tar/index.ts'
import { BuilderError } from '../errors.ts'

/** Stays in a processor's own cache. */
const BUFFER_BYTES = 64 * 1024
/** From here on it pays to read into the place where the bytes are wanted. */
const DIRECT_BYTES = 16 * 1024
/** Of a file, before others have their turn. */
const TURN_BYTES = 1024 * 1024

export interface TarFileOptions {
  readonly signal: AbortSignal
  /** Bytes that were read, now and then. */
  readonly onBytes: (bytes: number) => void
}

/**
 * A plain tar in a regular file. It is read on this thread: the kernel reads ahead, and what another processor has read is five times slower to use. Large contents are read to where they are
 * wanted. Throws BuilderError 'BAD_SOURCE' when the file cannot be read, or the signal's reason.
 */
export class TarFile implements ByteInput {
  position = 0
  /** When it was opened; it may grow or shrink meanwhile. */
  readonly size: number
  readonly #path: string
  readonly #options: TarFileOptions
  readonly #buffer = new Uint8Array(BUFFER_BYTES)
  readonly #fd: number
  #open = true
  /** What was read and not given yet; what is before it may be put back. */
  #start = 0
  #end = 0
  #turn = 0

  /** Undefined for what is no regular file, or compressed: it is to be read as a stream. */
  static open(path: string, options: TarFileOptions): TarFile | undefined {
    // A FIFO is not even opened: its writer would be told that its reader came and went.
    const stat = guarded(path, () => statSync(path, { throwIfNoEntry: false }))
    if (stat?.isFile() !== true) return undefined
    const fd = guarded(path, () => openSync(path, 'r'))
    let file: TarFile | undefined
    try {
      if (guarded(path, () => isPlain(fd))) file = new TarFile(path, fd, stat.size, options)
      return file
    } finally {
      if (file === undefined) closeSync(fd)
    }
  }

  private constructor(path: string, fd: number, size: number, options: TarFileOptions) {
    this.size = size
    this.#path = path
    this.#fd = fd
    this.#options = options
  }

  takeNow(length: number): Uint8Array | undefined {
    return this.#end - this.#start < length ? undefined : this.#give(length)
  }

  putBack(length: number): void {
    this.#start -= length
    this.position -= length
  }

  readNow(into: Uint8Array): number {
    const buffered = this.#copy(into)
    if (into.length - buffered < DIRECT_BYTES || this.#turn >= TURN_BYTES) return buffered
    const read = this.#read(buffered === 0 ? into : into.subarray(buffered))
    this.position += read
    return buffered + read
  }

  async take(length: number): Promise<Uint8Array> {
    if (length > BUFFER_BYTES) {
      const bytes = new Uint8Array(length)
      return bytes.subarray(0, await this.read(bytes))
    }
    this.#buffer.copyWithin(0, this.#start, this.#end)
    this.#end -= this.#start
    this.#start = 0
    await this.#giveTurn()
    while (this.#end < length && this.#fill());
    return this.#give(Math.min(length, this.#end))
  }

  async read(into: Uint8Array): Promise<number> {
    let filled = this.readNow(into)
    while (filled < into.length) {
      await this.#giveTurn()
      if (into.length - filled < DIRECT_BYTES && !this.#refill()) break
      const got = this.readNow(into.subarray(filled))
      if (got === 0) break
      filled += got
    }
    return filled
  }

  async skip(length: number): Promise<number> {
    let skipped = 0
    while (skipped < length) {
      const part = Math.min(length - skipped, this.#end - this.#start)
      this.#give(part)
      skipped += part
      await this.#giveTurn()
      if (skipped < length && !this.#refill()) break
    }
    return skipped
  }

  async close(): Promise<void> {
    if (!this.#open) return
    this.#open = false
    closeSync(this.#fd)
  }

  #give(length: number): Uint8Array {
    const view = this.#buffer.subarray(this.#start, this.#start + length)
    this.#start += length
    this.position += length
    return view
  }

  #copy(into: Uint8Array): number {
    const length = Math.min(into.length, this.#end - this.#start)
    if (length > 0) into.set(this.#give(length))
    return length
  }

  /** Reads on into the buffer, all of which was given; false at the end. */
  #refill(): boolean {
    this.#start = this.#end = 0
    return this.#fill()
  }

  #fill(): boolean {
    const read = this.#read(this.#buffer.subarray(this.#end))
    this.#end += read
    return read > 0
  }

  #read(into: Uint8Array): number {
    const read = guarded(this.#path, () => readSync(this.#fd, into, 0, into.length, null))
    this.#turn += read
    if (read > 0) this.#options.onBytes(read)
    return read
  }

  async #giveTurn(): Promise<void> {
    if (this.#turn < TURN_BYTES) return
    this.#turn = 0
    await setImmediate()
    this.#options.signal.throwIfAborted()
  }
}

/** Told by the first bytes, which are read once more by whoever reads the file, and count then. */
function isPlain(fd: number): boolean {
  const head = new Uint8Array(4)
  return detectCompression(head.subarray(0, readSync(fd, head, 0, head.length, 0))) === 'none'
}

function guarded<T>(path: string, call: () => T): T {
  try {
    return call()
  } catch (cause) {
    throw new BuilderError('BAD_SOURCE', `cannot read the layer ${path}: ${(cause as Error).message}`, { cause })
  }
}
