import { closeSync, fdatasyncSync, futimesSync, readSync, rmSync, writeSync } from 'node:fs'
import { whileAlone } from '../kernel/index.ts'
import { bitOf, MAP_HEADER, MAP_HEADER_SIZE } from './chunk-map-format.ts'
import { CacheError, cacheError, errnoName } from './errors.ts'
import { openMapFile, writeAllReady } from './map-file.ts'

/**
 * Keeps our processes from losing each other's bits: a byte is read, changed and written under it. It excludes processes that use this lock only: upstream swaps
 * bytes of a shared mapping instead. What can get lost against upstream is a claim set in the microseconds between our read and write; that chunk is fetched
 * once more. Nothing is ever claimed too much by it: upstream never withdraws a claim.
 */
export interface MapLock {
  /** False when somebody else holds it. Must not wait. */
  tryLock(fd: number): boolean
  unlock(fd: number): void
}

/** A holder that was stopped must not stop us: after this time the bits are written without the lock. */
const LOCK_PATIENCE_MS = 1000
const LOCK_RETRY_MS = 2

interface Change {
  set: number
  clear: number
}

/** The claims of one blob: what is known in memory, and the file behind it, which other processes write too. */
export class ChunkMap {
  readonly #path: string
  readonly #fd: number
  readonly #isWritable: boolean
  readonly #bitmap: Uint8Array
  readonly #lock: MapLock
  /** Changes not in the file yet, by byte; the promise of those who wait for them, and since when. */
  readonly #changes = new Map<number, Change>()
  #written: PromiseWithResolvers<void> | undefined
  #waitingSince = 0
  readonly #byte = new Uint8Array(1)

  /** Throws CacheError. `discard`: the data file is new, so no claim holds. */
  constructor(path: string, chunkCount: number, lock: MapLock, discard: boolean) {
    this.#path = path
    this.#lock = lock
    const file = openMapFile(path, chunkCount, discard)
    this.#fd = file.fd
    this.#isWritable = file.isWritable
    this.#bitmap = file.bitmap
    this.#used()
  }

