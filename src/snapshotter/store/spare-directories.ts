/** Directories of snapshots that are made before anybody wants them. */
import { lstatSync, type Stats } from 'node:fs'
import { chmod, mkdir, readdir, rmdir } from 'node:fs/promises'
import { join } from 'node:path'
import { FILES, FILES_MODE, MODE, WORK, WORK_MODE } from './directory-layout.ts'

/** As many as may be wanted before there is a pause, by some pulls at once; each takes three inodes and 12 KiB. */
const MOST = 256
/** Made at the same time. */
const AT_ONCE = 4
/** Milliseconds since the last one was taken, after which more are made. */
const PAUSE_MS = 100

/** A directory that is ready, and what its `fs` is. */
export interface Spare {
  readonly path: string
  readonly fs: Stats
}

/**
 * Making the directories of a snapshot takes longer than all else that `Prepare` does. These are made by other threads, in advance, and are only renamed then. More are made in pauses only: while one is made, the kernel lets nobody take another
 * out of the same folder, and who takes one holds up all calls. What a crash leaves of them is removed when the next process begins to keep some.
 */
export class SpareDirectories {
  readonly #parent: string
  readonly #ready: Spare[] = []
  #making = 0
  #serial = 0
  #wanted: (() => void) | undefined
  #takenMs = 0
  /** Runs until there is a pause. */
  #pause: NodeJS.Timeout | undefined

  /** `parent` is made when it is needed, on the file system of the snapshots; nobody else uses it. */
  constructor(parent: string) {
    this.#parent = parent
  }

  /** One for an active snapshot, the caller's from now on; undefined when none is ready. Somebody may have removed it since it was made. */
  take(): Spare | undefined {
    this.#takenMs = performance.now()
    this.#pause ??= setTimeout(() => this.#isPause(), PAUSE_MS).unref()
    return this.#ready.pop()
  }

  #isPause(): void {
    const leftMs = this.#takenMs + PAUSE_MS - performance.now()
    this.#pause = leftMs > 0 ? setTimeout(() => this.#isPause(), leftMs).unref() : undefined
    if (this.#pause === undefined) this.#wanted?.()
  }

  /** Keeps some ready until the signal is aborted; resolves when none is left. Once at a time. */
  async keep(signal: AbortSignal): Promise<void> {
    await mkdir(this.#parent, MODE).catch(() => undefined) // is there, or cannot be made: then none can
    signal.addEventListener('abort', () => this.#wanted?.(), { once: true })
    for (const name of await readdir(this.#parent).catch(() => [])) await removeMade(join(this.#parent, name))
    while (!signal.aborted) {
      const isMade = await this.#fill(signal)
      if (!isMade || this.#ready.length === MOST || this.#pause !== undefined) await this.#untilWanted(signal)
    }
    for (const { path } of this.#ready.splice(0)) await removeMade(path)
    await rmdir(this.#parent).catch(() => undefined) // somebody put something there
  }

  /** False when they cannot be made. */
  async #fill(signal: AbortSignal): Promise<boolean> {
    let isMade = true
    const maker = async (): Promise<void> => {
      while (isMade && this.#ready.length + this.#making < MOST && this.#pause === undefined && !signal.aborted) {
        this.#making += 1
        const spare = await this.#make()
        this.#making -= 1
        if (spare === undefined) isMade = false
        else this.#ready.push(spare)
      }
    }
    await Promise.all(Array.from({ length: AT_ONCE }, maker))
    return isMade
  }

  /** Undefined when it cannot be made: who wants a directory next makes it itself, and tells what is wrong. */
  async #make(): Promise<Spare | undefined> {
    for (;;) {
      this.#serial += 1
      const path = join(this.#parent, String(this.#serial))
      try {
        // In few steps: between two of them a busy process answers many calls.
        const first = await mkdir(join(path, FILES), { recursive: true, mode: FILES_MODE })
        if (first !== path) continue // it is somebody else's
        await Promise.all([mkdir(join(path, WORK), WORK_MODE), chmod(path, MODE)])
        return { path, fs: await unmasked(path) }
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

/** Gives back what the process's mask took away. */
async function unmasked(path: string): Promise<Stats> {
  const [files, work] = [join(path, FILES), join(path, WORK)]
  // The kernel has it in memory: another thread would take longer to begin.
  const made = lstatSync(files)
  if ((made.mode & 0o7777) === FILES_MODE) return made
  await Promise.all([chmod(files, FILES_MODE), chmod(work, WORK_MODE)])
  return lstatSync(files)
}

/** What there is of one; what somebody put something into stays. */
async function removeMade(path: string): Promise<void> {
  for (const each of [join(path, FILES), join(path, WORK), path]) await rmdir(each).catch(() => undefined)
}
