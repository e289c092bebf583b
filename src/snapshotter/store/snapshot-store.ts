/** The records of snapshots and their directories. */
import { closeSync } from 'node:fs'
import { join } from 'node:path'
import type { DatabaseSync } from 'node:sqlite'
import { SnapshotterError } from '../errors.ts'
import { parseIdMapping } from '../id-mapping.ts'
import type { Labels, Snapshot, Usage } from '../snapshot.ts'
import { codedDatabaseError, DATABASE, lockRoot, openDatabase } from './database.ts'
import { Directories, prepareRoot } from './directories.ts'
import { parseFilters } from './filter.ts'
import { checkKey, checkLabels } from './limits.ts'
import { type RecordKind, RecordTable, type StoredRecord } from './records.ts'
import { changedLabels } from './label-update.ts'
import { wallClock } from './wall-clock.ts'
import { parentOfCommitted, parentOfNew, toBeCommitted } from './rules.ts'
import { readRows, SnapshotRows } from './rows.ts'
import { SnapshotIndex } from './snapshot-index.ts'
import { rememberTransactions, UpstreamDatabases } from './upstream.ts'
import { WriteAheadLog } from './write-ahead-log.ts'

interface Parts {
  readonly database: DatabaseSync
  readonly upstream: UpstreamDatabases
  readonly log: WriteAheadLog
}

/** What an export writes. */
interface Exportable {
  readonly snapshots: readonly Snapshot[]
  readonly lastId: number
  readonly daemons: readonly StoredRecord[]
  readonly instances: readonly StoredRecord[]
  readonly transaction: number
}

/**
 * Snapshots, in the way of containerd's own storage: active ones and views are made on committed ones and found by their key; committing one moves it to a name, in the same namespace. What a method changed survives
 * the process at the latest when anything else is waited for, and the machine after `flush`, which comes before a client is answered; a method that throws changed nothing. All records are held in memory too, so that reading costs no file access; hence
 * one process has the root alone, and a second one is refused with 'LOCKED'.
 *
 * Order on the disk: the directory is made and named, then the record. A crash between the two leaves a directory that belongs to nobody (`orphans`), never a record without its directory. Removing is the other
 * way round: the record goes at once, the directory when its owner removes it.
 *
 * Errors are SnapshotterErrors with containerd's codes and texts; 'RESOURCE_EXHAUSTED' for a full disk, 'BAD_STATE' for a damaged database.
 */
export class SnapshotStore {
  /** The real path. */
  readonly root: string
  /** What was found wrong and mended when the store was opened, a line each. */
  readonly warnings: readonly string[]
  readonly #database: DatabaseSync
  readonly #rows: SnapshotRows
  /** What is closed with the store. */
  readonly #held: DisposableStack
  readonly #upstream: UpstreamDatabases
  readonly #log: WriteAheadLog
  readonly #directories: Directories
  readonly #index = new SnapshotIndex()
  #lastId: number
  #isClosed = false

