import { existsSync, rmSync, type Stats, statSync } from 'node:fs'
import { DatabaseSync, type StatementSync } from 'node:sqlite'
import { type BlobInfo, ChunkInfo } from '../../blob/index.ts'
import { Attributes, type Bootstrap, type ChunkSpan, isType, MODE, walkBootstrap } from '../../rafs/index.ts'
import { BuilderError } from '../errors.ts'
import { type ChunkFact, ChunkFacts } from './chunk-facts.ts'

/** The tables of the original, so that either tool goes on with the other's database. */
const TABLES = {
  chunk: `CREATE TABLE IF NOT EXISTS chunk (
    id INTEGER PRIMARY KEY,
    image_reference TEXT,
    version TEXT,
    chunk_blob_id TEXT NOT NULL,
    chunk_digest TEXT,
    chunk_crc32 INT,
    chunk_compressed_size INT,
    chunk_uncompressed_size INT,
    chunk_compressed_offset INT,
    chunk_uncompressed_offset INT
  )`,
  blob: `CREATE TABLE IF NOT EXISTS blob (
    id INTEGER PRIMARY KEY,
    blob_id TEXT NOT NULL,
    blob_compressed_size INT,
    blob_uncompressed_size INT,
    blob_compressor TEXT,
    blob_meta_ci_compressed_size INT,
    blob_meta_ci_uncompressed_size INT,
    blob_meta_ci_offset INT
  )`,
} as const
const CHUNK_COLUMNS = [
  'image_reference',
  'version',
  'chunk_blob_id',
  'chunk_digest',
  'chunk_crc32',
  'chunk_compressed_size',
  'chunk_uncompressed_size',
  'chunk_compressed_offset',
  'chunk_uncompressed_offset',
] as const
const BLOB_COLUMNS = [
  'blob_id',
  'blob_compressed_size',
  'blob_uncompressed_size',
  'blob_compressor',
  'blob_meta_ci_compressed_size',
  'blob_meta_ci_uncompressed_size',
  'blob_meta_ci_offset',
] as const

/** Another process may be writing. */
const BUSY_MS = 5000
/** Longest text of a name that is taken from a row. */
const MAX_TEXT = 1024
/** Longest value or row that SQLite handles here. */
const MAX_VALUE = 2 ** 20
const MAX_U32 = 0xffff_ffff

/** One blob as the database has it. Sizes are bytes. */
export interface BlobFact {
  readonly compressedSize: number
  readonly uncompressedSize: number
  readonly compression: string
  readonly metaCompressedSize: number
  readonly metaUncompressedSize: number
  readonly metaOffset: number
}

/**
 * The database that a chunk dictionary is generated from: chunks of images, version by version, and their blobs. One process writes at a time. What it holds is not believed: rows are checked when they are
 * read, and tables that are none (views, generated columns, triggers) are refused. Throws BuilderError 'BAD_DATABASE'.
 */
export class ChunkDatabase {
  readonly #path: string
  readonly #database: DatabaseSync
  readonly #isNew: boolean

  private constructor(path: string, database: DatabaseSync, isNew: boolean) {
    this.#path = path
    this.#database = database
    this.#isNew = isNew
  }

  /** Opens the file, or makes it; `:memory:` lives as long as the object. */
  static open(path: string): ChunkDatabase {
    const stats = path === ':memory:' ? undefined : statOf(path)
    if (stats !== undefined && !stats.isFile())
      throw new BuilderError('BAD_DATABASE', `cannot use the database ${path}: it is not a regular file`)
    const isNew = path !== ':memory:' && stats === undefined
    let database: DatabaseSync | undefined
    try {
      database = new DatabaseSync(path, {
        timeout: BUSY_MS,
        allowExtension: false,
        enableDoubleQuotedStringLiterals: false,
      })
      const opened = new ChunkDatabase(path, database, isNew)
      opened.#prepare()
      return opened
    } catch (error) {
      database?.close()
      if (isNew) removeDatabase(path)
      throw coded(path, error)
    }
  }

