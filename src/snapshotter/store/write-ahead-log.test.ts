import assert from 'node:assert/strict'
import { fdatasync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { afterEach, test } from 'node:test'
import { promisify } from 'node:util'
import { SnapshotStore } from './index.ts'
import { WriteAheadLog } from './write-ahead-log.ts'

const roots: string[] = []

afterEach(() => {
  for (const root of roots.splice(0)) rmSync(root, { recursive: true, force: true })
})

/** A database of one table, and its log, whose syncs are real and counted, and fail when they shall. */
function opened(): { database: DatabaseSync; log: WriteAheadLog; syncs: () => number; fail: (error: Error) => void } {
  const root = mkdtempSync(join(tmpdir(), 'log-'))
  roots.push(root)
  const path = join(root, 'database')
  const database = new DatabaseSync(path)
  database.exec('PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; CREATE TABLE t (a)')
  let [syncs, failure] = [0, undefined as Error | undefined]
  const log = new WriteAheadLog(database, path, async (fd) => {
    syncs += 1
    if (failure !== undefined) throw failure
    await promisify(fdatasync)(fd)
  })
  return { database, log, syncs: () => syncs, fail: (error) => (failure = error) }
}

test('many changes that wait for the disk at one time share two syncs, none is made when nothing changed', async () => {
  const { database, log, syncs } = opened()
  const insert = database.prepare('INSERT INTO t VALUES (?)')
  const waits = Array.from({ length: 100 }, (_unused, i) => {
    insert.run(i)
    log.changed()
    return log.flush()
  })
  await Promise.all(waits)
  assert.equal(syncs(), 2)
  await log.flush()
  assert.equal(syncs(), 2)
  log.close()
  database.close()
})

test('a change that comes while the disk is busy is not said to be there with the others', async () => {
  const { database, log, syncs } = opened()
  log.changed()
  const first = log.flush()
  const alone = log.flush()
  log.changed()
  const second = log.flush()
  await Promise.all([first, alone, second])
  assert.equal(syncs(), 2)
  log.close()
  database.close()
})

test('after a sync that failed nothing can be changed', async () => {
  const { database, log, fail } = opened()
  log.changed()
  fail(Object.assign(new Error('EIO: i/o error, fdatasync'), { errno: -5 }))
  const expected = { code: 'INTERNAL', message: /to the disk: EIO/ }
  await Promise.all([1, 2].map(() => assert.rejects(log.flush(), expected)))
  assert.throws(() => log.assertSound(), expected)
  await assert.rejects(log.flush(), expected)
  log.close()
  database.close()
})

test('a store may be closed while the disk is busy', async () => {
  const root = mkdtempSync(join(tmpdir(), 'log-'))
  roots.push(root)
  const store = SnapshotStore.open(root)
  store.create('active', 'a', '', new Map())
  const wait = store.flush()
  store.close()
  await wait
  await store.flush()
  const again = SnapshotStore.open(root)
  again.stat('a')
  await again.flush()
  again.close()
})
