import assert from 'node:assert/strict'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, test } from 'node:test'
import { gunzipSync } from 'node:zlib'
import { BoltFile } from './bolt/bolt-file.ts'
import { type BoltTree, boltBytes } from './bolt/write-bolt.ts'
import { exportState, SnapshotStore } from './index.ts'

const TOP = 'k8s.io/4/sha256:5fcf259cfbc6021768837cd9639db2ab9c193452ef3ad9040b718b30d39d13fa'
const roots: string[] = []

afterEach(() => {
  for (const root of roots.splice(0)) rmSync(root, { recursive: true, force: true })
})

/** A root as the original left it. */
function root(files: Readonly<Record<string, Uint8Array>> = originals()): string {
  const path = mkdtempSync(join(tmpdir(), 'store-'))
  roots.push(path)
  for (const [name, bytes] of Object.entries(files)) writeFileSync(join(path, name), bytes)
  for (const id of [1, 2, 3, 4])
    for (const name of ['fs', 'work']) mkdirSync(join(path, 'snapshots', String(id), name), { recursive: true })
  return path
}

function originals(): Record<string, Uint8Array> {
  const bytes = (name: string) => gunzipSync(readFileSync(join(import.meta.dirname, `testdata/${name}.gz`)))
  return { 'metadata.db': bytes('metadata.db'), 'nydus.db': bytes('nydus.db') }
}

function using<T>(path: string, use: (store: SnapshotStore) => T): T {
  const store = SnapshotStore.open(path)
  try {
    return use(store)
  } finally {
    store.close()
  }
}

/** Everything that a store says. */
function content(path: string): unknown {
  return using(path, (store) => [
    store.list([]),
    store.records('daemons').all(),
    store.records('instances').all(),
    store.chain(TOP).map(({ key }) => key),
  ])
}

function tree(content: Readonly<Record<string, BoltTree | Uint8Array | string>>): BoltTree {
  return {
    entries: Object.entries(content).map(([key, value]) => [
      Buffer.from(key),
      typeof value === 'string' ? Buffer.from(value) : value,
    ]),
  }
}

test("the original's root is taken over, and its files stay", () => {
  const path = root()
  using(path, (store) => {
    assert.deepEqual(store.warnings, [])
    const first = store.stat('k8s.io/5/first')
    assert.deepEqual([first.id, first.kind, first.parent, first.usage], [4, 'active', TOP, undefined])
    assert.equal(first.createdAt, 1795799035508536155n)
    const top = store.stat(TOP)
    assert.deepEqual([top.kind, top.usage], ['committed', { bytes: 49152, inodes: 5 }])
    assert.equal(top.labels.get('containerd.io/snapshot/nydus-bootstrap'), 'true')
    assert.deepEqual(
      store.chain('k8s.io/5/first').map(({ id }) => id),
      [3, 2, 1],
    )
    assert.deepEqual(store.orphans(), [])
    const [daemon] = store.records('daemons').all()
    assert.equal((JSON.parse(daemon?.json ?? '') as { DaemonMode: string }).DaemonMode, 'shared')
    assert.deepEqual(
      store
        .records('instances')
        .all()
        .map(({ key, seq }) => [key, seq]),
      [['3', 1]],
    )
    assert.equal(store.create('active', 'new', TOP, new Map()).id, 5)
  })
  for (const [name, bytes] of Object.entries(originals())) assert.deepEqual(readFileSync(join(path, name)), bytes)
  assert.equal(
    using(path, (store) => store.stat('new').id),
    5,
  )
})

test('the last id that the original gave is not given again', () => {
  const snapshots: BoltTree = { entries: [], sequence: 41 }
  const path = root({ 'metadata.db': boltBytes(tree({ v1: tree({ snapshots }) }), 2) })
  assert.equal(
    using(path, (store) => store.create('active', 'a', '', new Map()).id),
    42,
  )
})

