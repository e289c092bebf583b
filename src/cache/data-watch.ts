import { type FSWatcher, fstatSync, watch } from 'node:fs'
import { setImmediate } from 'node:timers/promises'
import { KernelError, seekData, seekHole } from '../kernel/index.ts'
import type { TrustedChunks } from './trusted-chunks.ts'

/** After the last change: holes are looked for when the writing is over. */
const QUIET_MS = 100
/** Pieces of the file looked at before other work gets a turn. */
const SLICE = 1_000

/** What is no longer there: all may be gone, or the parts that are holes now, `[from, to)` in the order of the file. */
export type Lost = 'all' | ReadonlyArray<readonly [from: number, to: number]>

/** Trusted chunks that lie in what is lost, even in part. */
export function lostChunks({ trusted, offsets, sizes }: TrustedChunks, lost: Lost): number[] {
  const gone: number[] = []
  let hole = 0
  // Chunks lie in the order of their numbers, mostly; where they do not, the search starts again.
  for (let chunk = 0; chunk < trusted.length; chunk += 1) {
    if (trusted[chunk] !== 1) continue
    if (lost === 'all') {
      gone.push(chunk)
      continue
    }
    const [from, to] = [offsets[chunk] ?? 0, (offsets[chunk] ?? 0) + (sizes[chunk] ?? 0)]
    if ((lost[hole - 1]?.[1] ?? 0) > from) hole = 0
    while (hole < lost.length && (lost[hole]?.[1] ?? 0) <= from) hole += 1
    if ((lost[hole]?.[0] ?? Number.POSITIVE_INFINITY) < to) gone.push(chunk)
  }
  return gone
}

/**
 * Notices that somebody else cut a data file, also when it has its length again: bytes that were verified read as zeros then. A shorter file, and one that takes less of the disk than before, is told at once;
 * holes a moment after the file has changed for any reason.
 */
export class DataWatch {
  readonly #fd: number
  readonly #size: number
  readonly #onLost: (lost: Lost) => void
  readonly #watcher: FSWatcher | undefined
  #blocks = 0
  /** Grows with each change, and at the end: a look that began before it is of no use any more. */
  #changes = 0
  #timer: NodeJS.Timeout | undefined

  constructor(path: string, fd: number, size: number, onLost: (lost: Lost) => void) {
    this.#fd = fd
    this.#size = size
    this.#onLost = onLost
    this.expect()
    try {
      this.#watcher = watch(path, { persistent: false }, () => this.#changed())
      this.#watcher.on('error', () => this.close())
    } catch {
      // No more watches to be had: what is read short is still noticed.
    }
  }

  /** What the file takes now is as it should be. */
  expect(): void {
    this.#blocks = fstatSync(this.#fd).blocks
  }

  close(): void {
    this.#changes += 1
    clearTimeout(this.#timer)
    this.#watcher?.close()
  }

  #changed(): void {
    const { size, blocks } = fstatSync(this.#fd)
    const isLess = size < this.#size || blocks < this.#blocks
    this.#blocks = blocks
    if (isLess) this.#onLost('all')
    this.#changes += 1
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => void this.#look(), QUIET_MS).unref()
  }

  async #look(): Promise<void> {
    const changes = this.#changes
    const holes: Array<readonly [number, number]> = []
    try {
      for (let at = 0, pieces = 1; at < this.#size; pieces += 1) {
        if (pieces % SLICE === 0) {
          await setImmediate()
          if (this.#changes !== changes) return
        }
        const data = seekData(this.#fd, at) ?? this.#size
        if (data > at) holes.push([at, data])
        at = data < this.#size ? seekHole(this.#fd, data) : data
      }
    } catch (error) {
      if (!(error instanceof KernelError)) throw error // a file system that knows no holes has none
    }
    this.#onLost(holes)
  }
}
