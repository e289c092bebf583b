/** What a tree of files takes on the disk. */
import { constants } from 'node:fs'
import { type FileHandle, lstat, open } from 'node:fs/promises'
import type { Stats } from 'node:fs'
import { SnapshotterError } from '../errors.ts'
import type { Usage } from '../snapshot.ts'
import { type BytePath, errorCode, readEntries, shown, toBuffer, toBytePath } from './tree.ts'

/** Linux takes 4096 bytes for a path, and 255 for a name in it; past this a tree goes on from a descriptor. */
const LONG_PATH = 3000
const BLOCK = 512

/**
 * Blocks and inodes of a directory and all below it, each inode once; what is mounted inside is not counted. Files that disappear meanwhile are none. The event loop is never held up, however large the tree is.
 * Throws SnapshotterError 'NOT_FOUND' for the directory itself, 'INTERNAL', or the reason of the signal.
 */
export async function measureUsage(directory: string, signal: AbortSignal): Promise<Usage> {
  const start = toBytePath(directory)
  const stats = await lstat(directory).catch((cause: unknown) => {
    const code = errorCode(cause) === 'ENOENT' ? 'NOT_FOUND' : 'INTERNAL'
    throw new SnapshotterError(code, `cannot measure ${directory}: ${String(cause)}`, { cause })
  })
  const count = new Count(stats.dev, signal)
  count.add(stats)
  if (stats.isDirectory()) await count.below(start)
  return { bytes: count.blocks * BLOCK, inodes: count.inodes }
}

class Count {
  blocks = 0
  inodes = 0
  readonly #device: number
  readonly #signal: AbortSignal
  /** Files with several names that were counted. */
  readonly #linked = new Set<string>()

  constructor(device: number, signal: AbortSignal) {
    this.#device = device
    this.#signal = signal
  }

  add(stats: Stats): void {
    this.blocks += stats.blocks
    this.inodes += 1
  }

  async below(start: BytePath): Promise<void> {
    const waiting = [start]
    for (let path = waiting.pop(); path !== undefined; path = waiting.pop())
      if (path.length > LONG_PATH) await this.#belowDescriptor(path)
      else await this.#directory(path, waiting)
  }

  async #belowDescriptor(path: BytePath): Promise<void> {
    let handle: FileHandle
    try {
      handle = await open(toBuffer(path), constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW)
    } catch (error) {
      return whenGone(error, path)
    }
    try {
      await this.below(`/proc/self/fd/${handle.fd}`)
    } finally {
      await handle.close()
    }
  }

  async #directory(path: BytePath, waiting: BytePath[]): Promise<void> {
    try {
      for await (const entries of readEntries(path, this.#signal))
        waiting.push(...(await Promise.all(entries.map(({ name }) => this.#entry(`${path}/${name}`)))).flat())
    } catch (error) {
      this.#signal.throwIfAborted()
      whenGone(error, path)
    }
  }

  /** The path again when there is more below it. */
  async #entry(path: BytePath): Promise<BytePath[]> {
    try {
      const stats = await lstat(toBuffer(path))
      if (stats.dev !== this.#device) return []
      if (stats.isDirectory()) {
        this.add(stats)
        return [path]
      }
      if (stats.nlink === 1 || (await this.#isFirst(path, stats))) this.add(stats)
    } catch (error) {
      whenGone(error, path)
    }
    return []
  }

  async #isFirst(path: BytePath, stats: Stats): Promise<boolean> {
    const inode = Number.isSafeInteger(stats.ino) ? stats.ino : (await lstat(toBuffer(path), { bigint: true })).ino
    const before = this.#linked.size
    return this.#linked.add(String(inode)).size > before
  }
}

function whenGone(error: unknown, path: BytePath): void {
  const code = errorCode(error)
  if (code === 'ENOENT' || code === 'ENOTDIR') return
  if (error instanceof SnapshotterError) throw error
  throw new SnapshotterError('INTERNAL', `cannot measure ${shown(path)}: ${String(error)}`, { cause: error })
}
