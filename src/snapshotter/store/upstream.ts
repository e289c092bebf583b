/** Taking over a root from the original's containerd-nydus-grpc, and knowing whether it was used since. Source: docs/formats/bolt.md. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import type { DatabaseSync } from 'node:sqlite'
import { SnapshotterError } from '../errors.ts'
import { BoltFile } from './bolt/bolt-file.ts'
import { readRecords } from './bolt/import-records.ts'
import { readSnapshots } from './bolt/import-snapshots.ts'
import type { RecordKind, StoredRecord } from './records.ts'
import { SnapshotRows } from './rows.ts'

export const METADATA = 'metadata.db'
export const NYDUS = 'nydus.db'
const FACT = 'upstream'

/** The original's databases in a root, where there are any. While they are held the original waits and does not start, so that the two never work on one root. */
export class UpstreamDatabases {
  readonly #root: string
  readonly #metadata: BoltFile | undefined
  readonly #nydus: BoltFile | undefined

  /** Throws SnapshotterError 'LOCKED' while the original runs, 'BAD_STATE' for damaged files. */
  constructor(root: string) {
    this.#root = root
    this.#metadata = opened(join(root, METADATA))
    try {
      this.#nydus = opened(join(root, NYDUS))
    } catch (error) {
      this.#metadata?.close()
      throw error
    }
  }

  /** Fills a new store, within its transaction. */
  importInto(database: DatabaseSync): void {
    if (this.#metadata !== undefined) this.#importSnapshots(database, this.#metadata)
    if (this.#nydus !== undefined) {
      const { daemons, instances } = readRecords(this.#nydus, join(this.#root, NYDUS), this.#root)
      insertRecords(database, 'daemons', daemons)
      insertRecords(database, 'instances', instances)
    }
    rememberTransactions(database, [this.transaction])
  }

  /** The last change of the original's, 0 where it never was. */
  get transaction(): number {
    return this.#metadata?.transaction ?? 0
  }

  /** Throws SnapshotterError 'BAD_STATE' when the original changed its database after it was taken over: two histories cannot be one. */
  checkUnchanged(database: DatabaseSync): void {
    const known = JSON.parse(
      String(database.prepare('SELECT value FROM facts WHERE name = ?').get(FACT)?.['value'] ?? '[0]'),
    ) as number[] // as `rememberTransactions` wrote it
    if (this.#metadata === undefined || known.includes(this.transaction)) return
    const [theirs, ours] = [join(this.#root, METADATA), join(this.#root, 'metadata.sqlite')]
    throw new SnapshotterError(
      'BAD_STATE',
      `${theirs} was changed by another snapshotter after this one had taken it over in ${ours}; move away the one whose snapshots are not to be kept (mv ${theirs} ${theirs}.old, or mv ${ours} ${ours}.old)`,
    )
  }

  close(): void {
    this.#metadata?.close()
    this.#nydus?.close()
  }

  #importSnapshots(database: DatabaseSync, file: BoltFile): void {
    const { snapshots, lastId } = readSnapshots(file, join(this.#root, METADATA))
    database.exec('PRAGMA defer_foreign_keys = ON')
    const rows = new SnapshotRows(database)
    const ids = new Map(snapshots.map(({ key, id }) => [key, id]))
    for (const snapshot of snapshots) rows.insert(snapshot, ids.get(snapshot.parent) ?? null)
    database.prepare("DELETE FROM sqlite_sequence WHERE name = 'snapshots'").run()
    database.prepare("INSERT INTO sqlite_sequence (name, seq) VALUES ('snapshots', ?)").run(lastId)
  }
}

/** The states of the original's database that this store knows of. */
export function rememberTransactions(database: DatabaseSync, known: readonly number[]): void {
  database.prepare('INSERT OR REPLACE INTO facts (name, value) VALUES (?, ?)').run(FACT, JSON.stringify(known))
}

function insertRecords(database: DatabaseSync, kind: RecordKind, records: readonly StoredRecord[]): void {
  const insert = database.prepare(`INSERT INTO ${kind} (key, seq, json) VALUES (?, ?, ?)`)
  for (const { key, seq, json } of records) insert.run(key, seq, json)
}

function opened(path: string): BoltFile | undefined {
  return existsSync(path) ? new BoltFile(path) : undefined
}
