import { fstatSync, ftruncateSync } from 'node:fs'
import { copyFileRange, KernelError } from '../kernel/index.ts'
import type { FileTwin } from './chunk-cache.ts'
import { DataWatch, type Lost } from './data-watch.ts'
import { CacheError, cacheError } from './errors.ts'
import { readSome, type writeSome } from './file-io.ts'

export interface DataBytesParts {
  readonly fd: number
  readonly path: string
  /** Bytes; the file is to keep this length. */
  readonly size: number
  readonly write: typeof writeSome
  /** Told what somebody else took out of the file, from {@link DataBytes.watch} on. */
  readonly onLost: (lost: Lost) => void
}

/** The bytes of a data file, whatever they are to chunks. The descriptor is the owner's, who closes it after {@link DataBytes.close}. */
export class DataBytes {
  readonly size: number
  readonly #parts: DataBytesParts
  /** Writes of {@link putOnce} under way, by their place. */
  readonly #puts = new Map<string, Promise<void>>()
  #watch: DataWatch | undefined
  #reads = 0
  #readsDone: (() => void) | undefined

  constructor(parts: DataBytesParts) {
    this.#parts = parts
    this.size = parts.size
  }

  /** Fills `into` from a position; false when the file has not so much. Throws CacheError. */
  async read(offset: number, into: Uint8Array): Promise<boolean> {
    const { fd, path, size } = this.#parts
    if (offset < 0 || offset + into.length > size) return false
    this.#reads++
    try {
      for (let done = 0; done < into.length; ) {
        const count = await readSome(fd, into, done, offset + done)
        if (count === 0) return false
        done += count
      }
      return true
    } catch (error) {
      throw cacheError(error, `cannot read ${path} at ${offset}`)
    } finally {
      this.#reads--
      if (this.#reads === 0) this.#readsDone?.()
    }
  }

  /** Does the file have these bytes there? */
  async has(offset: number, bytes: Uint8Array): Promise<boolean> {
    const found = new Uint8Array(bytes.length)
    return (await this.read(offset, found)) && Buffer.compare(found, bytes) === 0
  }

  /** Writes bytes, or has the file system share those of `twin` when they are the same. */
  async put(offset: number, bytes: Uint8Array, twin: FileTwin | undefined): Promise<void> {
    if (twin !== undefined && (await this.#copied(offset, bytes, twin))) return
    await this.#write(offset, bytes)
  }

  /** Stored bytes of one place are the same, however many chunks come from them: they are written once for all that come together. */
  async putOnce(offset: number, bytes: Uint8Array): Promise<void> {
    const place = `${offset}+${bytes.length}`
    const underWay = this.#puts.get(place)
    if (underWay !== undefined) return await underWay
    const write = this.#write(offset, bytes).finally(() => this.#puts.delete(place))
    this.#puts.set(place, write)
    await write
  }

  /** From now on it is noticed when somebody cuts the file. */
  watch(): void {
    const { path, fd, size, onLost } = this.#parts
    this.#watch ??= new DataWatch(path, fd, size, onLost)
  }

  /** The owner has changed what the file takes of the disk. */
  expect(): void {
    this.#watch?.expect()
  }

  /** Resolves when no read is under way. */
  async close(): Promise<void> {
    if (this.#reads > 0) await new Promise<void>((resolve) => (this.#readsDone = resolve))
    this.#watch?.close()
  }

  /** The twin may have changed since its bytes were verified: what was copied is compared with them. */
  async #copied(offset: number, bytes: Uint8Array, twin: FileTwin): Promise<boolean> {
    try {
      if (copyFileRange(twin.fd, twin.offset, this.#parts.fd, offset, bytes.length) !== bytes.length) return false
    } catch (error) {
      if (error instanceof KernelError) return false // not between these file systems
      throw error
    }
    return await this.has(offset, bytes)
  }

  async #write(offset: number, bytes: Uint8Array): Promise<void> {
    const { fd, path, size, write, onLost } = this.#parts
    // Writing would make a file that somebody cut long again, with zeros where chunks were.
    if (fstatSync(fd).size < size) {
      onLost('all')
      ftruncateSync(fd, size)
      this.expect()
    }
    for (let done = 0; done < bytes.length; ) {
      const count = await write(fd, bytes, done, offset + done)
      if (count <= 0) throw new CacheError('IO', `cannot write ${path}: the file system took no bytes`)
      done += count
    }
  }
}