  /** When the blob was used last: what a full cache removes first. */
  #used(): void {
    if (!this.#isWritable) return
    const now = new Date()
    try {
      futimesSync(this.#fd, now, now)
    } catch {
      // somebody else's file: it is as old as it says
    }
  }

  /** Looks into the file too when memory says no: another process may have fetched the chunk. */
  has(chunk: number): boolean {
    const at = chunk >> 3
    const known = this.#bitmap[at]
    if (known === undefined) return false
    if ((known & bitOf(chunk)) !== 0) return true
    if (!this.#isWritable) return false // a read-only map does not change, but a withdrawn claim must stay withdrawn
    const withdrawn = this.#changes.get(at)?.clear ?? 0
    let found = 0
    try {
      found = this.#readByte(at) & ~withdrawn
    } catch {
      return false // a map that cannot be read claims nothing
    }
    this.#bitmap[at] = known | found
    return (found & bitOf(chunk)) !== 0
  }

  get isWritable(): boolean {
    return this.#isWritable
  }

  /** Marks chunks whose data is written. Resolves when the marks are in the file; all of one turn of the event loop are written together. */
  async set(chunks: readonly number[]): Promise<void> {
    if (!this.#isWritable) throw new CacheError('READ_ONLY', `the chunk map ${this.#path} may not be written`)
    if (chunks.length === 0) return
    for (const chunk of chunks) {
      const change = this.#change(chunk >> 3)
      change.set |= bitOf(chunk)
      change.clear &= ~bitOf(chunk)
    }
    await this.#schedule().promise
  }

  /** Withdraws claims: in memory now, in the file now or as soon as the lock is free. */
  clear(chunks: readonly number[]): void {
    if (chunks.length === 0) return
    for (const chunk of chunks) {
      const at = chunk >> 3
      this.#bitmap[at] = (this.#bitmap[at] ?? 0) & ~bitOf(chunk)
      if (!this.#isWritable) continue
      const change = this.#change(at)
      change.clear |= bitOf(chunk)
      change.set &= ~bitOf(chunk)
    }
    if (!this.#isWritable) return
    // A claim that cannot be withdrawn is still only a claim: it is verified again before anybody sees it.
    this.#schedule().promise.catch(() => {})
    this.#flush()
  }

  /** True while a withdrawn claim is still in the file. */
  isClearing(chunk: number): boolean {
    return ((this.#changes.get(chunk >> 3)?.clear ?? 0) & bitOf(chunk)) !== 0
  }

  /** No power cut brings back what was withdrawn. Throws the errno of a disk that fails. */
  sync(): void {
    if (this.#isWritable) fdatasyncSync(this.#fd)
  }

  /** Resolves when no change waits, also when writing them failed. */
  async settled(): Promise<void> {
    while (this.#written !== undefined) await this.#written.promise.catch(() => {}) // those who wait for the change get the error
  }

  /** Closes the map, and removes it if nobody else has it open; what cannot be removed stays. */
  async discard(): Promise<void> {
    await this.settled()
    if (this.#fd < 0) return
    try {
      whileAlone(this.#fd, () => rmSync(this.#path, { force: true }))
    } catch (error) {
      if (errnoName(error) === undefined) throw error
    } finally {
      closeSync(this.#fd)
    }
  }

  async close(): Promise<void> {
    await this.settled()
    this.#used()
    if (this.#fd >= 0) closeSync(this.#fd)
  }

  #change(at: number): Change {
    const waiting = this.#changes.get(at)
    if (waiting !== undefined) return waiting
    const change = { set: 0, clear: 0 }
    this.#changes.set(at, change)
    return change
  }

  #schedule(): PromiseWithResolvers<void> {
    if (this.#written === undefined) {
      this.#written = Promise.withResolvers<void>()
      this.#waitingSince = performance.now()
      setImmediate(() => this.#flush())
    }
    return this.#written
  }

  /** Writes all changes when the lock is free or was waited for too long; otherwise comes back. */
  #flush(): void {
    const written = this.#written
    if (written === undefined) return
    const lock = this.#tryLock()
    if (lock === 'busy' && performance.now() - this.#waitingSince < LOCK_PATIENCE_MS) {
      setTimeout(() => this.#flush(), LOCK_RETRY_MS)
      return
    }
    this.#written = undefined
    try {
      this.#writeChanges()
      written.resolve()
    } catch (error) {
      written.reject(cacheError(error, `cannot write the chunk map ${this.#path}`))
    } finally {
      this.#changes.clear()
      if (lock === 'held') this.#lock.unlock(this.#fd)
    }
  }

  #tryLock(): 'held' | 'busy' | 'none' {
    try {
      return this.#lock.tryLock(this.#fd) ? 'held' : 'busy'
    } catch {
      return 'none' // a file system without locks: the worst is a lost claim, see MapLock
    }
  }

  #writeChanges(): void {
    const changes = [...this.#changes]
    if (changes.some(([, change]) => change.clear !== 0) && this.#isAllReady()) writeAllReady(this.#fd, 0)
    for (const [at, { set, clear }] of changes) {
      const found = this.#readByte(at)
      this.#byte[0] = (found | set) & ~clear
      if (this.#byte[0] !== found) writeSync(this.#fd, this.#byte, 0, 1, MAP_HEADER_SIZE + at)
    }
  }

  #isAllReady(): boolean {
    const word = new Uint32Array(1)
    return readSync(this.#fd, word, 0, 4, MAP_HEADER.allReady) === 4 && word[0] !== 0
  }

  #readByte(at: number): number {
    return readSync(this.#fd, this.#byte, 0, 1, MAP_HEADER_SIZE + at) === 1 ? (this.#byte[0] ?? 0) : 0
  }
}
