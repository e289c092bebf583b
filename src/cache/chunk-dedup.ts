/** A database of where chunks lie in the caches of a node, for caches of other blobs that miss the same chunk. Source: docs/formats/cache.md, "Deduplication database". */
import { existsSync } from 'node:fs'
import { DatabaseSync, type StatementSync } from 'node:sqlite'
import type { DigestName } from '../codec/index.ts'
import { CacheError } from './errors.ts'

/** Upstream's tables: several daemons, also of both kinds, use one file at once. */
const SCHEMA = [
  `CREATE TABLE IF NOT EXISTS Blobs (
    BlobId     INTEGER PRIMARY KEY,
    FilePath   TEXT NOT NULL UNIQUE
  )`,
  `CREATE TABLE IF NOT EXISTS Chunks (
    ChunkId           TEXT NOT NULL,
    ChunkOffset       INTEGER,
    BlobId            INTEGER,
    UNIQUE(ChunkId, BlobId) ON CONFLICT IGNORE,
    FOREIGN KEY(BlobId) REFERENCES Blobs(BlobId)
  )`,
  'CREATE INDEX IF NOT EXISTS ChunkIndex ON Chunks(ChunkId)',
]
/** Views and triggers would run whatever somebody wrote there, also without an end. */
const FOREIGN = "SELECT name FROM sqlite_schema WHERE type IN ('view', 'trigger') LIMIT 1"
const FIND = `SELECT FilePath, ChunkOffset FROM Chunks INDEXED BY ChunkIndex
  JOIN Blobs ON Chunks.BlobId = Blobs.BlobId WHERE ChunkId = ? ORDER BY Blobs.BlobId LIMIT ?`
const ADD_CHUNK = `INSERT OR IGNORE INTO Chunks (ChunkId, ChunkOffset, BlobId)
  SELECT ?, ?, BlobId FROM Blobs WHERE FilePath = ?`

/** Another daemon may be making the tables, or be writing its last records. */
const OPEN_BUSY_MS = 5000
const CLOSE_BUSY_MS = 1000
const FLUSH_MS = 20
/** Records written in one transaction, which holds up the thread. */
const BATCH = 512
/** What cannot be written for so long is not kept in memory for ever. */
const MAX_WAITING = 65_536
/** Places of one chunk that are looked at. */
const PLACES = 4
const DIGEST_NAMES: Readonly<Record<DigestName, string>> = { blake3: 'Blake3', sha256: 'Sha256' }
/** Primary codes of SQLite's for "somebody else has it". */
const BUSY = new Set([5, 6])

/** A place where a chunk's plain bytes may lie. Nothing of it is believed. */
export interface ChunkCopy {
  readonly path: string
  readonly offset: number
}

interface Row extends ChunkCopy {
  readonly id: string
}

/** The name of a chunk in the database; undefined for chunks that have no digest. */
export function dedupId(digest: DigestName, bytes: Uint8Array): string | undefined {
  if (bytes.every((byte) => byte === 0)) return undefined
  return `${DIGEST_NAMES[digest]}:${Buffer.from(bytes).toString('hex')}`
}

/**
 * The database of one daemon. Records are written a little later, many at a time, and never waited for; a database that is in somebody's hands is tried again, one that breaks is left alone: readers do not
 * notice either.
 */
export class ChunkDedup {
  readonly #database: DatabaseSync
  readonly #find: StatementSync
  readonly #waiting: Row[] = []
  #timer: NodeJS.Timeout | undefined
  #isOver = false

  private constructor(database: DatabaseSync) {
    this.#database = database
    this.#find = database.prepare(FIND)
  }

  /** Opens the file, or makes it. Throws CacheError 'IO'. */
  static open(path: string): ChunkDedup {
    let database: DatabaseSync | undefined
    try {
      database = new DatabaseSync(path, { timeout: OPEN_BUSY_MS, allowExtension: false })
      database.exec('PRAGMA trusted_schema = OFF; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL')
      const foreign = database.prepare(FOREIGN).get()
      if (foreign !== undefined) throw new Error(`it has ${JSON.stringify(foreign['name'])}, which is no table`)
      for (const sql of SCHEMA) database.exec(sql)
      const dedup = new ChunkDedup(database)
      database.exec('PRAGMA busy_timeout = 0')
      return dedup
    } catch (error) {
      database?.close()
      const reason = error instanceof Error ? error.message : String(error)
      const step = 'give --dedup-db another file, in a directory that may be written'
      throw new CacheError('IO', `cannot use the deduplication database ${path}: ${reason}; ${step}`, { cause: error })
    }
  }

