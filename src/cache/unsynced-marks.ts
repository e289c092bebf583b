import { fdatasync } from 'node:fs'
import { promisify } from 'node:util'
import pLimit from 'p-limit'
import type { ChunkMap } from './chunk-map.ts'
import { CacheError, errnoName } from './errors.ts'

/** Data is given to the disk so long after the first chunk that waits for it: rarely enough to cost readers nothing. */
const PAUSE_MS = 1000
/** A disk that takes longer at the end leaves chunks to fetch again. */
const CLOSE_DEADLINE_MS = 10_000
/** Syncs of all caches of the process: each holds one of the few threads that also read files for waiting readers. */
const oneSync = pLimit(1)

/** Makes what was written to a file last; rejects with the errno of what could not be. */
export type SyncFile = (fd: number) => Promise<void>
export const syncFile: SyncFile = promisify(fdatasync)

export interface UnsyncedMarksParts {
  readonly dataFd: number
  readonly map: ChunkMap
  /** The same claims, where a power cut takes them; opened when it is first needed. Undefined where there is no such place. */
  readonly openVolatile: () => ChunkMap | undefined
  /** The disk did not take the data of these chunks, and nobody knows what a later read gives. */
  readonly onLost: (chunks: readonly number[]) => void
  readonly sync: SyncFile
  readonly pauseMs?: number | undefined
}

interface Batch {
  readonly chunks: Set<number>
  /** True when those that are still in it were marked. */
  readonly ended: PromiseWithResolvers<boolean>
}

/**
 * Marks of chunks whose data was written, but perhaps not by the disk. They stand in memory, which other processes of this machine share and a power cut takes, until the data file was synced; only then they go
 * into the chunk map. So no power cut leaves a mark over missing data, also for daemons that believe marks; and a killed process loses nothing.
 */
export class UnsyncedMarks {
  readonly #parts: UnsyncedMarksParts
  #volatile: ChunkMap | 'unopened' | undefined = 'unopened'
  /** Those that wait for the next sync, and those of the sync under way. */
  #next: Batch | undefined
  #syncing: Batch | undefined
  #timer: NodeJS.Timeout | undefined
  #isOver = false

  constructor(parts: UnsyncedMarksParts) {
    this.#parts = parts
  }

  /** Notes chunks whose data is written. Resolves when other processes can see them. */
  async add(chunks: readonly number[]): Promise<void> {
    if (this.#isOver) return
    this.#next ??= { chunks: new Set(), ended: Promise.withResolvers() }
    for (const chunk of chunks) this.#next.chunks.add(chunk)
    this.#schedule()
    await this.#shared?.set(chunks).catch(() => undefined) // full: others do not know of it yet
  }

  has(chunk: number): boolean {
    return this.#isOwn(chunk) || this.#shared?.has(chunk) === true
  }

  /** The bytes of a claimed chunk were found right: a mark that a killed process left is on its way again. */
  found(chunk: number): void {
    if (!this.#isOver && !this.#isOwn(chunk) && !this.#parts.map.has(chunk)) void this.add([chunk])
  }

  withdraw(chunks: readonly number[]): void {
    for (const chunk of chunks) {
      this.#next?.chunks.delete(chunk)
      this.#syncing?.chunks.delete(chunk)
    }
    if (this.#volatile !== 'unopened') this.#volatile?.clear(chunks)
  }

  /** Resolves when the chunk is marked (true), or its mark came to nothing. Undefined when it does not wait here. */
  async marked(chunk: number): Promise<boolean | undefined> {
    const batch = [this.#syncing, this.#next].find((each) => each?.chunks.has(chunk) === true)
    return batch && (await batch.ended.promise) && batch.chunks.has(chunk)
  }

  /** Syncs what waits, if the disk takes it in time. */
  async close(): Promise<void> {
    clearTimeout(this.#timer)
    const { promise: late, resolve } = Promise.withResolvers<void>()
    const timer = setTimeout(resolve, CLOSE_DEADLINE_MS)
    await Promise.race([this.#drain(), late])
    clearTimeout(timer)
    clearTimeout(this.#timer)
    this.#isOver = true
    if (this.#volatile !== 'unopened') await this.#volatile?.discard()
  }

  get #shared(): ChunkMap | undefined {
    if (this.#volatile === 'unopened') this.#volatile = this.#parts.openVolatile()
    return this.#volatile
  }

  #isOwn(chunk: number): boolean {
    return this.#next?.chunks.has(chunk) === true || this.#syncing?.chunks.has(chunk) === true
  }

  #schedule(): void {
    if (this.#timer !== undefined || this.#syncing !== undefined) return
    this.#timer = setTimeout(() => void this.#run(), this.#parts.pauseMs ?? PAUSE_MS).unref()
  }

  async #drain(): Promise<void> {
    while (this.#syncing !== undefined || this.#next !== undefined) await (this.#syncing?.ended.promise ?? this.#run())
  }

  async #run(): Promise<void> {
    this.#timer = undefined
    const batch = this.#next
    if (batch === undefined || this.#syncing !== undefined) return
    this.#syncing = batch
    this.#next = undefined
    let isMarked = false
    try {
      await oneSync(async () => await (this.#isOver ? undefined : this.#parts.sync(this.#parts.dataFd)))
      isMarked = await this.#mark(batch.chunks)
    } catch (error) {
      if (errnoName(error) === undefined) throw error
      this.#lose(batch)
    } finally {
      this.#syncing = undefined
      batch.ended.resolve(isMarked)
      if (this.#next !== undefined && !this.#isOver) this.#schedule()
    }
  }

  /** The map first: at no moment the chunk is in neither. A map that cannot be written leaves them to fetch again. */
  async #mark(chunks: ReadonlySet<number>): Promise<boolean> {
    if (this.#isOver) return false
    const isWritten = await this.#parts.map.set([...chunks]).then(
      () => true,
      (error: unknown) => {
        if (error instanceof CacheError) return false
        throw error
      },
    )
    if (!this.#isOver && this.#volatile !== 'unopened') this.#volatile?.clear([...chunks])
    return isWritten
  }

  /** What was written since may be gone too: the kernel tells of a lost page once. */
  #lose(batch: Batch): void {
    if (this.#isOver) return
    const lost = [...batch.chunks, ...(this.#next?.chunks ?? [])]
    this.withdraw(lost)
    this.#parts.onLost(lost)
  }
}
