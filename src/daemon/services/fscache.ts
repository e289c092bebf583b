import { existsSync, realpathSync, statSync } from 'node:fs'
import { Cachefiles } from '../../kernel/vm/index.ts'
import { DaemonError, messageOf } from '../errors.ts'
import type { Log } from '../log.ts'
import type { BlobRegistry } from './blob-registry.ts'
import { cullBlob } from './fscache-cull.ts'
import { CacheFiles } from './fscache-files.ts'
import { FsCacheServer } from './fscache-server.ts'

export interface FsCachePlace {
  /** Where the kernel keeps its files. */
  readonly directory: string
  /** Tells several caches apart. */
  readonly tag: string | undefined
}

/** The kernel's cache of files, filled from registered images. */
export class FsCache {
  readonly #device: Cachefiles
  readonly #directory: string
  readonly #server: FsCacheServer
  readonly #log: Log

  /** Over a device that is bound to the directory; owns it, also when it throws KernelError. */
  constructor(device: Cachefiles, directory: string, registry: BlobRegistry, log: Log) {
    this.#device = device
    this.#directory = directory
    this.#log = log
    this.#server = new FsCacheServer(device, new CacheFiles(registry), (text) => log.error(text))
  }

  /** Opens the device node and binds it. Throws DaemonError. */
  static start(path: string, { directory, tag }: FsCachePlace, registry: BlobRegistry, log: Log): FsCache {
    if (!existsSync(path))
      throw new DaemonError(
        'UNSUPPORTED',
        `cannot serve --fscache: there is no ${path}; the kernel lacks cachefiles on demand (Linux 5.19 to 6.11 with CONFIG_CACHEFILES_ONDEMAND), so mount by FUSE: nydusd --mountpoint DIRECTORY`,
      )
    if (statSync(directory, { throwIfNoEntry: false })?.isDirectory() !== true)
      throw new DaemonError('BAD_CONFIG', `cannot serve --fscache: ${directory} is no directory; make it`)
    const real = realpathSync(directory)
    try {
      return new FsCache(Cachefiles.open(path, real, tag), real, registry, log)
    } catch (error) {
      throw new DaemonError(
        'IO',
        `cannot serve --fscache by ${path}: ${messageOf(error)}; one daemon at a time may have it, as root, and the directory must be on a disk with extended attributes`,
        { cause: error },
      )
    }
  }

  /** Lets the kernel remove what it keeps of a blob. Throws DaemonError. */
  cull(blobId: string): void {
    cullBlob(this.#directory, blobId, (text) => this.#device.command(text), this.#log)
  }

  async close(): Promise<void> {
    await this.#server.close()
  }
}
