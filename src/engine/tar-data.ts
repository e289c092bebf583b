import pLimit from 'p-limit'
import type { Backend, BlobReader } from '../backend/index.ts'
import type { BlobInfo } from '../blob/index.ts'
import { TarFile } from '../cache/index.ts'
import { EngineError } from './errors.ts'

/** Reads of a tar at a time that is not a local file. */
const BACKEND_READS = 8

/** The data of a blob that is a plain tar: all of it is there, and read in place. With a cache directory it lies in that; without one it is read from where blobs are. */
export class TarData {
  /** Of the local file; -1 when there is none. */
  readonly fd: number
  readonly #info: BlobInfo
  readonly #file: TarFile | undefined
  readonly #reader: BlobReader | undefined
  readonly #limit = pLimit(BACKEND_READS)

  private constructor(info: BlobInfo, file: TarFile | undefined, reader: BlobReader | undefined) {
    this.#info = info
    this.#file = file
    this.#reader = reader
    this.fd = file?.fd ?? -1
  }

  /** Throws CacheError or BackendError. */
  static async open(info: BlobInfo, backend: Backend, cacheDirectory: string | undefined): Promise<TarData> {
    if (cacheDirectory === undefined) return new TarData(info, undefined, await backend.open(info.id))
    const file = TarFile.open({ directory: cacheDirectory, blobId: info.id, size: info.compressedSize })
    return new TarData(info, file, undefined)
  }

  /** Fills `into`. `signal` ends also a read that waits for its turn. Throws EngineError 'BACKEND', CacheError or BackendError. */
  async read(offset: number, into: Uint8Array, signal: AbortSignal): Promise<void> {
    const reader = this.#reader
    if (reader !== undefined) {
      return await this.#limit(async () => {
        signal.throwIfAborted()
        await reader.read(offset, into, { signal })
      })
    }
    if ((await this.#file?.read(offset, into)) === true) return
    throw new EngineError('BACKEND', `the tar of blob ${this.#info.id} ends before byte ${offset + into.length}`)
  }

  async close(): Promise<void> {
    await this.#file?.close()
    await this.#reader?.close()
  }
}
