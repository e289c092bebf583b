import { closeSync, constants, fstatSync, openSync } from 'node:fs'
import { cachePath } from './cache-files.ts'
import { CacheError, cacheError } from './errors.ts'
import { readSome } from './file-io.ts'

/**
 * The plain tar that is a blob of a tarfs image. Who prepares such an image puts it into the cache's folder, under the blob's id and without a suffix, before it is mounted. Nothing tells the
 * digests of its chunks: all of it counts as verified, as with the original. Source: docs/formats/cache.md, "Tars".
 */
export class TarFile {
  readonly fd: number
  readonly #path: string
  #reads = 0
  #readsDone: (() => void) | undefined
  #closed: Promise<void> | undefined

  private constructor(path: string, fd: number) {
    this.#path = path
    this.fd = fd
  }

  /** `size`: bytes that it must have at least. Throws CacheError: 'IO' when it is not there, 'WRONG_SIZE' when it is cut. */
  static open(options: { readonly directory: string; readonly blobId: string; readonly size: number }): TarFile {
    const path = cachePath(options.directory, options.blobId, 'tar')
    let fd: number
    try {
      fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
    } catch (error) {
      throw cacheError(error, `cannot open the tar ${path} of a tarfs image, which must be there before it is mounted`)
    }
    try {
      const found = fstatSync(fd)
      if (!found.isFile())
        throw new CacheError('WRONG_SIZE', `${path} is not a regular file; put the layer's tar there`)
      if (found.size < options.size)
        throw new CacheError(
          'WRONG_SIZE',
          `${path} has ${found.size} bytes, the image wants ${options.size}; put the whole tar there`,
        )
      return new TarFile(path, fd)
    } catch (error) {
      closeSync(fd)
      throw cacheError(error, `cannot use the tar ${path}`)
    }
  }

  /** Fills `into`; false when the file ends before. Throws CacheError. */
  async read(offset: number, into: Uint8Array): Promise<boolean> {
    if (this.#closed !== undefined) throw new CacheError('CLOSED', `the tar ${this.#path} is closed`)
    this.#reads++
    try {
      for (let done = 0; done < into.length; ) {
        const count = await readSome(this.fd, into, done, offset + done)
        if (count === 0) return false
        done += count
      }
      return true
    } catch (error) {
      throw cacheError(error, `cannot read ${this.#path} at ${offset}`)
    } finally {
      this.#reads--
      if (this.#reads === 0) this.#readsDone?.()
    }
  }

  /** Waits for reads under way. No thread may use `fd` any more. */
  close(): Promise<void> {
    this.#closed ??= this.#close()
    return this.#closed
  }

  async #close(): Promise<void> {
    if (this.#reads > 0) await new Promise<void>((resolve) => (this.#readsDone = resolve))
    closeSync(this.fd)
  }
}
