import assert from 'node:assert/strict'
import { copyFileSync, fdatasync, mkdtempSync, rmSync, statSync } from 'node:fs'
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
function opened() {
  const root = mkdtempSync(join(tmpdir(), 'log-'))
  roots.push(root)
  const path = join(root, 'database')
  const database = new DatabaseSync(path)
  database.exec('PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; CREATE TABLE t (a)')
  database.exec(
    'CREATE TABLE p (id INTEGER PRIMARY KEY); CREATE TABLE c (p REFERENCES p DEFERRABLE INITIALLY DEFERRED)',
  )
  let [syncs, failure] = [0, undefined as Error | undefined]
  const begun = Promise.withResolvers<void>()
  const log = new WriteAheadLog(database, path, async (fd) => {
    syncs += 1
    begun.resolve()
    if (failure !== undefined) throw failure
    await promisify(fdatasync)(fd)
  })
  return {
    database,
    log,
    path,
    syncs: () => syncs,
    begun: () => begun.promise,
    fail: (error: Error) => (failure = error),
  }
}

test('many changes that wait for the disk at one time share a sync, none is made when nothing changed', async () => {
  const { database, log, syncs } = opened()
  const insert = database.prepare('INSERT INTO t VALUES (?)')
  const waits = Array.from({ length: 100 }, (_unused, i) => {
    log.change(() => insert.run(i))
    return log.flush()
  })
  await Promise.all(waits)
  assert.equal(syncs(), 1)
  await log.flush()
  assert.equal(syncs(), 1)
  log.close()
  database.close()
})

test('a change that comes while the disk is busy is not said to be there with the others', async () => {
  const { database, log, syncs, begun } = opened()
  log.change(() => undefined)
  const first = log.flush()
  await begun()
  const alone = log.flush()
  log.change(() => undefined)
  let isSaid = false
  const waits = [log.flush(), log.flush()].map((wait) => wait.then(() => (isSaid = true)))
  await Promise.all([first, alone])
  assert.equal(isSaid, false)
  await Promise.all(waits)
  assert.equal(syncs(), 2)
  log.close()
  database.close()
})

test('the log has room to grow, which is made again only when that is used up, and is no content of it', async () => {
  const { database, log, path } = opened()
  const size = (): number => statSync(`${path}-wal`).size
  const [room, filled] = [4 * 2 ** 20, Buffer.alloc(2 ** 20, 1)]
  const small = size()
  log.change(() => undefined)
  await log.flush()
  assert.equal(size(), small + room)
  const insert = database.prepare('INSERT INTO t VALUES (?)')
  const write = async (rows: number): Promise<void> => {
    for (let i = 0; i < rows; i += 1) log.change(() => insert.run(filled))
    await log.flush()
  }
  await write(2)
  assert.equal(size(), small + room)
  await write(3)
  const grown = size()
  assert.ok(grown > small + 5 * 2 ** 20 + room)
  // As it is when a process is killed; the next one makes no more.
  const left = `${path}.left`
  for (const suffix of ['', '-wal']) copyFileSync(path + suffix, left + suffix)
  log.close()
  database.close()
  const again = new DatabaseSync(left)
  again.exec('PRAGMA locking_mode = EXCLUSIVE')
  assert.deepEqual({ ...again.prepare('SELECT count(*) AS rows FROM t').get() }, { rows: 5 })
  const next = new WriteAheadLog(again, left)
  next.change(() => undefined)
  await next.flush()
  assert.equal(statSync(`${left}-wal`).size, grown)
  next.close()
  again.close()
})

test('room that is made ahead is enough for thousands of calls: the log does not grow in their midst', async () => {
  const { database, log, path, syncs } = opened()
  const size = (): number => statSync(`${path}-wal`).size
  await log.prepare(new AbortController().signal)
  const [made, before] = [size(), syncs()]
  assert.ok(made >= 16 * 2 ** 20 && made < 17 * 2 ** 20)
  const insert = database.prepare('INSERT INTO t VALUES (?)')
  for (let i = 0; i < 15; i += 1) {
    log.change(() => insert.run(Buffer.alloc(2 ** 20, 1)))
    await log.flush()
  }
  assert.deepEqual([size(), syncs()], [made, before + 15])
  // There is no more than that, whoever asks again.
  await log.prepare(new AbortController().signal)
  assert.equal(size(), made)
  log.close()
  database.close()
})

test('changes that come together are one transaction, which writes a page once', async () => {
  const { database, log } = opened()
  const insert = database.prepare('INSERT INTO t VALUES (?)')
  /** Pages that these changes put into the log. */
  const pages = async (change: (i: number) => Promise<void>): Promise<number> => {
    database.exec('PRAGMA wal_checkpoint(TRUNCATE)')
    await Promise.all(Array.from({ length: 32 }, (_unused, i) => change(i)))
    return Number(database.prepare('PRAGMA wal_checkpoint(PASSIVE)').get()?.['log'])
  }
  const change = async (i: number): Promise<void> => {
    log.change(() => insert.run(i))
    await log.flush()
  }
  assert.equal(await pages(change), 32, 'the log has no room yet')
  assert.equal(await pages(change), 1)
  log.close()
  database.close()
})

test('who shares a group that is lost is told, whoever had it written; later ones are not', async () => {
  const { database, log } = opened()
  const rows = (): unknown => database.prepare('SELECT count(*) AS n FROM t').get()?.['n']
  let reloads = 0
  log.whenLost(() => (reloads += 1))
  await log.prepare(AbortSignal.abort())
  const insert = database.prepare('INSERT INTO t VALUES (?)')
  const orphan = database.prepare('INSERT INTO c VALUES (1)')
  const isLost = { code: 'INTERNAL', message: /came together: .*FOREIGN KEY/ }
  log.change(() => insert.run(1))
  await log.flush()
  const since = log.losses
  log.change(() => insert.run(2))
  const waits = log.flush(since)
  log.change(() => orphan.run())
  await assert.rejects(waits, isLost)
  assert.deepEqual([rows(), reloads, log.losses], [1, 1, since + 1])
  await assert.rejects(log.flush(since), isLost)
  // Another one has it written, while the first waits already.
  const again = log.losses
  log.change(() => insert.run(3))
  const early = log.flush(again)
  log.change(() => orphan.run())
  assert.throws(() => log.write(), isLost)
  await assert.rejects(early, isLost)
  log.change(() => insert.run(4))
  await log.flush()
  assert.deepEqual([rows(), reloads], [2, 2])
  log.close()
  database.close()
})

test('after a sync that failed nothing can be changed', async () => {
  const { database, log, fail } = opened()
  log.change(() => undefined)
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
