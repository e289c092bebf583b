import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { existsSync, lstatSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { unmount } from '../../kernel/index.ts'
import { SnapshotStore } from './index.ts'

const NONE = new Map<string, string>()
const whyNoMount = process.getuid?.() === 0 ? false : 'binding a directory needs root'

/** A store that makes directories ahead until the test is over. */
function started(t: TestContext): { store: SnapshotStore; spares: string; stop: () => Promise<void> } {
  const root = mkdtempSync(join(tmpdir(), 'spares-'))
  const store = SnapshotStore.open(root)
  const abort = new AbortController()
  const keeping = store.makeAhead(abort.signal)
  const stop = async (): Promise<void> => {
    abort.abort()
    await keeping
  }
  t.after(async () => {
    await stop()
    store.close()
    rmSync(root, { recursive: true, force: true })
  })
  return { store, spares: join(root, 'spares'), stop }
}

const names = (path: string): string[] => (existsSync(path) ? readdirSync(path) : [])

async function until(isSo: () => boolean): Promise<void> {
  while (!isSo()) await new Promise((resolve) => setTimeout(resolve, 5))
}

test('an active snapshot gets a directory that was made ahead, of the same form as others; the next is made for it', async (t) => {
  const { store, spares, stop } = started(t)
  await until(() => names(spares).length === 256)
  const inodes = new Set(names(spares).map((name) => lstatSync(join(spares, name)).ino))
  const made = store.directory(store.create('active', 'a', '', NONE))
  assert.ok(inodes.has(lstatSync(made).ino))
  const modes = (of: string): number[] =>
    [of, join(of, 'fs'), join(of, 'work')].map((path) => lstatSync(path).mode & 0o7777)
  assert.deepEqual(modes(made), [0o700, 0o755, 0o711])
  await until(() => names(spares).length === 256)
  const view = store.directory(store.create('view', 'v', '', NONE))
  assert.deepEqual(readdirSync(view), ['fs'])
  await stop()
  assert.equal(existsSync(spares), false)
  assert.deepEqual(readdirSync(store.directory(store.create('active', 'b', '', NONE))).sort(), ['fs', 'work'])
  assert.deepEqual(store.orphans(), [])
})

test('a snapshot is made without a look at what is known: modes that a mask took are mended ahead, the owner of a layer is looked up once', {
  timeout: 180_000,
}, async (t) => {
  const mask = process.umask(0o077)
  t.after(() => process.umask(mask))
  const { store, spares } = started(t)
  await until(() => names(spares).length === 256)
  const ready = names(spares).flatMap((name) => [join(spares, name, 'fs'), join(spares, name, 'work')])
  await until(() => ready.every((path) => lstatSync(path).mode % 0o10 === 0o5 || lstatSync(path).mode % 0o10 === 0o1))
  const layer = store.create('active', 'extract', '', NONE)
  store.commit('layer', 'extract', NONE, undefined)
  store.create('active', 'first', 'layer', NONE)
  rmSync(join(store.directory(layer), 'fs'), { recursive: true })
  store.create('active', 'second', 'layer', NONE)
  const made = store.directory(store.stat('second'))
  assert.deepEqual(
    ['fs', 'work'].map((name) => lstatSync(join(made, name)).mode & 0o7777),
    [0o755, 0o711],
  )
})

test('a layer that has lost its directory is told of, and costs no directory that is ready', async (t) => {
  const { store, spares } = started(t)
  await until(() => names(spares).length === 256)
  const active = store.create('active', 'second', '', NONE)
  rmSync(store.directory(active), { recursive: true })
  store.commit('layer', 'second', NONE, undefined)
  const left = names(spares).length
  assert.throws(() => store.create('active', 'third', 'layer', NONE), { code: 'INTERNAL', message: /ENOENT/ })
  assert.equal(names(spares).length, left)
})

test('more at once than were made ahead are made all the same, and the mapped user owns theirs', async (t) => {
  const { store, spares } = started(t)
  await until(() => names(spares).length === 256)
  const mapped = new Map([
    ['containerd.io/snapshot/uidmapping', '0:1000:65536'],
    ['containerd.io/snapshot/gidmapping', '0:1000:65536'],
  ])
  const labels = process.getuid?.() === 0 ? mapped : NONE
  const owner = labels === NONE ? process.getuid?.() : 1000
  for (let i = 0; i < 300; i += 1) {
    const directory = store.directory(store.create('active', `key ${i}`, '', labels))
    assert.equal(lstatSync(join(directory, 'fs')).uid, owner)
    assert.deepEqual(readdirSync(directory).sort(), ['fs', 'work'])
  }
})

test('what a killed process left of them goes, what somebody removed or put there hurts nobody', async (t) => {
  const { store, spares, stop } = started(t)
  await until(() => names(spares).length === 256)
  for (const name of names(spares)) rmSync(join(spares, name), { recursive: true })
  assert.deepEqual(readdirSync(store.directory(store.create('active', 'a', '', NONE))).sort(), ['fs', 'work'])
  await stop()
  mkdirSync(join(spares, '7', 'fs'), { recursive: true })
  mkdirSync(join(spares, '65', 'precious'), { recursive: true })
  const again = new AbortController()
  const keeping = store.makeAhead(again.signal)
  await until(() => names(spares).length > 60)
  again.abort()
  await keeping
  assert.deepEqual(names(spares), ['65'])
})

test('where snapshots are a mount of their own, directories are made there', { skip: whyNoMount }, async (t) => {
  const { store, spares } = started(t)
  const elsewhere = mkdtempSync(join(tmpdir(), 'elsewhere-'))
  t.after(() => rmSync(elsewhere, { recursive: true, force: true }))
  await until(() => names(spares).length === 256)
  const at = join(store.root, 'snapshots')
  execFileSync('mount', ['--bind', elsewhere, at])
  try {
    for (const key of ['a', 'b'])
      assert.deepEqual(readdirSync(store.directory(store.create('active', key, '', NONE))).sort(), ['fs', 'work'])
    assert.deepEqual(readdirSync(elsewhere).sort(), ['1', '2'])
  } finally {
    await unmount(at)
  }
})
