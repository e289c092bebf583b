/** Databases of chunk dictionaries, which come from anywhere and are SQLite's to read. */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ChunkDatabase } from '../../src/builder/chunkdict/database.ts'
import { selectChunks } from '../../src/builder/chunkdict/select.ts'
import { BuilderError } from '../../src/builder/index.ts'
import { openBootstrap } from '../../src/rafs/index.ts'
import type { Seed, Target } from './target.ts'

const testdata = join(import.meta.dirname, '../../src/rafs/testdata')
const PAGE = 4096
const SIGNAL = new AbortController().signal
let folder: string | undefined

/** Where the database of this thread is put, in memory if possible. */
function path(): string {
  if (folder === undefined) {
    const made = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'fuzz-database-'))
    folder = made
    process.once('exit', () => rmSync(made, { recursive: true, force: true }))
  }
  return join(folder, 'database')
}

/** Two versions of an image, which share chunks. */
async function saved(): Promise<Seed[]> {
  const bootstrap = openBootstrap(readFileSync(join(testdata, 'v6-upper-tar.bootstrap')))
  const other = openBootstrap(readFileSync(join(testdata, 'v6-third-inline.bootstrap')))
  clear()
  const database = ChunkDatabase.open(path())
  try {
    await database.save(
      [
        { image: 'image', version: 'one', bootstrap },
        { image: 'image', version: 'two', bootstrap },
        { image: 'other', version: 'one', bootstrap: other },
      ],
      SIGNAL,
    )
  } finally {
    database.close()
  }
  const bytes = readFileSync(path())
  const header = Array.from({ length: 25 }, (_unused, index) => index * 4)
  const pages = Array.from({ length: bytes.length / PAGE }, (_unused, page) => page * PAGE + (page === 0 ? 100 : 0))
  // Of each page: its header, the first pointers to cells, and the cells at its end.
  const cells = [0, 1, 3, 5, 7, 8, 10, 12, 14, 16]
  const fields = pages.flatMap((at) => [
    ...cells.map((field) => at + field),
    ...Array.from({ length: 24 }, (_unused, index) => Math.floor(at / PAGE) * PAGE + PAGE - 8 * (index + 1)),
  ])
  return [{ bytes, fields: [...header, ...fields] }]
}

function clear(): void {
  for (const name of readdirSync(join(path(), '..'))) rmSync(join(path(), '..', name))
}

async function readDatabase(bytes: Uint8Array): Promise<string> {
  clear()
  writeFileSync(path(), bytes)
  const database = ChunkDatabase.open(path())
  try {
    const facts = database.load()
    const blob = database.blob('b'.repeat(64))
    const selection = await selectChunks(facts, SIGNAL)
    return JSON.stringify([blob, selection]).slice(0, 1000)
  } finally {
    database.close()
  }
}

export const DATABASES: Readonly<Record<string, Target>> = {
  database: { seeds: saved, read: readDatabase, refusals: [BuilderError] },
}