test('an export is taken over again as it was, and the store is put away', () => {
  const path = root()
  using(path, (store) => {
    store.create('active', 'extract', '', new Map())
    store.commit('not measured', 'extract', new Map(), undefined)
    for (let i = 0; i < 60; i += 1) {
      store.create('active', `extract ${i}`, i === 0 ? TOP : `layer ${i - 1}`, new Map())
      store.commit(`layer ${i}`, `extract ${i}`, new Map([['number', String(i)]]), { bytes: i * 4096, inodes: i })
    }
    store.remove('layer 59')
    store.records('instances').put('9', '{"SnapshotID":"9"}')
  })
  const before = content(path)
  const exported = exportState(path)
  assert.deepEqual([exported.snapshots, exported.daemons, exported.instances], [64, 1, 2])
  const names = readdirSync(path).sort()
  assert.deepEqual(names, [
    'metadata.db',
    'metadata.db.before-export',
    'metadata.sqlite.exported',
    'nydus.db',
    'nydus.db.before-export',
    'snapshots',
    'snapshotter.lock',
  ])
  for (const name of ['metadata.db', 'nydus.db']) assert.equal(statSync(join(path, name)).mode & 0o777, 0o600)
  const after = content(path) as unknown[]
  assert.deepEqual(JSON.parse(((after[2] as { json: string }[])[1] ?? { json: '' }).json), { SnapshotID: '9', Seq: 2 })
  after[2] = (before as unknown[])[2]
  assert.deepEqual(after, before)
  assert.equal(
    using(path, (store) => store.create('active', 'a', '', new Map()).id),
    66,
  )
})

test('a root that has nothing is not exported; one without snapshots is', () => {
  const path = mkdtempSync(join(tmpdir(), 'store-'))
  roots.push(path)
  assert.throws(() => exportState(path), { code: 'NOT_FOUND' })
  assert.deepEqual(readdirSync(path), [])
  using(path, () => {})
  assert.equal(exportState(path).snapshots, 0)
  assert.deepEqual(
    using(path, (store) => store.list([])),
    [],
  )
})

test('while the original runs, and while this one does, the other waits', () => {
  const path = root()
  const theirs = new BoltFile(join(path, 'nydus.db'))
  assert.throws(() => SnapshotStore.open(path), { code: 'LOCKED', message: /nydus\.db open; stop it/ })
  assert.ok(!existsSync(join(path, 'metadata.sqlite')))
  theirs.close()
  using(path, () => assert.throws(() => new BoltFile(join(path, 'metadata.db')), { code: 'LOCKED' }))
})

test('two histories are told apart, and the operator decides', () => {
  const path = root()
  using(path, (store) => store.create('active', 'ours', '', new Map()))
  writeFileSync(join(path, 'metadata.db'), boltBytes(tree({ v1: tree({ snapshots: tree({}) }) }), 4000))
  assert.throws(() => SnapshotStore.open(path), {
    code: 'BAD_STATE',
    message: /was changed by another snapshotter.*mv .*metadata\.db /s,
  })
  rmSync(join(path, 'metadata.db'))
  using(path, (store) => store.stat('ours'))
})

test('an export that was cut off changes nothing', () => {
  const path = root()
  using(path, (store) => {
    const { transaction } = store.exportable()
    writeFileSync(join(path, 'metadata.db'), boltBytes(tree({}), transaction))
  })
  assert.equal(
    using(path, (store) => store.list([]).length),
    4,
  )
})

const SNAPSHOT = { id: Buffer.of(1), kind: Buffer.of(3), createdat: '', updatedat: '' }

