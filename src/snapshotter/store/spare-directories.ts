/** Directories of snapshots that are made before anybody wants them. */
import { chmod, mkdir, readdir, rmdir } from 'node:fs/promises'
import { join } from 'node:path'
import { FILES, FILES_MODE, MODE, WORK, WORK_MODE } from './directory-layout.ts'

/** As many as may be wanted at one time; each takes three inodes. */
const MOST = 64
/** Made at the same time, by half of the process's threads for files. */
const AT_ONCE = 8

/**
 * Making the directories of a snapshot takes longer than all else that `Prepare` does. These are made by other threads, in advance, and are only renamed then. What a crash leaves of them is removed when the next
 * process begins to keep some.
 */
export class SpareDirectories {
  readonly #parent: string
  readonly #ready: string[] = []
  #making = 0
  #serial = 0
  #wanted: (() => void) | undefined

  /** `parent` is made when it is needed, on the file system of the snapshots; nobody else uses it. */
  constructor(parent: string) {
    this.#parent = parent
  }

  /** The path of one for an active snapshot, the caller's from now on; undefined when none is ready. The process's mask may have taken something from the modes of what is in it. */
  take(): string | undefined {
    const path = this.#ready.pop()
    this.#wanted?.()
    return path
  }

  /** Keeps some ready until the signal is aborted; resolves when none is left. Once at a time. */
  async keep(signal: AbortSignal): Promise<void> {
    await mkdir(this.#parent, MODE).catch(() => undefined) // is there, or cannot be made: then none can
    signal.addEventListener('abort', () => this.#wanted?.(), { once: true })
    for (const name of await readdir(this.#parent).catch(() => [])) await removeMade(join(this.#parent, name))
    while (!signal.aborted) {
      const isMade = await this.#fill(signal)
      if (!isMade || this.#ready.length === MOST) await this.#untilWanted(signal)
    }
    for (let path = this.take(); path !== undefined; path = this.take()) await removeMade(path)
    await rmdir(this.#parent).catch(() => undefined) // somebody put something there
  }

  /** False when they cannot be made. */
  async #fill(signal: AbortSignal): Promise<boolean> {
    let isMade = true
    const maker = async (): Promise<void> => {
      while (isMade && this.#ready.length + this.#making < MOST && !signal.aborted) {
        this.#making += 1
        const path = await this.#make()
        this.#making -= 1
        if (path === undefined) isMade = false
        else this.#ready.push(path)
      }
    }
    await Promise.all(Array.from({ length: AT_ONCE }, maker))
    return isMade
  }

  /** Undefined when it cannot be made: who wants a directory next makes it itself, and tells what is wrong. */
  async #make(): Promise<string | undefined> {
    for (;;) {
      this.#serial += 1
      const path = join(this.#parent, String(this.#serial))
      try {
        // In few steps: between two of them a busy process answers many calls.
        const first = await mkdir(join(path, FILES), { recursive: true, mode: FILES_MODE })
        if (first !== path) continue // it is somebody else's
        await Promise.all([mkdir(join(path, WORK), WORK_MODE), chmod(path, MODE)])
        return path
      } catch (error) {
        await removeMade(path)
        // Of that name there is somebody else's, too.
        if ((error as NodeJS.ErrnoException).code !== 'EEXIST') return undefined
      }
    }
  }

  async #untilWanted(signal: AbortSignal): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#wanted = resolve
    if (signal.aborted) resolve()
    await promise
    this.#wanted = undefined
  }
}

/** What there is of one; what somebody put something into stays. */
async function removeMade(path: string): Promise<void> {
  for (const each of [join(path, FILES), join(path, WORK), path]) await rmdir(each).catch(() => undefined)
}
