/** When changes are on the disk. Source: docs/formats/snapshot-store.md, "Database". */
import { closeSync, fdatasync, openSync } from 'node:fs'
import type { DatabaseSync } from 'node:sqlite'
import { promisify } from 'node:util'
import type { SnapshotterError } from '../errors.ts'
import { codedDatabaseError } from './database.ts'

/** Milliseconds: so long after the last change the log is written into the database, which holds up the thread for a few syncs. */
const IDLE_MS = 2000
/** Pages of a log that grows without a pause; 64 MiB. */
const MAX_PAGES = 16_384

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
  #next: Promise<void> | undefined
  #failure: SnapshotterError | undefined
  #timer: NodeJS.Timeout | undefined

  /** `path` is of the open database, which has written its log at least once. */
  constructor(database: DatabaseSync, path: string, sync: (fd: number) => Promise<void> = syncData) {
    this.#database = database
    this.#path = path
    this.#sync = sync
    this.#fd = openSync(`${path}-wal`, 'r')
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
    if (this.#running === undefined) {
      if (this.#isDirty) await this.#start()
    } else if (this.#isDirty) await (this.#next ??= this.#after(this.#running))
    else await this.#running
  }

  /** The database is closed next, which writes everything. */
  close(): void {
    clearTimeout(this.#timer)
    const close = (): void => closeSync(this.#fd)
    if (this.#running === undefined) close()
    else this.#running.then(close, close)
  }

  async #after(running: Promise<void>): Promise<void> {
    await running
    this.#next = undefined
    await this.flush()
  }

  async #start(): Promise<void> {
    this.#isDirty = false
    this.#running = this.#syncOnce()
    await this.#running
  }

  async #syncOnce(): Promise<void> {
    try {
      await this.#sync(this.#fd)
    } catch (error) {
      this.#failure = codedDatabaseError(error, `cannot write ${this.#path} to the disk`, this.#path)
      throw this.#failure
    } finally {
      this.#running = undefined
    }
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
