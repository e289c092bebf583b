import { closeSync, write } from 'node:fs'
import { promisify } from 'node:util'
import type { Cachefiles, CacheRequest } from '../../kernel/vm/index.ts'
import { messageOf } from '../errors.ts'
import type { CacheFile, CacheFiles } from './fscache-files.ts'
import { type DiskRange, PAGE } from './page-map.ts'

type Of<K extends CacheRequest['kind']> = Extract<CacheRequest, { readonly kind: K }>

/** A file that the kernel has open. */
interface OpenObject {
  readonly key: string
  /** Writes the kernel's file. */
  readonly fd: number
  readonly file: CacheFile
  readonly closing: AbortController
  readonly reads: Set<Promise<void>>
}

const ERRNO = { ENOENT: 2, EIO: 5, EALREADY: 114 } as const
const VOLUME_PREFIX = 'erofs,'
const writeBytes = promisify(write)

/**
 * Fills files of the kernel's cache as the kernel asks. A read whose data cannot be had is answered like any other, with nothing written: the kernel finds the hole, its reader gets EIO, and the next one asks again.
 */
export class FsCacheServer {
  readonly #device: Cachefiles
  readonly #files: CacheFiles
  readonly #onError: (text: string) => void
  readonly #objects = new Map<number, OpenObject>()
  /** Objects that are being opened; the kernel may let go of one meanwhile. */
  readonly #opening = new Map<number, { isOver: boolean }>()
  readonly #work = new Set<Promise<void>>()
  #isClosed = false

  /** Owns the device, also when it throws KernelError. */
  constructor(device: Cachefiles, files: CacheFiles, onError: (text: string) => void) {
    this.#device = device
    this.#files = files
    this.#onError = onError
    try {
      device.listen(
        (request) => this.#serve(request),
        (error) => onError(messageOf(error)),
      )
    } catch (error) {
      device.close()
      throw error
    }
  }

  async close(): Promise<void> {
    this.#isClosed = true
    this.#device.close()
    for (const object of this.#objects.keys()) this.#close(object)
    while (this.#work.size > 0) await Promise.allSettled(this.#work)
  }

  #serve(request: CacheRequest): void {
    switch (request.kind) {
      case 'open':
        return this.#track(this.#open(request))
      case 'read':
        return this.#read(request)
      case 'close':
        return this.#close(request.object)
      default:
        request satisfies never
    }
  }

  async #open({ id, object, fd, volumeKey, cookieKey }: Of<'open'>): Promise<void> {
    const domain = volumeKey.startsWith(VOLUME_PREFIX) ? volumeKey.slice(VOLUME_PREFIX.length) : volumeKey
    const key = `${domain}/${cookieKey}`
    if (this.#objects.has(object) || this.#opening.has(object)) return this.#refuse(id, fd, ERRNO.EALREADY)
    const opening = { isOver: false }
    this.#opening.set(object, opening)
    try {
      const file = await this.#files.open(key)
      if (file === undefined) return this.#refuse(id, fd, ERRNO.ENOENT)
      if (!this.#isClosed && this.#tell(id, file.size) && !opening.isOver)
        this.#objects.set(object, { key, fd, file, closing: new AbortController(), reads: new Set() })
      else {
        closeSync(fd)
        this.#track(file.close()) // what it throws must not make the descriptor be closed again
      }
    } catch (error) {
      this.#onError(`cannot open ${key} for the kernel: ${messageOf(error)}`)
      this.#refuse(id, fd, ERRNO.EIO)
    } finally {
      this.#opening.delete(object)
    }
  }

  #refuse(id: number, fd: number, errno: number): void {
    closeSync(fd)
    this.#tell(id, -errno)
  }

  /** False when the kernel no longer waits for it. */
  #tell(id: number, size: number): boolean {
    try {
      this.#device.opened(id, size)
      return true
    } catch (error) {
      this.#onError(`cannot answer open request ${id} of the kernel: ${messageOf(error)}`)
      return false
    }
  }

  #read({ id, object: number, offset, length }: Of<'read'>): void {
    const object = this.#objects.get(number)
    if (object === undefined) return this.#onError(`the kernel reads object ${number}, which it has not opened`)
    const work = this.#bring(object, id, pagesOf(offset, length, object.file.size))
    object.reads.add(work)
    this.#track(work.finally(() => object.reads.delete(work)))
  }

  async #bring({ key, fd, file, closing }: OpenObject, id: number, range: DiskRange): Promise<void> {
    try {
      if (range.length > 0) await file.bring(range, (at, bytes) => writeAll(fd, at, bytes), closing.signal)
    } catch (error) {
      if (!closing.signal.aborted)
        this.#onError(
          `cannot bring bytes ${range.offset} to ${range.offset + range.length} of ${key}, whose reader gets EIO: ${messageOf(error)}`,
        )
    }
    try {
      this.#device.hasRead(fd, id)
    } catch (error) {
      if (!closing.signal.aborted) this.#onError(messageOf(error))
    }
  }

  #close(number: number): void {
    const opening = this.#opening.get(number)
    if (opening !== undefined) opening.isOver = true
    const object = this.#objects.get(number)
    if (object === undefined) return
    this.#objects.delete(number)
    object.closing.abort()
    this.#track(this.#end(object))
  }

  async #end({ fd, file, reads }: OpenObject): Promise<void> {
    await Promise.allSettled(reads)
    closeSync(fd)
    await file.close()
  }

  #track(work: Promise<void>): void {
    const tracked = work.catch((error: unknown) => this.#onError(messageOf(error)))
    this.#work.add(tracked)
    void tracked.then(() => this.#work.delete(tracked))
  }
}

/** The whole pages of a range that the file has a part of. */
function pagesOf(offset: bigint, length: bigint, size: number): DiskRange {
  const pages = BigInt(Math.ceil(size / PAGE) * PAGE)
  const page = BigInt(PAGE)
  const from = (offset / page) * page
  const end = ((offset + length + page - 1n) / page) * page
  if (from >= pages) return { offset: 0, length: 0 }
  return { offset: Number(from), length: Number((end < pages ? end : pages) - from) }
}

async function writeAll(fd: number, offset: number, bytes: Buffer): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await writeBytes(fd, bytes, done, bytes.length - done, offset + done)
    if (bytesWritten === 0) throw new Error('nothing more can be written to the cache')
    done += bytesWritten
  }
}
