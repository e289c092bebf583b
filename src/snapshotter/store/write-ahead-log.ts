/** When changes are on the disk. Source: docs/formats/snapshot-store.md, "Database". */
import { closeSync, fdatasync, fstatSync, ftruncateSync, openSync, statfsSync, writeSync } from 'node:fs'
import type { DatabaseSync } from 'node:sqlite'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { promisify } from 'node:util'
import type { SnapshotterError } from '../errors.ts'
import { codedDatabaseError } from './database.ts'

/** Milliseconds: so long after the last change the log is written into the database, which holds up the thread for a few syncs. */
const IDLE_MS = 2000
/** Pages of a log that grows without a pause; 64 MiB. */
const MAX_PAGES = 16_384

/** Bytes of zeros that the log gets whenever it has grown: a sync of a file that grows waits for the file system's journal too, with all that others changed. */
const ROOM = Buffer.alloc(4 * 2 ** 20)
/** Bytes of the log with the room that `prepare` makes: it is written while nobody waits, where more room in the midst of calls holds up the thread for some ten milliseconds. Enough for 15,000 calls without a pause of `IDLE_MS`. */
const PREPARED_BYTES = 16 * 2 ** 20
/** Bytes that it makes at once; between two of them calls are answered. */
const PREPARED_STEP = 2 ** 19
/** It takes no more than this part of what a disk has left. */
const PREPARED_SHARE = 1 / 64

const syncData = promisify(fdatasync)

/**
 * The log that SQLite appends changes to. Changes that come together are one transaction, a group: a page that many of them change is written once, and all that wait for the disk at one time share a sync. One of each for every call would make
 * a pull of many layers at once wait as often as there are layers.
 *
 * A group begins with its first change. It is with the kernel, hence survives this process, before anything else is waited for: at the end of the turn of the event loop, or, when its calls wait for the disk already, right before the sync. It
 * survives the machine after `flush`. Where the log has no room left, as on a full disk, each change is a transaction of its own, so that exactly what does not fit is refused.
 */
export class WriteAheadLog {
  readonly #database: DatabaseSync
  readonly #path: string
  readonly #fd: number
  readonly #sync: (fd: number) => Promise<void>
  #isDirty = false
  #running: Promise<void> | undefined
  /** What begins next. */
  #planned: Promise<void> | undefined
  /** The length that the log may have before room is made again. */
  #roomEnd: number
  /** It is looked for at the first sync. */
  #hasRoom = false
  #isFull = false
  #isGroupOpen = false
  #losses = 0
  #lastLoss: SnapshotterError | undefined
  #whenLost = (): void => undefined
  #failure: SnapshotterError | undefined
  #timer: NodeJS.Timeout | undefined