  /** Saves the chunks and blobs of versions of images, all or none; what the database had of these versions is replaced. */
  async save(images: ReadonlyArray<SavedImage>, signal: AbortSignal): Promise<void> {
    const database = this.#database
    try {
      database.exec('BEGIN IMMEDIATE')
      const remove = database.prepare('DELETE FROM chunk WHERE image_reference = ? AND version = ?')
      for (const { image, version } of images) remove.run(image, version)
      const chunk = database.prepare(insertInto('chunk', CHUNK_COLUMNS))
      const hasBlob = database.prepare('SELECT 1 FROM blob WHERE blob_id = ?')
      const blob = database.prepare(insertInto('blob', BLOB_COLUMNS))
      for (const saved of images) {
        for (const info of saved.bootstrap.blobs) if (hasBlob.get(info.id) === undefined) blob.run(...blobValues(info))
        insertChunks(chunk, saved)
        await new Promise((resolve) => setImmediate(resolve)) // lets a signal through
        signal.throwIfAborted()
      }
      database.exec('COMMIT')
    } catch (error) {
      if (database.isTransaction) database.exec('ROLLBACK')
      throw coded(this.#path, error)
    }
  }

  /** All chunks. Throws BuilderError 'TOO_LARGE' too. */
  load(): ChunkFacts {
    const facts = new ChunkFacts()
    try {
      const rows = this.#database.prepare(`SELECT ${CHUNK_COLUMNS.join(', ')} FROM chunk ORDER BY id`)
      rows.setReturnArrays(true)
      let at = 0
      for (const row of rows.iterate()) facts.add(this.#chunkFact(row as unknown as readonly unknown[], ++at))
      return facts
    } catch (error) {
      throw coded(this.#path, error)
    }
  }

  /** The first row of a blob; undefined when there is none. */
  blob(id: string): BlobFact | undefined {
    try {
      const rows = this.#database.prepare(`SELECT ${BLOB_COLUMNS.join(', ')} FROM blob WHERE blob_id = ? ORDER BY id`)
      rows.setReturnArrays(true)
      const row = rows.get(id) as unknown as readonly unknown[] | undefined
      return row === undefined ? undefined : this.#blobFact(row, id)
    } catch (error) {
      throw coded(this.#path, error)
    }
  }

  close(): void {
    this.#database.close()
  }

  /** Closes it, and takes away a file that was not there before. */
  discard(): void {
    this.close()
    if (this.#isNew) removeDatabase(this.#path)
  }

  #prepare(): void {
    // The file may come from anywhere: what its schema says must not run functions, and no value of it be endless.
    this.#database.limits.length = MAX_VALUE
    this.#database.exec('PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON')
    for (const sql of Object.values(TABLES)) this.#database.exec(sql)
    const odd = this.#database
      .prepare(
        `SELECT name FROM sqlite_schema WHERE type IN ('trigger', 'view') OR (name IN ('chunk', 'blob') AND type != 'table') OR sql LIKE 'CREATE VIRTUAL%' LIMIT 1`,
      )
      .get()
    if (odd !== undefined)
      throw this.#bad(`it has ${JSON.stringify(odd['name'])}, which is no table of a chunk dictionary`)
    this.#checkColumns('chunk', CHUNK_COLUMNS)
    this.#checkColumns('blob', BLOB_COLUMNS)
    const long = ['image_reference', 'version', 'chunk_blob_id', 'chunk_digest']
    const tooLong = this.#database
      .prepare(
        `SELECT id FROM chunk WHERE ${long.map((name) => `octet_length(${name}) > ${MAX_TEXT}`).join(' OR ')} LIMIT 1`,
      )
      .get()
    if (tooLong !== undefined) throw this.#bad(`row ${String(tooLong['id'])} of its chunks has an endless name`)
  }

  #checkColumns(table: string, wanted: readonly string[]): void {
    const columns = this.#database.prepare(`SELECT name, hidden FROM pragma_table_xinfo('${table}')`).all()
    for (const name of ['id', ...wanted]) {
      const column = columns.find((candidate) => candidate['name'] === name)
      if (column === undefined) throw this.#bad(`its table "${table}" has no column "${name}"`)
      if (column['hidden'] !== 0) throw this.#bad(`column "${name}" of its table "${table}" is generated`)
    }
  }

  #chunkFact(row: readonly unknown[], at: number): ChunkFact {
    const [image, version, blobId, digest, crc32c, ...places] = row
    const [compressedSize, uncompressedSize, compressedOffset, uncompressedOffset] = places
    if (typeof image !== 'string' || typeof version !== 'string' || typeof blobId !== 'string')
      throw this.#bad(`row ${at} of its chunks has no names`)
    if (typeof digest !== 'string' || !/^[0-9a-f]{64}$/.test(digest))
      throw this.#bad(`row ${at} of its chunks has no digest of 64 hexadecimal digits`)
    const number = (value: unknown, most: number): number => this.#number(value, most, `row ${at} of its chunks`)
    return {
      image,
      version,
      blobId,
      digest,
      crc32c: number(crc32c, MAX_U32),
      compressedSize: number(compressedSize, MAX_U32),
      uncompressedSize: number(uncompressedSize, MAX_U32),
      compressedOffset: number(compressedOffset, Number.MAX_SAFE_INTEGER),
      uncompressedOffset: number(uncompressedOffset, Number.MAX_SAFE_INTEGER),
    }
  }

  #blobFact(row: readonly unknown[], id: string): BlobFact {
    const [, compressedSize, uncompressedSize, compression, metaCompressedSize, metaUncompressedSize, metaOffset] = row
    const number = (value: unknown): number => this.#number(value, Number.MAX_SAFE_INTEGER, `blob ${id}`)
    if (typeof compression !== 'string' || compression.length > MAX_TEXT)
      throw this.#bad(`blob ${id} has no compressor`)
    return {
      compressedSize: number(compressedSize),
      uncompressedSize: number(uncompressedSize),
      compression,
      metaCompressedSize: number(metaCompressedSize),
      metaUncompressedSize: number(metaUncompressedSize),
      metaOffset: number(metaOffset),
    }
  }

  #number(value: unknown, most: number, where: string): number {
    if (typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= most) return value
    throw this.#bad(`${where} has ${JSON.stringify(value)?.slice(0, 80)} where a number up to ${most} is wanted`)
  }