test('records that cannot be are refused, and nothing is made', () => {
  const cases: [string, Record<string, BoltTree | string>, RegExp][] = [
    ['no id', { a: tree({ kind: Buffer.of(3) }) }, /"a": it has no id/],
    ['one id twice', { a: tree(SNAPSHOT), b: tree(SNAPSHOT) }, /"b": it has no id of its own/],
    ['no kind', { a: tree({ ...SNAPSHOT, kind: Buffer.of(9) }) }, /no known kind/],
    ['no parent', { a: tree({ ...SNAPSHOT, parent: 'gone' }) }, /its parent "gone" is missing/],
    ['itself', { a: tree({ ...SNAPSHOT, parent: 'a' }) }, /stands on itself/],
    [
      'a circle',
      { a: tree({ ...SNAPSHOT, parent: 'b' }), b: tree({ ...SNAPSHOT, id: Buffer.of(2), parent: 'a' }) },
      /stands on itself/,
    ],
    [
      'an active parent',
      { a: tree({ ...SNAPSHOT, kind: Buffer.of(2) }), b: tree({ ...SNAPSHOT, id: Buffer.of(2), parent: 'a' }) },
      /is not committed/,
    ],
  ]
  for (const [name, snapshots, message] of cases) {
    const path = root({ 'metadata.db': boltBytes(tree({ v1: tree({ snapshots: tree(snapshots) }) }), 2) })
    assert.throws(() => SnapshotStore.open(path), { code: 'BAD_STATE', message }, name)
    rmSync(join(path, 'metadata.db'))
    assert.deepEqual(
      using(path, (store) => store.list([])),
      [],
      name,
    )
  }
})

test('daemons of versions before 1.1 get their mode, those before 1 are translated', () => {
  const daemon = (mountpoint: string) => JSON.stringify({ ID: 'x', FsDriver: 'fusedev', Mountpoint: mountpoint })
  const path = root({})
  const real = using(path, (store) => store.root)
  rmSync(join(path, 'metadata.sqlite'))
  const write = (content: BoltTree) => {
    rmSync(join(path, 'metadata.sqlite'), { force: true })
    writeFileSync(join(path, 'nydus.db'), boltBytes(content, 2))
    return using(path, (store) =>
      (['daemons', 'instances'] as const).map((kind) =>
        Object.fromEntries(
          store
            .records(kind)
            .all()
            .map(({ key, json }) => [key, JSON.parse(json) as Record<string, unknown>]),
        ),
      ),
    )
  }
  const [daemons] = write(tree({ v1: tree({ daemons: tree({ s: daemon(`${real}/mnt`), d: daemon('/else') }) }) }))
  assert.deepEqual([daemons?.['s']?.['DaemonMode'], daemons?.['d']?.['DaemonMode']], ['shared', 'dedicated'])

  mkdirSync(join(path, 'config/one'), { recursive: true })
  writeFileSync(join(path, 'config/one/config.json'), '{"a":1}')
  const old = (fields: Record<string, unknown>) =>
    JSON.stringify({ FsDriver: 'fusedev', SnapshotDir: `${real}/snapshots`, RootMountPoint: `${real}/mnt`, ...fields })
  const one = old({
    ID: 'one',
    SnapshotID: '3',
    ConfigDir: `${real}/config/one`,
    ImageID: 'image',
    Pid: 7,
    SocketDir: '/s',
    CustomMountPoint: '/m',
  })
  const [alone, its] = write(tree({ daemons: tree({ one }) }))
  assert.deepEqual(
    [alone?.['one']?.['DaemonMode'], alone?.['one']?.['APISocket'], alone?.['one']?.['ProcessID']],
    ['dedicated', '/s/api.sock', 7],
  )
  assert.deepEqual([its?.['3']?.['DaemonID'], its?.['3']?.['Mountpoint']], ['one', `${real}/snapshots/3/mnt`])

  const outside = old({ ID: 'two', SnapshotID: '../../../../etc', ConfigDir: '/etc' })
  const [shared, served] = write(
    tree({ daemons: tree({ one, two: outside, shared_daemon: old({ ID: 'shared_daemon' }) }) }),
  )
  assert.deepEqual(Object.keys(shared ?? {}), ['shared_daemon'])
  assert.equal(served?.['3']?.['Mountpoint'], `${real}/mnt/3`)
  for (const copy of ['shared_daemon/config.json', 'shared_daemon/3/config.json'])
    assert.equal(readFileSync(join(path, 'config', copy), 'utf8'), '{"a":1}')
})

test('records of daemons that are no objects are refused', () => {
  for (const value of ['[]', '1', '{', 'null']) {
    const path = root({ 'nydus.db': boltBytes(tree({ v1: tree({ instances: tree({ '1': value }) }) }), 2) })
    assert.throws(() => SnapshotStore.open(path), { code: 'BAD_STATE', message: /the record "1" is no JSON object/ })
  }
})