  /** `path` is of the open database, which has written its log at least once. */
  constructor(database: DatabaseSync, path: string, sync: (fd: number) => Promise<void> = syncData) {
    this.#database = database
    this.#path = path
    this.#sync = sync
    this.#fd = openSync(`${path}-wal`, 'r+')
    const { size } = fstatSync(this.#fd)
    // A process that was killed has left its own.
    this.#roomEnd = size < ROOM.length ? 0 : size
    database.exec(`PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = ${MAX_PAGES}`)
  }

  /** Throws what a sync failed with: then nobody knows what is on the disk, and nothing more may be changed. */
  assertSound(): void {
    if (this.#failure !== undefined) throw this.#failure
  }

  /** How many groups were lost, for `flush`: a disk that is full in spite of the room refuses a whole group. */
  get losses(): number {
    return this.#losses
  }

  /** `reload` is called when a group was lost: the database has nothing of it. What it throws makes the log unsound. */
  whenLost(reload: () => void): void {
    this.#whenLost = reload
  }

  /** Runs one statement that changes something. When it throws nothing of it is left, and what others have changed is. */
  change<T>(act: () => T): T {
    if (!this.#isGroupOpen && this.#hasRoom) this.#begin()
    try {
      const result = act()
      this.#isDirty = true
      this.#timer ??= setTimeout(() => this.#checkpoint(), IDLE_MS).unref()
      this.#timer.refresh()
      return result
    } catch (error) {
      // Some errors, such as that of a full disk, are the end of the transaction.
      if (this.#isGroupOpen && !this.#database.isTransaction) throw this.#lose(error)
      throw error
    }
  }

  /** Gives the open group to the kernel. Throws SnapshotterError when it is lost. */
  write(): void {
    if (!this.#isGroupOpen) return
    try {
      this.#database.exec('COMMIT')
      this.#isGroupOpen = false
    } catch (error) {
      throw this.#lose(error)
    }
  }

  /**
   * Resolves when all changes that were made before are on the disk. Throws SnapshotterError when a group was lost since `losses` was `since`, as it may have been the caller's; or when the disk fails, and nothing can be changed from then on.
   */
  async flush(since = this.#losses): Promise<void> {
    this.assertSound()
    this.#assertKept(since)
    if (this.#planned === undefined && this.#isDirty) this.#planned = this.#next()
    await (this.#planned ?? this.#running)
  }

  /** Makes room, which calls would have to wait for, until the signal is aborted. Throws what `flush` does. */
  async prepare(signal: AbortSignal): Promise<void> {
    do {
      this.#isDirty = true
      await this.flush()
    } while (!signal.aborted && this.#enlargeAhead())
  }

  /** The database is closed next, which writes everything. */
  close(): void {
    clearTimeout(this.#timer)
    this.#writeAlone()
    const close = (): void => closeSync(this.#fd)
    const last = this.#planned ?? this.#running
    if (last === undefined) close()
    else last.then(close, close)
  }

  #begin(): void {
    this.#database.exec('BEGIN IMMEDIATE')
    this.#isGroupOpen = true
    setImmediate(() => {
      if (this.#planned === undefined) this.#writeAlone()
    })
  }

  /** Where nobody waits: those whose changes are lost are told by `flush`. */
  #writeAlone(): void {
    try {
      this.write()
    } catch {
      // It is remembered.
    }
  }

  #assertKept(since: number): void {
    if (since !== this.#losses && this.#lastLoss !== undefined) throw this.#lastLoss
  }

  #lose(cause: unknown): SnapshotterError {
    this.#isGroupOpen = false
    this.#planned = undefined
    const lost = codedDatabaseError(cause, 'cannot write what calls changed that came together', this.#path)
    this.#losses += 1
    this.#lastLoss = lost
    try {
      if (this.#database.isTransaction) this.#database.exec('ROLLBACK')
      this.#whenLost()
    } catch (error) {
      this.#failure = codedDatabaseError(error, `cannot read ${this.#path} again`, this.#path)
    }
    return lost
  }

  /** One sync, of all that was changed when it begins: when calls that came together have made their changes, and the disk is free. */
  async #next(): Promise<void> {
    const since = this.#losses
    await (this.#running ?? nextTurn())
    // Lost in between; those who came later have a plan of their own.
    this.#assertKept(since)
    this.#planned = undefined
    this.write()
    this.#running = this.#syncOnce()
    await this.#running
  }

  async #syncOnce(): Promise<void> {
    this.#isDirty = false
    try {
      this.#makeRoom()
      await this.#sync(this.#fd)
    } catch (error) {
      this.#failure = codedDatabaseError(error, `cannot write ${this.#path} to the disk`, this.#path)
      throw this.#failure
    } finally {
      this.#running = undefined
    }
  }

  /** SQLite takes zeros for the end of its log, and writes over them. Of a disk that is almost full it takes nothing: the log grows when it must. */
  #makeRoom(): void {
    const { size } = fstatSync(this.#fd)
    if (size > this.#roomEnd) this.#isFull = !this.#enlarge(size)
    this.#hasRoom = !this.#isFull
  }

  /** False when there is enough, or when it would be too much of the disk. */
  #enlargeAhead(): boolean {
    const { size } = fstatSync(this.#fd)
    if (this.#isFull || size > this.#roomEnd || size >= PREPARED_BYTES) return false
    const { bavail, bsize } = statfsSync(this.#path)
    return PREPARED_BYTES <= bavail * bsize * PREPARED_SHARE && this.#enlarge(size, PREPARED_STEP)
  }

  #enlarge(size: number, bytes = ROOM.length): boolean {
    this.#roomEnd = size + bytes
    let written = 0
    try {
      written = writeSync(this.#fd, ROOM, 0, bytes, size)
    } catch {
      // There is no room at all; as much as fits is no error.
    }
    if (written < bytes) ftruncateSync(this.#fd, size)
    return written === bytes
  }

  /** A full disk loses nothing: all is in the log, and is written when there is room. */
  #checkpoint(): void {
    this.#writeAlone()
    try {
      this.#database.exec('PRAGMA wal_checkpoint(PASSIVE)')
    } catch (error) {
      const coded = codedDatabaseError(error, `cannot write to the database ${this.#path}`, this.#path)
      if (coded.code === 'RESOURCE_EXHAUSTED') this.#timer?.refresh()
      else this.#failure = coded
    }
  }
}
