import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { test } from 'node:test'
import { CacheError, ChunkDedup } from './index.ts'

const ENDLESS = 'WITH RECURSIVE n(x) AS (VALUES(1) UNION ALL SELECT x + 1 FROM n)'

for (const [what, sql] of [
  ['a view in the place of a table', `CREATE VIEW Blobs(BlobId, FilePath) AS ${ENDLESS} SELECT 1, 'x' || x FROM n`],
  [
    'a trigger',
    `CREATE TABLE Blobs (BlobId INTEGER PRIMARY KEY, FilePath TEXT NOT NULL UNIQUE);
    CREATE TRIGGER Endless BEFORE INSERT ON Chunks BEGIN SELECT max(x) FROM (${ENDLESS} SELECT x FROM n); END`,
  ],
])
  test(`a deduplication database with ${what}, which could run for ever, is refused`, (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'nydus-dedup-'))
    t.after(() => rmSync(folder, { recursive: true }))
    const path = join(folder, 'cas.db')
    const database = new DatabaseSync(path)
    database.exec(`CREATE TABLE Chunks (ChunkId TEXT NOT NULL, ChunkOffset INTEGER, BlobId INTEGER);
      CREATE INDEX ChunkIndex ON Chunks(ChunkId); ${sql}`)
    database.close()
    assert.throws(
      () => ChunkDedup.open(path),
      (error) => error instanceof CacheError && /which is no table; give --dedup-db another file/.test(error.message),
    )
  })