  /** Where a chunk may lie, `except` one file. Empty also when the database cannot be asked. */
  find(id: string, except: string): ChunkCopy[] {
    if (this.#isOver) return []
    try {
      return this.#find.all(id, PLACES).flatMap(({ FilePath: path, ChunkOffset: offset }) => {
        const isPlace = typeof path === 'string' && typeof offset === 'number' && Number.isSafeInteger(offset)
        return isPlace && offset >= 0 && path !== except ? [{ path, offset }] : []
      })
    } catch (error) {
      this.#failed(error)
      return []
    }
  }

  /** Tells others that the chunk lies there. */
  record(id: string, copy: ChunkCopy): void {
    if (this.#isOver || this.#waiting.length >= MAX_WAITING) return
    this.#waiting.push({ id, ...copy })
    this.#timer ??= setTimeout(() => this.#flush(), FLUSH_MS)
  }

  /** What the database says of a file is of one that was there before: the original would copy holes from the new one. */
  forget(path: string): void {
    if (this.#isOver) return
    this.#patiently(() => {
      const row = this.#database.prepare('SELECT BlobId FROM Blobs WHERE FilePath = ?').get(path)
      if (row !== undefined) this.#forget([row['BlobId'] as number])
    })
  }

  /** Writes what waits, and forgets files that are gone. For the end of a mount. */
  collect(): void {
    if (this.#isOver) return
    this.#patiently(() => {
      while (this.#waiting.length > 0) this.#write()
      const gone = this.#database
        .prepare('SELECT BlobId, FilePath FROM Blobs')
        .all()
        .filter(({ FilePath: path }) => typeof path !== 'string' || !existsSync(path))
      if (gone.length > 0) this.#forget(gone.map(({ BlobId: id }) => id as number))
    })
  }

  close(): void {
    if (this.#isOver) return
    clearTimeout(this.#timer)
    this.#patiently(() => {
      while (this.#waiting.length > 0) this.#write()
    })
    this.#isOver = true
    this.#database.close()
  }

  #flush(): void {
    this.#timer = undefined
    if (this.#isOver) return
    try {
      this.#write()
    } catch (error) {
      this.#failed(error)
    }
    if (this.#waiting.length > 0 && !this.#isOver) this.#timer = setTimeout(() => this.#flush(), FLUSH_MS)
  }

  #write(): void {
    const rows = this.#waiting.slice(0, BATCH)
    this.#inTransaction(() => {
      const blob = this.#database.prepare('INSERT OR IGNORE INTO Blobs (FilePath) VALUES (?)')
      const chunk = this.#database.prepare(ADD_CHUNK)
      for (const path of new Set(rows.map((row) => row.path))) blob.run(path)
      for (const { id, path, offset } of rows) chunk.run(id, offset, path)
    })
    this.#waiting.splice(0, rows.length)
  }

  #forget(ids: readonly number[]): void {
    this.#inTransaction(() => {
      const chunks = this.#database.prepare('DELETE FROM Chunks WHERE BlobId = ?')
      const blob = this.#database.prepare('DELETE FROM Blobs WHERE BlobId = ?')
      for (const id of ids) {
        chunks.run(id)
        blob.run(id)
      }
    })
  }

  #inTransaction(act: () => void): void {
    this.#database.exec('BEGIN IMMEDIATE')
    try {
      act()
      this.#database.exec('COMMIT')
    } catch (error) {
      if (this.#database.isTransaction) this.#database.exec('ROLLBACK')
      throw error
    }
  }

  /** For the few moments when waiting for another daemon is better than coming back. */
  #patiently(act: () => void): void {
    try {
      this.#database.exec(`PRAGMA busy_timeout = ${CLOSE_BUSY_MS}`)
      act()
      this.#database.exec('PRAGMA busy_timeout = 0')
    } catch (error) {
      this.#failed(error)
    }
  }

  /** A database that is damaged, deleted or full is of no more use; one that is in use is. */
  #failed(error: unknown): void {
    const { errcode } = error as { readonly errcode?: unknown }
    if (typeof errcode === 'number' && BUSY.has(errcode & 0xff)) return
    this.#isOver = true
    this.#waiting.length = 0
    clearTimeout(this.#timer)
    this.#database.close()
  }
}