  #bad(what: string): BuilderError {
    return new BuilderError(
      'BAD_DATABASE',
      `cannot use the database ${this.#path}: ${what}; give --database a new file, and all images`,
    )
  }
}

/** An image to save. */
export interface SavedImage {
  readonly image: string
  readonly version: string
  readonly bootstrap: Bootstrap
}

function insertInto(table: string, columns: readonly string[]): string {
  return `INSERT INTO ${table} (${columns.join(', ')}) VALUES (${columns.map(() => '?').join(', ')})`
}

function blobValues(blob: BlobInfo): Array<string | number> {
  const { id, compressedSize, uncompressedSize, compression, metaCompressedSize, metaUncompressedSize, metaOffset } =
    blob
  return [id, compressedSize, uncompressedSize, compression, metaCompressedSize, metaUncompressedSize, metaOffset]
}

/** Every chunk of every file, as often as files name it: how often counts. */
function insertChunks(insert: StatementSync, { image, version, bootstrap }: SavedImage): void {
  const attributes = new Attributes()
  const spans: ChunkSpan[] = []
  const info = new ChunkInfo()
  for (const { ino } of walkBootstrap(bootstrap)) {
    bootstrap.attributes(ino, attributes)
    if (!isType(attributes.mode, MODE.FILE)) continue
    const count = bootstrap.chunks(ino, 0, attributes.size, spans)
    for (let at = 0; at < count; at += 1) {
      const span = spans[at]
      if (span === undefined) break
      const layout = bootstrap.layout(span.blobIndex)
      // Chunks of equal digest in one blob share a record; of tarfs none has one.
      if (!layout.has(span.chunkIndex)) continue
      layout.chunk(span.chunkIndex, info)
      insert.run(
        image,
        version,
        bootstrap.blobs[span.blobIndex]?.id ?? '',
        Buffer.from(info.digest).toString('hex'),
        info.crc32c ?? 0,
        info.compressedSize,
        info.uncompressedSize,
        info.compressedOffset,
        info.uncompressedOffset,
      )
    }
  }
}

function statOf(path: string): Stats | undefined {
  try {
    return statSync(path, { throwIfNoEntry: false })
  } catch (cause) {
    throw new BuilderError('BAD_DATABASE', `unable to open database file: ${path}`, { cause })
  }
}

function removeDatabase(path: string): void {
  for (const end of ['', '-journal', '-wal', '-shm']) if (existsSync(path + end)) rmSync(path + end)
}

/** An error of SQLite as one of this room's; others as they are. */
function coded(path: string, error: unknown): unknown {
  const { code, message } = error as { readonly code?: unknown; readonly message?: unknown }
  if (error instanceof BuilderError || typeof code !== 'string' || !/^ERR_(SQLITE|OUT_OF_RANGE)/.test(code))
    return error
  const words = String(message)
  if (words.startsWith('unable to open'))
    return new BuilderError('BAD_DATABASE', `unable to open database file: ${path}`, { cause: error })
  return new BuilderError('BAD_DATABASE', `cannot use the database ${path}: ${words}`, { cause: error })
}
