/** The file that the store is kept in: SQLite, one process. Source: docs/formats/snapshot-store.md, "Database". */
import { chmodSync, closeSync, existsSync, ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { tryLockFile } from '../../kernel/index.ts'
import { SnapshotterError } from '../errors.ts'

export const DATABASE = 'metadata.sqlite'
const LOCK = 'snapshotter.lock'
const MODE = 0o600
/** So that a database of something else is not taken for ours. */
const APPLICATION_ID = 0x4e795353
const FORMAT = 1

const SCHEMA = `
  CREATE TABLE snapshots (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,
    parent INTEGER REFERENCES snapshots (id),
    kind INTEGER NOT NULL CHECK (kind IN (1, 2, 3)),
    labels TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    bytes INTEGER,
    inodes INTEGER
  ) STRICT;
  CREATE INDEX snapshots_parent ON snapshots (parent) WHERE parent IS NOT NULL;
  CREATE TABLE daemons (key TEXT PRIMARY KEY, seq INTEGER NOT NULL UNIQUE, json TEXT NOT NULL) STRICT;
  CREATE TABLE instances (key TEXT PRIMARY KEY, seq INTEGER NOT NULL UNIQUE, json TEXT NOT NULL) STRICT;
  CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
  PRAGMA application_id = ${APPLICATION_ID};
  PRAGMA user_version = ${FORMAT};
`

/** Holds the root for this process until it is closed; the kernel lets go when the process dies. Throws SnapshotterError 'LOCKED' at once. */
export function lockRoot(root: string): number {
  const path = join(root, LOCK)
  const fd = openSync(path, 'a+', MODE)
  try {
    if (!tryLockFile(fd)) {
      const holder = readFileSync(path, 'utf8').trim()
      const who = /^\d{1,10}$/.test(holder) ? `process ${holder}` : 'another process'
      throw new SnapshotterError(
        'LOCKED',
        `${who} uses the root directory ${root}; stop it, or give this snapshotter another root`,
      )
    }
    ftruncateSync(fd)
    writeSync(fd, `${process.pid}\n`)
    return fd
  } catch (error) {
    closeSync(fd)
    throw error
  }
}

/**
 * Opens the database of a root, which `lockRoot` holds. A new one is filled by `fill` within the transaction that makes its tables: a process that dies meanwhile leaves an empty file, which counts as none.
 * Throws SnapshotterError 'BAD_STATE' for what is damaged or not ours.
 */
export function openDatabase(root: string, fill: (database: DatabaseSync) => void): DatabaseSync {
  const path = join(root, DATABASE)
  let database: DatabaseSync | undefined
  try {
    makePrivate(path)
    database = new DatabaseSync(path, { timeout: 0, allowExtension: false, enableDoubleQuotedStringLiterals: false })
    // Exclusive: the records are also kept in memory, where nobody else's change would be seen.
    database.exec(
      'PRAGMA trusted_schema = OFF; PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON',
    )
    const version = pragma(database, 'user_version')
    if (version === 0 && database.prepare('SELECT 1 FROM sqlite_schema LIMIT 1').get() === undefined)
      inTransaction(database, () => {
        database?.exec(SCHEMA)
        if (database !== undefined) fill(database)
      })
    else check(database, path, version)
    return database
  } catch (error) {
    database?.close()
    throw codedDatabaseError(error, `cannot open the database ${path}`, path)
  }
}

/** Labels may be logins, and not every root is its owner's alone: others made it, too. SQLite gives a new log the mode of its database. */
function makePrivate(path: string): void {
  closeSync(openSync(path, 'a', MODE))
  for (const file of [path, `${path}-wal`]) if (existsSync(file)) chmodSync(file, MODE)
}

/** All or nothing. */
export function inTransaction<T>(database: DatabaseSync, change: () => T): T {
  database.exec('BEGIN IMMEDIATE')
  try {
    const result = change()
    database.exec('COMMIT')
    return result
  } catch (error) {
    if (database.isTransaction) database.exec('ROLLBACK')
    throw error
  }
}

function check(database: DatabaseSync, path: string, version: number): void {
  if (pragma(database, 'application_id') !== APPLICATION_ID)
    throw new SnapshotterError('BAD_STATE', `${path} is not a snapshotter's database; ${whatToDo(path)}`)
  if (version !== FORMAT)
    throw new SnapshotterError(
      'BAD_STATE',
      `the database ${path} has format ${version}, this program knows ${FORMAT}; start the program that wrote it, and go back with its export-state`,
    )
  const found = String(Object.values(database.prepare('PRAGMA quick_check(1)').get() ?? {})[0])
  if (found !== 'ok')
    throw new SnapshotterError('BAD_STATE', `the database ${path} is damaged: ${found}; ${whatToDo(path)}`)
}

function pragma(database: DatabaseSync, name: string): number {
  return Number(database.prepare(`PRAGMA ${name}`).get()?.[name])
}

/** What an operator does with a database that is lost. */
function whatToDo(path: string): string {
  return `move it away (mv ${path} ${path}.damaged; its -wal too), remove this snapshotter's images from containerd and pull them again`
}

/** Codes of SQLite's whose meaning decides what is done next. */
const FULL = 13
const BUSY = new Set([5, 6])
const DAMAGED = new Set([11, 26])
/** Linux's for a full disk and a quota that is reached, as Node numbers them. */
const NO_SPACE = new Set([-28, -122])

/** A coded error for what SQLite or the file system threw. */
export function codedDatabaseError(error: unknown, action: string, path: string): SnapshotterError {
  if (error instanceof SnapshotterError) return error
  const reason = error instanceof Error ? error.message : String(error)
  const { errcode, errno } = error as { errcode?: unknown; errno?: unknown }
  const code = typeof errcode === 'number' ? errcode & 0xff : undefined
  const cause = { cause: error }
  if (code === FULL || (typeof errno === 'number' && NO_SPACE.has(errno)))
    return new SnapshotterError('RESOURCE_EXHAUSTED', `${action}: ${reason}; free space on the disk of ${path}`, cause)
  if (code !== undefined && BUSY.has(code))
    return new SnapshotterError('LOCKED', `${action}: another process has it open; stop that process`, cause)
  if (code !== undefined && DAMAGED.has(code))
    return new SnapshotterError('BAD_STATE', `${action}: ${reason}; ${whatToDo(path)}`, cause)
  return new SnapshotterError('INTERNAL', `${action}: ${reason}`, cause)
}