  private constructor(root: string, { database, upstream, log }: Parts, held: DisposableStack) {
    this.root = root
    this.#held = held
    this.#upstream = upstream
    this.#database = database
    this.#log = log
    this.#rows = new SnapshotRows(database)
    this.#directories = new Directories(root)
    this.#index.replace(readRows(database))
    log.whenLost(() => this.#index.replace(readRows(database)))
    this.#directories.removeUnfinished()
    this.#lastId = Math.max(lastId(database), this.#directories.largest())
    this.warnings = this.#mend()
  }

  /**
   * Opens the store of a root, or makes it: with the snapshots and records of the original, if that had the root. Its files stay as they are. Throws SnapshotterError 'LOCKED', 'BAD_CONFIG' for the root, 'BAD_STATE'
   * for a database.
   */
  static open(path: string): SnapshotStore {
    const root = prepareRoot(path)
    using held = new DisposableStack()
    try {
      held.adopt(lockRoot(root), closeSync)
      const upstream = held.adopt(new UpstreamDatabases(root), (files) => files.close())
      const database = held.adopt(
        openDatabase(root, (made) => upstream.importInto(made)),
        (opened) => opened.close(),
      )
      upstream.checkUnchanged(database)
      const log = held.adopt(new WriteAheadLog(database, join(root, DATABASE)), (opened) => opened.close())
      return new SnapshotStore(root, { database, upstream, log }, held.move())
    } catch (error) {
      throw codedDatabaseError(error, `cannot open the snapshots in ${root}`, join(root, DATABASE))
    }
  }

  /** Makes an active snapshot or a view on `parent`, a committed one; '' for none. */
  create(kind: 'active' | 'view', key: string, parent: string, labels: Labels): Snapshot {
    checkKey(key, 'the key')
    const kept = checkLabels(labels)
    const above = parentOfNew(this.#index, key, parent)
    const mapping = parseIdMapping(kept)
    const [id, now] = [this.#nextId(), wallClock()]
    const snapshot: Snapshot = { id, key, parent, kind, labels: kept, createdAt: now, updatedAt: now, usage: undefined }
    this.#write(`cannot make the snapshot ${key}`, () => {
      this.#directories.create(id, kind, above?.id, mapping)
      try {
        this.#rows.insert(snapshot, above?.id ?? null)
      } catch (error) {
        this.#directories.discard(id)
        throw error
      }
    })
    this.#index.keep(snapshot)
    return snapshot
  }

  /**
   * Makes an active snapshot a committed one, found by `name`. Its labels are those given, none of the active one's. `parent`, of one that was made without, is what it stands on from now on; '' for what it has.
   * `usage` that is not known yet is set later.
   */
  commit(name: string, key: string, labels: Labels, usage: Usage | undefined, parent = ''): Snapshot {
    checkKey(name, 'the name')
    const kept = checkLabels(labels)
    const active = toBeCommitted(this.#index, name, key)
    const above = parentOfCommitted(this.#index, active, parent)
    const now = wallClock()
    const committed: Snapshot = {
      ...active,
      key: name,
      parent: above?.key ?? '',
      kind: 'committed',
      labels: kept,
      createdAt: now,
      updatedAt: now,
      usage,
    }
    const rebasedOn = committed.parent === active.parent ? undefined : above?.id
    this.#write(`cannot commit the snapshot ${key}`, () => this.#rows.commit(committed, rebasedOn))
    this.#index.drop(active)
    this.#index.keep(committed)
    return committed
  }

  /** What a committed snapshot takes, when it was not known at its commit. Throws SnapshotterError 'NOT_FOUND'. */
  setUsage(name: string, usage: Usage): void {
    const measured: Snapshot = { ...this.stat(name), usage }
    this.#write(`cannot keep the usage of the snapshot ${name}`, () => this.#rows.setUsage(measured))
    this.#index.keep(measured)
  }

  /** Forgets a snapshot that nothing stands on. Its directory stays, an orphan. */
  remove(key: string): Snapshot {
    const snapshot = this.#index.get(key)
    if (snapshot === undefined) throw new SnapshotterError('NOT_FOUND', `snapshot ${key}: not found`)
    if (this.#index.hasChildren(key))
      throw new SnapshotterError('FAILED_PRECONDITION', 'cannot remove snapshot with child: failed precondition')
    this.#write(`cannot remove the snapshot ${key}`, () => this.#rows.delete(snapshot.id))
    this.#index.drop(snapshot)
    return snapshot
  }

  find(key: string): Snapshot | undefined {
    this.#assertOpen()
    return this.#index.get(key)
  }

  /** Throws SnapshotterError 'NOT_FOUND'. */
  stat(key: string): Snapshot {
    const snapshot = this.find(key)
    if (snapshot === undefined)
      throw new SnapshotterError('NOT_FOUND', `snapshot ${JSON.stringify(key)} does not exist: not found`)
    return snapshot
  }

  /** Changes labels: `labels` replaces all, `labels.<key>` one, where a missing or empty value removes it; no path is all that can be changed, the labels. */
  update(key: string, labels: Labels, paths: readonly string[]): Snapshot {
    const before = this.stat(key)
    const next = checkLabels(changedLabels(before, labels, paths))
    // Later than before also when the clock was set back.
    const now = wallClock()
    const updatedAt = now > before.updatedAt ? now : before.updatedAt + 1n
    const after: Snapshot = { ...before, labels: next, updatedAt }
    this.#write(`cannot update the snapshot ${key}`, () => this.#rows.setLabels(after))
    this.#index.keep(after)
    return after
  }

  /** Those that any of the filters matches, all without filters, ordered by key; as they were when it was called. Throws SnapshotterError 'INVALID_ARGUMENT' for a filter. */
  list(filters: readonly string[]): Snapshot[] {
    this.#assertOpen()
    const matches = parseFilters(filters)
    const found = this.#index.all().filter(matches)
    return found.sort((a, b) => (a.key < b.key ? -1 : 1))
  }

  /** What a snapshot stands on, its parent first. */
  chain(key: string): Snapshot[] {
    const chain: Snapshot[] = []
    for (let { parent } = this.stat(key); parent !== ''; ) {
      const above = this.stat(parent)
      chain.push(above)
      parent = above.parent
    }
    return chain
  }

  directory(snapshot: Snapshot): string {
    return this.#directories.of(snapshot.id)
  }

  /** Paths of directories that belong to no snapshot: of removed ones, and of those that a crash left. */
  orphans(): string[] {
    this.#assertOpen()
    // That they were removed must survive what is done with their directories.
    this.#log.write()
    return this.#directories.orphans(new Set(this.#index.all().map(({ id }) => id)))
  }

  records(kind: RecordKind): RecordTable {
    this.#assertOpen()
    return new RecordTable(this.#database, kind, {
      path: join(this.root, DATABASE),
      change: (act) => {
        const result = this.#log.change(act)
        this.#log.write()
        return result
      },
    })
  }

  /** Makes snapshots quicker to create, until the signal is aborted; resolves when nothing is left of it. Once at a time. */
  async makeAhead(signal: AbortSignal): Promise<void> {
    await Promise.all([this.#log.prepare(signal), this.#directories.makeAhead(signal)])
  }

  /** How often changes were lost that a full disk had not refused at once: for `flush`. */
  get losses(): number {
    return this.#log.losses
  }

  /**
   * Resolves when all that was changed before is on the disk, at once when it is. Calls at the same time share a sync. Throws SnapshotterError when changes were lost since `losses` was `since`, where the caller's may be among them: there is nothing
   * of them any more. Throws when the disk fails, too; nothing can be changed from then on.
   */
  async flush(since?: number): Promise<void> {
    if (!this.#isClosed) await this.#log.flush(since)
  }

  /** All there is, for the original's databases; `transaction` is what they shall have for it. A store whose content was given away remembers that, and does not take the files for somebody's work. */
  exportable(): Exportable {
    const transaction = this.#upstream.transaction + 2
    // On the disk before the files are there, as they would be taken for somebody else's otherwise.
    this.#log.write()
    this.#database.exec('PRAGMA synchronous = FULL')
    this.#write('cannot prepare the export', () =>
      rememberTransactions(this.#database, [this.#upstream.transaction, transaction]),
    )
    this.#log.write()
    const [daemons, instances] = [this.records('daemons').all(), this.records('instances').all()]
    return { snapshots: this.list([]), lastId: this.#lastId, daemons, instances, transaction }
  }

  /** Twice is once. Other methods throw 'UNAVAILABLE' from then on. */
  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#held.dispose()
  }

  #write(action: string, change: () => void): void {
    this.#assertOpen()
    this.#log.assertSound()
    try {
      this.#log.change(change)
    } catch (error) {
      throw codedDatabaseError(error, action, join(this.root, DATABASE))
    }
  }

  #nextId(): number {
    this.#assertOpen()
    this.#lastId += 1
    return this.#lastId
  }

  #mend(): string[] {
    return this.#directories.complete(this.#index.all()).map((snapshot) => {
      const path = this.directory(snapshot)
      return `snapshot ${snapshot.key}: parts of its directory ${path} were missing; they were made again, empty`
    })
  }

  #assertOpen(): void {
    if (this.#isClosed) throw new SnapshotterError('UNAVAILABLE', `the snapshots in ${this.root} are closed`)
  }
}

function lastId(database: DatabaseSync): number {
  return Number(database.prepare("SELECT seq FROM sqlite_sequence WHERE name = 'snapshots'").get()?.['seq'] ?? 0)
}
