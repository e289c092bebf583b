/** Removes directories that containers wrote into. */
import { execFile } from 'node:child_process'
import { lstat, rename, rmdir, unlink } from 'node:fs/promises'
import { promisify } from 'node:util'
import { readMountInfo } from '../../kernel/index.ts'
import { SnapshotterError } from '../errors.ts'
import { type BytePath, errorCode, readEntries, shown, toBuffer, toBytePath } from './tree.ts'

/** Names that are given to directories on their way out, directly below the one that is removed. */
const LEAVING = '.leaving-'
const MAX_PASSES = 5
const CHATTR_DEADLINE_MS = 60_000

/**
 * Removes a directory and all in it, however deep. Where something is mounted at it or below, nothing is removed: it would be somebody else's. What cannot be removed is left, the rest goes; the same call goes on
 * where another ended. One that is not there is removed already. Throws SnapshotterError 'FAILED_PRECONDITION' for mounts, 'INTERNAL' with the first file that is left, or the reason of the signal.
 */
export async function removeTree(directory: string, signal: AbortSignal): Promise<void> {
  const stats = await lstat(directory).catch((error: unknown) => {
    if (errorCode(error) === 'ENOENT') return undefined
    throw error
  })
  if (stats === undefined) return
  await refuseMounts(directory)
  await new Removal(toBytePath(directory), signal).run()
}

async function refuseMounts(directory: string): Promise<void> {
  const path = toBytePath(directory)
  const inside = (await readMountInfo()).find(({ at }) => at === path || at.startsWith(`${path}/`))
  if (inside === undefined) return
  const at = shown(inside.at)
  throw new SnapshotterError(
    'FAILED_PRECONDITION',
    `cannot remove ${directory}: ${at} is mounted (${inside.type}); unmount it (umount ${at}) and clean up again`,
  )
}

/**
 * Each directory below is first renamed to lie directly in the one that is removed. Thus paths stay short however deep the tree is, and what is a mount in spite of all refuses (EBUSY) before anything in it is touched.
 */
class Removal {
  readonly #top: BytePath
  readonly #signal: AbortSignal
  /** How many refused, and what the first of them said. */
  #left = 0
  #first: string | undefined
  #names = 0
  #unlocking: Promise<void> | undefined

  constructor(top: BytePath, signal: AbortSignal) {
    this.#top = top
    this.#signal = signal
  }

  async run(): Promise<void> {
    // Somebody may still put things there, and a directory that changes while it is read may hide some.
    for (let pass = 0; pass < MAX_PASSES && this.#left === 0; pass += 1) {
      await this.#pass()
      if (await isRemoved(this.#top)) return
    }
    const reason = this.#first ?? `${shown(this.#top)}: somebody still writes there`
    throw new SnapshotterError(
      'INTERNAL',
      `cannot remove ${shown(this.#top)}: ${this.#left} files refuse, the first is ${reason}; see to that, and clean up again`,
    )
  }

  async #pass(): Promise<void> {
    const waiting: BytePath[] = []
    await this.#empty(this.#top, waiting)
    for (let path = waiting.pop(); path !== undefined; path = waiting.pop()) {
      await this.#empty(path, waiting)
      await isRemoved(path) // else it is found again in the next pass
    }
  }

  /** Unlinks the files of a directory, and takes its directories out of it. */
  async #empty(path: BytePath, waiting: BytePath[]): Promise<void> {
    for await (const entries of readEntries(path, this.#signal))
      await Promise.all(
        entries.map(async (entry) => {
          const inside = `${path}/${entry.name}`
          if (!entry.isDirectory()) await this.#attempt(inside, () => unlink(toBuffer(inside)))
          else await this.#attempt(inside, async () => void waiting.push(await this.#takeOut(inside)))
        }),
      )
  }

  async #takeOut(path: BytePath): Promise<BytePath> {
    for (;;) {
      this.#names += 1
      const out = `${this.#top}/${LEAVING}${this.#names}`
      if (out === path) return out
      try {
        await rename(toBuffer(path), toBuffer(out))
        return out
      } catch (error) {
        const code = errorCode(error)
        if (code !== 'ENOTEMPTY' && code !== 'EEXIST' && code !== 'ENOTDIR') throw error
      }
    }
  }

  /** What is refused once is tried again without its attributes, that containers with rights may have set. */
  async #attempt(path: BytePath, remove: () => Promise<void>): Promise<void> {
    try {
      await remove()
    } catch (error) {
      if (errorCode(error) === 'ENOENT') return
      if (errorCode(error) === 'EPERM') await (this.#unlocking ??= this.#unlock())
      await remove().catch((again: unknown) => {
        this.#left += 1
        this.#first ??= `${shown(path)}: ${String(again)}`
      })
    }
  }

  /** Immutable and append-only files. Without the program the refusal is told. */
  async #unlock(): Promise<void> {
    const options = { timeout: CHATTR_DEADLINE_MS, signal: this.#signal }
    const call = promisify(execFile)('chattr', ['-R', '-f', '-i', '-a', '--', shown(this.#top)], options)
    await call.catch(() => this.#signal.throwIfAborted())
  }
}

/** False for a directory that is not empty. */
async function isRemoved(path: BytePath): Promise<boolean> {
  try {
    await rmdir(toBuffer(path))
    return true
  } catch (error) {
    const code = errorCode(error)
    if (code === 'ENOENT') return true
    if (code === 'ENOTEMPTY' || code === 'EEXIST' || code === 'EPERM') return false
    throw new SnapshotterError('INTERNAL', `cannot remove ${shown(path)}: ${String(error)}`, { cause: error })
  }
}
