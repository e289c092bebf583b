/** When changes are on the disk. Source: docs/formats/snapshot-store.md, "Database". */
import { closeSync, fdatasync, fstatSync, ftruncateSync, openSync, writeSync } from 'node:fs'
import type { DatabaseSync } from 'node:sqlite'
import { setImmediate } from 'node:timers/promises'
import { promisify } from 'node:util'
import type { SnapshotterError } from '../errors.ts'
import { codedDatabaseError } from './database.ts'

/** Milliseconds: so long after the last change the log is written into the database, which holds up the thread for a few syncs. */
const IDLE_MS = 2000
/** Pages of a log that grows without a pause; 64 MiB. */
const MAX_PAGES = 16_384

/** Bytes of zeros that the log gets whenever it has grown: a sync of a file that grows waits for the file system's journal too, with all that others changed. */
const ROOM = Buffer.alloc(4 * 2 ** 20)

const syncData = promisify(fdatasync)

/**
 * The log that SQLite appends changes to. A change is with the kernel when its statement returns: it survives this process. It survives the machine after `flush`, and all that wait for one at a time share a sync: one
 * for each would make a pull of many layers at once wait for the disk as often as there are layers.
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

  /** Called after every change. */
  changed(): void {
    this.#isDirty = true
    this.#timer ??= setTimeout(() => this.#checkpoint(), IDLE_MS).unref()
    this.#timer.refresh()
  }

  /** Resolves when all changes that were made before are on the disk. */
  async flush(): Promise<void> {
    this.assertSound()
    if (this.#planned === undefined && this.#isDirty) this.#planned = this.#next()
    await (this.#planned ?? this.#running)
  }

  /** Makes room, which the first flush would have to wait for. Throws what `flush` does. */
  async prepare(): Promise<void> {
    this.#isDirty = true
    await this.flush()
  }

  /** The database is closed next, which writes everything. */
  close(): void {
    clearTimeout(this.#timer)
    const close = (): void => closeSync(this.#fd)
    const last = this.#planned ?? this.#running
    if (last === undefined) close()
    else last.then(close, close)
  }

  /** One sync, of all that was changed when it begins: when calls that came together have made their changes, and the disk is free. */
  async #next(): Promise<void> {
    await (this.#running ?? setImmediate())
    this.#planned = undefined
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
    if (size <= this.#roomEnd) return
    this.#roomEnd = size + ROOM.length
    let written = 0
    try {
      written = writeSync(this.#fd, ROOM, 0, ROOM.length, size)
    } catch {
      // There is no room at all; as much as fits is no error.
    }
    if (written < ROOM.length) ftruncateSync(this.#fd, size)
  }

  /** A full disk loses nothing: all is in the log, and is written when there is room. */
  #checkpoint(): void {
    try {
      this.#database.exec('PRAGMA wal_checkpoint(PASSIVE)')
    } catch (error) {
      const coded = codedDatabaseError(error, `cannot write to the database ${this.#path}`, this.#path)
      if (coded.code === 'RESOURCE_EXHAUSTED') this.#timer?.refresh()
      else this.#failure = coded
    }
  }
}
