import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { copyFileSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { DatabaseSync } from 'node:sqlite'
import { type TestContext, test } from 'node:test'
import { mountTmpfs, unmount } from '../../kernel/index.ts'
import { SnapshotStore } from './index.ts'

const skip = process.getuid?.() === 0 ? false : 'mounting needs root'
const LABELS = new Map([['label', 'x'.repeat(300)]])
const CLIENTS = 32

/** A store whose log has room. */
async function roomy(t: TestContext): Promise<SnapshotStore> {
  const root = mkdtempSync(join(tmpdir(), 'groups-'))
  const store = SnapshotStore.open(root)
  t.after(() => {
    store.close()
    rmSync(root, { recursive: true })
  })
  store.create('active', 'first', '', LABELS)
  await store.flush()
  return store
}

/** What another process would find if this one were killed now. */
function withTheKernel({ root }: SnapshotStore): string[] {
  const path = join(root, 'copy.sqlite')
  for (const suffix of ['', '-wal']) copyFileSync(join(root, `metadata.sqlite${suffix}`), path + suffix)
  const copy = new DatabaseSync(path)
  try {
    copy.exec('PRAGMA locking_mode = EXCLUSIVE')
    return copy
      .prepare('SELECT key FROM snapshots ORDER BY key')
      .all()
      .map(({ key }) => String(key))
  } finally {
    copy.close()
  }
}

const sorted = (keys: readonly string[]): string[] => keys.toSorted((a, b) => (a < b ? -1 : 1))

test('changes of one turn go to the log together: all that was said is there, and a call that fails takes nothing from the others', async (t) => {
  const store = await roomy(t)
  const failed: unknown[] = []
  const waits = Array.from({ length: CLIENTS }, async (_unused, i) => {
    try {
      store.create('active', i === 7 ? 'first' : `key ${i}`, i === 9 ? 'nothing' : '', LABELS)
    } catch (error) {
      failed.push((error as { code?: string }).code)
    }
    await store.flush()
  })
  assert.deepEqual(withTheKernel(store), ['first'], 'the group was written before it was complete')
  await Promise.all(waits)
  assert.deepEqual(failed, ['ALREADY_EXISTS', 'NOT_FOUND'])
  const keys = store.list([]).map(({ key }) => key)
  assert.equal(keys.length, CLIENTS - 1)
  assert.deepEqual(withTheKernel(store), keys)
})

test('what nobody waits for is with the kernel at the end of the turn, and at once when directories go or a record is kept', async (t) => {
  const store = await roomy(t)
  store.create('active', 'alone', '', LABELS)
  await new Promise((resolve) => setImmediate(resolve))
  assert.deepEqual(withTheKernel(store), ['alone', 'first'])
  store.remove('alone')
  assert.equal(store.orphans().length, 1)
  assert.deepEqual(withTheKernel(store), ['first'])
  store.create('active', 'with a record', '', LABELS)
  store.records('daemons').put('key', '{}')
  assert.deepEqual(withTheKernel(store), ['first', 'with a record'])
})

test('a group that a full disk refuses is refused to its calls, and nothing of it is left; with room again calls go on', {
  skip,
}, async () => {
  const at = mkdtempSync(join(tmpdir(), 'groups-'))
  await mountTmpfs(at, 16 * 2 ** 20)
  try {
    const root = join(at, 'root')
    let store = SnapshotStore.open(root)
    store.create('active', 'first', '', LABELS)
    await store.flush()
    const ballast = join(at, 'ballast')
    assert.throws(() => writeFileSync(ballast, Buffer.alloc(16 * 2 ** 20)), { code: 'ENOSPC' })
    // Four times as much as there is room for.
    const large = new Map(Array.from({ length: 250 }, (_unused, i) => [`label ${i}`, 'x'.repeat(4000)] as const))
    const create = async (i: number): Promise<string> => {
      const { losses } = store
      try {
        store.create('active', `key ${i}`, '', large)
      } finally {
        await store.flush(losses)
      }
      return `key ${i}`
    }
    const results = await Promise.allSettled(Array.from({ length: 16 }, async (_unused, i) => await create(i)))
    const codes = results.map((result) =>
      result.status === 'rejected' ? (result.reason as { code: string }).code : '',
    )
    assert.ok(store.losses > 0)
    assert.deepEqual([...new Set(codes)].filter(Boolean), ['RESOURCE_EXHAUSTED'])
    const said = results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []))
    const keys = (): string[] => store.list([]).map(({ key }) => key)
    assert.deepEqual(keys(), sorted(['first', ...said]))
    rmSync(ballast)
    assert.equal(await create(99), 'key 99')
    store.close()
    store = SnapshotStore.open(root)
    assert.deepEqual([keys(), store.warnings], [sorted(['first', 'key 99', ...said]), []])
    store.close()
  } finally {
    await unmount(at, true)
    rmSync(at, { recursive: true })
  }
})

test('a process that is killed in the middle of groups leaves what each call said, or one step more of it', {
  timeout: 180_000,
}, async (t) => {
  const root = mkdtempSync(join(tmpdir(), 'groups-'))
  t.after(() => rmSync(root, { recursive: true }))
  const program = join(import.meta.dirname, 'testdata/grouping-process.ts')
  const next: Readonly<Record<string, string>> = { none: 'active', active: 'committed', committed: 'none' }
  for (const lines of [300, 77, 1000, 500]) {
    const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', program, root, String(CLIENTS)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    child.stdout.setEncoding('utf8')
    let said = ''
    while (said.split('\n').length <= lines) said += String((await once(child.stdout, 'data'))[0])
    child.kill('SIGKILL')
    said += await text(child.stdout)
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
    const last = new Map(Array.from({ length: CLIENTS }, (_unused, client) => [String(client), 'none']))
    for (const line of said.trimEnd().split('\n')) last.set(line.split(' ')[0] ?? '', line.split(' ')[1] ?? '')
    const store = SnapshotStore.open(root)
    const keys = new Set(store.list([]).map(({ key }) => key))
    assert.deepEqual(store.warnings, [])
    for (const [client, step] of last) {
      const found = ['active', 'committed'].filter((kind) => keys.has(`${client} ${kind}`))
      const ok = [step, next[step] ?? ''].map((kind) => (kind === 'none' ? '' : kind))
      assert.ok(ok.includes(found.join()), `${client}: said ${step}, found ${found.join()}`)
    }
    for (const snapshot of store.list([])) assert.ok(readdirSync(store.directory(snapshot)).includes('fs'))
    store.close()
  }
})
