import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { mountTmpfs, unmount } from '../../kernel/index.ts'
import { SnapshotterError } from '../errors.ts'
import { exportState, SnapshotStore } from './index.ts'

const skip = process.getuid?.() === 0 ? false : 'mounting needs root'
/** Longer than the log waits before it is written into the database. */
const IDLE_MS = 2500
const LABELS = new Map([['label', 'x'.repeat(2000)]])

/** Makes snapshots until it is refused; gives what the error says and how many there are. */
function fill(store: SnapshotStore, prefix: string): { code: string; message: string; count: number } {
  for (let count = 0; ; count += 1)
    try {
      store.create('active', `${prefix} ${count}`, '', LABELS)
    } catch (error) {
      if (error instanceof SnapshotterError) return { code: error.code, message: error.message, count }
      throw error
    }
}

test('on a full disk calls are refused and nothing is lost; with room again they go on', { skip }, async () => {
  const at = mkdtempSync(join(tmpdir(), 'full-'))
  await mountTmpfs(at, 4 * 2 ** 20)
  try {
    const root = join(at, 'root')
    let store = SnapshotStore.open(root)
    const ballast = join(at, 'ballast')
    writeFileSync(ballast, Buffer.alloc(2 ** 20))
    const { code, message, count } = fill(store, 'first')
    assert.deepEqual([code, /free space on the disk/.test(message)], ['RESOURCE_EXHAUSTED', true], message)
    assert.ok(count > 10)
    await store.flush().catch(() => undefined)
    assert.equal(store.list([]).length, count)
    assert.equal(readdirSync(join(root, 'snapshots')).length, count, 'a directory without a record is left')
    store.close()
    rmSync(ballast)
    store = SnapshotStore.open(root)
    assert.deepEqual([store.list([]).length, store.warnings], [count, []])
    store.create('active', 'again', '', LABELS)
    store.remove('first 0')
    await store.flush()
    fill(store, 'second')
    const kept = store.list([]).length
    store.close()
    assert.throws(() => exportState(root), { code: 'RESOURCE_EXHAUSTED' })
    assert.ok(!readdirSync(root).some((name) => name.endsWith('.new')))
    store = SnapshotStore.open(root)
    assert.equal(store.list([]).length, kept)
    store.close()
  } finally {
    await unmount(at, true)
    rmSync(at, { recursive: true })
  }
})

test('a disk that was full when the log was to be written into the database needs no restart', { skip }, async () => {
  const at = mkdtempSync(join(tmpdir(), 'full-'))
  await mountTmpfs(at, 4 * 2 ** 20)
  try {
    const root = join(at, 'root')
    let store = SnapshotStore.open(root)
    const ballast = join(at, 'ballast')
    writeFileSync(ballast, Buffer.alloc(2 ** 20))
    const { count } = fill(store, 'first')
    await sleep(IDLE_MS)
    const { size } = statSync(join(root, 'metadata.sqlite'))
    assert.ok(size < count * 2000, 'the database was written, though the disk is full')
    rmSync(ballast)
    store.remove('first 0')
    store.create('active', 'again', '', LABELS)
    await store.flush()
    store.close()
    store = SnapshotStore.open(root)
    assert.equal(store.list([]).length, count)
    store.close()
  } finally {
    await unmount(at, true)
    rmSync(at, { recursive: true })
  }
})

test('a log leaves the last of a disk to others', { skip }, async () => {
  const at = mkdtempSync(join(tmpdir(), 'full-'))
  await mountTmpfs(at, 4 * 2 ** 20)
  try {
    const root = join(at, 'root')
    const store = SnapshotStore.open(root)
    const log = join(root, 'metadata.sqlite-wal')
    const { size } = statSync(log)
    const abort = new AbortController()
    const making = store.makeAhead(abort.signal)
    await store.flush()
    assert.equal(statSync(log).size, size)
    abort.abort()
    await making
    writeFileSync(join(at, 'others'), Buffer.alloc(3 * 2 ** 20))
    store.create('active', 'a', '', LABELS)
    await store.flush()
    store.close()
  } finally {
    await unmount(at, true)
    rmSync(at, { recursive: true })
  }
})
