/** What containerd expects of every snapshotter, as checks over its socket with real mounts: the topics of its own suite (core/snapshots/testsuite). */
import assert from 'node:assert/strict'
import { chownSync, linkSync, mkdirSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Calls, SnapshotKindNumber, type Snapshots } from '../containerd/index.ts'
import { treeOf, withMounts } from './testing.ts'

export interface Bench {
  readonly calls: Calls<typeof Snapshots>
  /** A folder of this check alone. */
  readonly work: string
  /** Before every key and name, so that checks can share a snapshotter. */
  readonly prefix: string
}

type Step = (top: string) => void
const file =
  (path: string, text: string, mode = 0o644): Step =>
  (top) =>
    writeFileSync(join(top, path), text, { mode })
const folder =
  (path: string, mode = 0o755): Step =>
  (top) => {
    mkdirSync(join(top, path), { mode })
  }
const remove =
  (path: string): Step =>
  (top) =>
    rmSync(join(top, path), { recursive: true })
const chown =
  (path: string, id: number): Step =>
  (top) =>
    chownSync(join(top, path), id, id)
const rename =
  (from: string, to: string): Step =>
  (top) =>
    renameSync(join(top, from), join(top, to))
const link =
  (from: string, to: string): Step =>
  (top) =>
    linkSync(join(top, from), join(top, to))

/** Writes a layer on `parent` and commits it. */
async function layer(
  { calls, work, prefix }: Bench,
  name: string,
  parent: string,
  steps: readonly Step[],
): Promise<string> {
  const { mounts } = await calls.prepare({ key: `${prefix}${name}-active`, parent })
  await withMounts(mounts, join(work, 'mnt'), () => steps.forEach((step) => step(join(work, 'mnt'))))
  await calls.commit({ name: `${prefix}${name}`, key: `${prefix}${name}-active` })
  return `${prefix}${name}`
}

/** Layers, each compared before and after its steps with a plain folder that had the same steps; in the end all of it as a view. */
async function sameAsFlat(bench: Bench, name: string, layers: ReadonlyArray<readonly Step[]>): Promise<void> {
  const { calls, work, prefix } = bench
  const [flat, at] = [join(work, `flat-${name}`), join(work, 'mnt')]
  mkdirSync(flat, { mode: 0o755 })
  let parent = ''
  for (const [i, steps] of layers.entries()) {
    const key = `${prefix}${name}-${i}-active`
    const { mounts } = await calls.prepare({ key, parent })
    await withMounts(mounts, at, () => {
      assert.equal(treeOf(at), treeOf(flat), `layer ${i} before`)
      for (const top of [flat, at]) for (const step of steps) step(top)
      assert.equal(treeOf(at), treeOf(flat), `layer ${i} after`)
    })
    parent = `${prefix}${name}-${i}`
    await calls.commit({ name: parent, key })
  }
  const { mounts } = await calls.view({ key: `${prefix}${name}-view`, parent })
  await withMounts(mounts, at, () => assert.equal(treeOf(at), treeOf(flat), 'the view'))
  await calls.remove({ key: `${prefix}${name}-view` })
}

async function listed(bench: Bench, ...filters: string[]): Promise<string[]> {
  const names: string[] = []
  for await (const { info } of bench.calls.list({ filters })) {
    assert.ok(info.length <= 100)
    names.push(...info.map(({ name }) => name).filter((name) => name.startsWith(bench.prefix)))
  }
  return names.map((name) => name.slice(bench.prefix.length)).sort()
}

async function infoOf({ calls, prefix }: Bench, key: string) {
  const { info } = await calls.stat({ key: prefix + key })
  assert.ok(info !== undefined)
  return { ...info, name: info.name.slice(prefix.length), parent: info.parent.slice(prefix.length) }
}

/** Two committed snapshots, active ones and views, with a parent and without. */
async function someSnapshots({ calls, prefix }: Bench): Promise<void> {
  await calls.prepare({ key: `${prefix}c1-a` })
  await calls.commit({ name: `${prefix}c1`, key: `${prefix}c1-a` })
  await calls.prepare({ key: `${prefix}c2-a`, parent: `${prefix}c1` })
  await calls.commit({ name: `${prefix}c2`, key: `${prefix}c2-a` })
  await calls.prepare({ key: `${prefix}a1`, parent: `${prefix}c2` })
  await calls.prepare({ key: `${prefix}a2` })
  await calls.view({ key: `${prefix}v1`, parent: `${prefix}c2` })
  await calls.view({ key: `${prefix}v2` })
}

const { ACTIVE, COMMITTED, VIEW } = SnapshotKindNumber
const SOME: ReadonlyArray<readonly [string, number, string]> = [
  ['c1', COMMITTED, ''],
  ['c2', COMMITTED, 'c1'],
  ['a1', ACTIVE, 'c2'],
  ['a2', ACTIVE, ''],
  ['v1', VIEW, 'c2'],
  ['v2', VIEW, ''],
]

async function basics(bench: Bench): Promise<void> {
  const { calls, work, prefix } = bench
  const first = [file('foo', 'foo\n', 0o777), folder('a'), folder('a/b'), folder('a/b/c')]
  const second = [file('bar', 'bar\n', 0o777), file('foo', 'bar\n'), remove('a/b')]
  const one = await layer(bench, 'one', '', first)
  assert.deepEqual([(await infoOf(bench, 'one')).kind, (await infoOf(bench, 'one')).parent], [COMMITTED, ''])
  await assert.rejects(calls.stat({ key: `${prefix}one-active` }), { code: 'NOT_FOUND' })
  const two = await layer(bench, 'two', one, second)
  assert.equal((await infoOf(bench, 'two')).parent, 'one')
  assert.deepEqual(await listed(bench), ['one', 'two'])
  const { mounts } = await calls.view({ key: `${prefix}view`, parent: two })
  const [flat, at] = [join(work, 'flat'), join(work, 'mnt')]
  mkdirSync(flat)
  for (const step of [...first, ...second]) step(flat)
  await withMounts(mounts, at, () => assert.equal(treeOf(at), treeOf(flat)))
  await calls.remove({ key: `${prefix}view` })
  await assert.rejects(calls.remove({ key: one }), { code: 'FAILED_PRECONDITION', message: /remove/ })
  await calls.remove({ key: two })
  await calls.remove({ key: one })
  assert.deepEqual(await listed(bench), [])
}

async function updates(bench: Bench): Promise<void> {
  const { calls, prefix } = bench
  await someSnapshots(bench)
  for (const [key, kind, parent] of SOME) {
    const before = await infoOf(bench, key)
    assert.deepEqual([before.name, before.kind, before.parent], [key, kind, parent])
    assert.deepEqual(before.createdAt, before.updatedAt)
    const update = async (labels: Record<string, string>, ...paths: string[]) =>
      (await calls.update({ info: { name: prefix + key, parent: 'ignored', labels }, updateMask: { paths } })).info
    const all = await update({ l1: 'v1', l2: 'v2', l3: 'v3' })
    assert.deepEqual(all?.labels, { l1: 'v1', l2: 'v2', l3: 'v3' })
    assert.deepEqual([all?.createdAt, all?.kind, all?.parent], [before.createdAt, kind, parent && prefix + parent])
    assert.notDeepEqual(all?.updatedAt, before.updatedAt)
    assert.deepEqual((await update({ l1: 'updated', l4: 'v4' }, 'labels.l1', 'labels.l2'))?.labels, {
      l1: 'updated',
      l3: 'v3',
    })
    assert.deepEqual((await update({ l4: 'v4' }, 'labels'))?.labels, { l4: 'v4' })
    await assert.rejects(update({}, 'parent'), { code: 'INVALID_ARGUMENT' })
  }
}

async function walks(bench: Bench): Promise<void> {
  const { calls, prefix } = bench
  const all = { 'containerd.io/gc.root': 'check-walk' }
  const prepare = (key: string, parent: string, labels = {}) =>
    calls.prepare({ key: prefix + key, parent: parent && prefix + parent, labels: { ...all, ...labels } })
  const view = (key: string, parent: string, labels = {}) =>
    calls.view({ key: prefix + key, parent: prefix + parent, labels: { ...all, ...labels } })
  await prepare('a-np', '')
  await prepare('p-tmp', '')
  await calls.commit({ name: `${prefix}p`, key: `${prefix}p-tmp`, labels: all })
  await prepare('a', 'p')
  await view('v', 'p')
  await prepare('p-wl-tmp', '')
  await calls.commit({ name: `${prefix}p-wl`, key: `${prefix}p-wl-tmp`, labels: { ...all, l: '1' } })
  await prepare('a-wl', 'p-wl', { l: '2' })
  await view('v-wl', 'p-wl', { l: '3' })
  await prepare('a-np-wl', '', { l: '2' })
  const root = 'labels."containerd.io/gc.root"==check-walk'
  const quoted = (name: string) => JSON.stringify(prefix + name)
  const cases: ReadonlyArray<readonly [string[], string[]]> = [
    [['a', 'a-np', 'a-np-wl', 'a-wl', 'p', 'p-wl', 'v', 'v-wl'], [root]],
    [['a', 'a-np', 'a-np-wl', 'a-wl'], [`kind==active,${root}`]],
    [['v', 'v-wl'], [`kind==view,${root}`]],
    [['p', 'p-wl'], [`kind==committed,${root}`]],
    [
      ['a-np-wl', 'p'],
      [`name==${quoted('p')}`, `name==${quoted('a-np-wl')}`],
    ],
    [['a-wl'], [`name==${quoted('a-wl')},labels.l`]],
    [['a', 'v'], [`parent==${quoted('p')}`]],
    [['a', 'a-wl', 'v', 'v-wl'], [`parent!="",${root}`]],
    [['a-np-wl', 'a-wl', 'p-wl', 'v-wl'], ['labels.l']],
    [['a-np-wl', 'a-wl'], ['labels.l==2']],
    [['a-np-wl', 'a-wl', 'v-wl'], ['labels.l~=/^[23]$/']],
  ]
  for (const [expected, filters] of cases)
    assert.deepEqual(await listed(bench, ...filters), expected, filters.join(' or '))
  await assert.rejects(listed(bench, 'labels.'), { code: 'INVALID_ARGUMENT' })
}

const LOWEST = [
  file('bottom', 'way at the bottom\n'),
  file('overwriteme', 'FIRST!\n'),
  folder('addhere'),
  folder('onlyme'),
]
const upper = (i: number): Step[] => [
  file('overwriteme', `${i} WAS HERE!\n`),
  file(`addhere/file-${i}`, 'same\n', 0o755),
]
const replaced = (i: number): Step[] => [remove('onlyme'), folder('onlyme'), file(`onlyme/file-${i}`, 'only me!\n')]
/** Of so many layers one is written through its mount; the others as containerd unpacks, into the upper directory. */
const MOUNTED = 16

/** The last of many layers shows what all of them wrote. */
async function manyLayers(bench: Bench): Promise<void> {
  const { calls, work, prefix } = bench
  const [flat, at] = [join(work, 'flat'), join(work, 'mnt')]
  mkdirSync(flat)
  for (const step of LOWEST) step(flat)
  let parent = await layer(bench, 'l0', '', LOWEST)
  for (let i = 1; i < 128; i++) {
    const isMounted = i % MOUNTED === 0
    const steps = isMounted ? [...upper(i), ...replaced(i)] : upper(i)
    for (const step of steps) step(flat)
    if (isMounted) parent = await layer(bench, `l${i}`, parent, steps)
    else {
      const { mounts } = await calls.prepare({ key: `${prefix}active`, parent })
      const directory = mounts[0]?.options.find((option) => option.startsWith('upperdir='))?.slice('upperdir='.length)
      for (const step of [folder('addhere'), ...steps]) step(directory ?? '/nowhere')
      parent = `${prefix}l${i}`
      await calls.commit({ name: parent, key: `${prefix}active` })
    }
  }
  for (const kind of ['view', 'prepare'] as const) {
    const { mounts } = await calls[kind]({ key: `${prefix}${kind}`, parent })
    await withMounts(mounts, at, () => assert.equal(treeOf(at), treeOf(flat)))
    assert.deepEqual((await calls.mounts({ key: `${prefix}${kind}` })).mounts, mounts)
  }
}

/** By name; each needs a `Bench` of its own, and may run beside others. */
export const CHECKS: Readonly<Record<string, (bench: Bench) => Promise<void>>> = {
  'layers are prepared, committed, viewed and removed, and show what was written': basics,
  'an active snapshot is told as active': async (bench) => {
    await bench.calls.prepare({ key: `${bench.prefix}a` })
    const { kind, parent, name } = await infoOf(bench, 'a')
    assert.deepEqual([name, kind, parent], ['a', ACTIVE, ''])
  },
  'a committed snapshot is told as committed': async (bench) => {
    await layer(bench, 'c', '', [file('foo', 'foo\n')])
    const { kind, parent, name } = await infoOf(bench, 'c')
    assert.deepEqual([name, kind, parent], ['c', COMMITTED, ''])
  },
  'a snapshot has its parent for a parent, not its grandparent': async (bench) => {
    const a = await layer(bench, 'a', '', [file('foo', 'foo\n')])
    await layer(bench, 'b', a, [file('foo', 'foo bar\n')])
    const { parent } = await infoOf(bench, 'b')
    assert.deepEqual([parent, (await infoOf(bench, parent)).parent], ['a', ''])
  },
  'a key is given once, whether for an active snapshot or a view': async (bench) => {
    const { calls, prefix } = bench
    const parent = await layer(bench, 'a', '', [])
    const taken = { code: 'ALREADY_EXISTS' }
    await calls.prepare({ key: `${prefix}new`, parent })
    await assert.rejects(calls.view({ key: `${prefix}new`, parent }), taken)
    await assert.rejects(calls.prepare({ key: `${prefix}new`, parent }), taken)
    await calls.view({ key: `${prefix}view`, parent })
    await assert.rejects(calls.view({ key: `${prefix}view`, parent }), taken)
    await assert.rejects(calls.prepare({ key: `${prefix}view`, parent }), taken)
    await assert.rejects(calls.commit({ name: parent, key: `${prefix}new` }), taken)
  },
  'labels of every kind of snapshot are changed, and nothing else is': updates,
  'what was removed can be made again, on another parent': async (bench) => {
    const { calls, prefix } = bench
    const parent = await layer(bench, 'c', '', [])
    const key = `${prefix}reuse`
    await calls.prepare({ key, parent })
    await calls.remove({ key })
    await calls.view({ key, parent })
    await calls.remove({ key })
    await calls.prepare({ key })
    await calls.remove({ key: parent })
    await calls.commit({ name: parent, key })
    await assert.rejects(calls.remove({ key }), { code: 'NOT_FOUND' })
  },
  'lists are filtered by kind, name, parent and labels': walks,
  'a file that two layers write at the same length and time is the upper one': (bench) =>
    sameAsFlat(bench, 'update', [
      [folder('etc', 0o700), file('etc/hosts', 'mydomain 10.0.0.1'), file('etc/profile', 'PATH=/usr/bin')],
      [
        file('etc/hosts', 'mydomain 10.0.0.2'),
        file('etc/profile', 'PATH=/usr/bin'),
        folder('root', 0o700),
        file('root/.bashrc', 'PATH=/usr/sbin:/usr/bin'),
      ],
    ]),
  'a folder that is removed and made again hides what it had': (bench) =>
    sameAsFlat(bench, 'hidden', [
      [folder('lib', 0o700), file('lib/hidden', '')],
      [remove('lib'), folder('lib', 0o700), file('lib/not-hidden', '')],
      [file('lib/newfile', '')],
    ]),
  'owners of lower files and folders change': (bench) =>
    sameAsFlat(bench, 'chown', [
      [folder('opt', 0o700), folder('opt/a', 0o700), folder('opt/a/b', 0o700), file('opt/a/b/file.txt', 'hello')],
      [chown('opt', 1), chown('opt/a', 1), chown('opt/a/b', 1), chown('opt/a/b/file.txt', 1)],
    ]),
  'modes and owners of folders outlast commits': (bench) =>
    sameAsFlat(bench, 'modes', [
      [
        ...[1, 2, 3, 4, 5].map((i) => folder(`dir${i}`, 0o700)),
        file('dir4/f1', '...'),
        file('dir5/f1', '...'),
        ...['dir1', 'dir2', 'dir3', 'dir5', 'dir5/f1'].map((path) => chown(path, 1)),
      ],
      [chown('dir2', 0), remove('dir3'), chown('dir4', 1), chown('dir4/f1', 1)],
      [folder('dir3', 0o700), chown('dir3', 1), remove('dir5'), folder('dir5', 0o700), chown('dir5', 1)],
    ]),
  'a snapshot that others stand on stays until they are gone': async (bench) => {
    const { calls, prefix } = bench
    const base = await layer(bench, 'base', '', [])
    const between = await layer(bench, 'between', base, [])
    await calls.prepare({ key: `${prefix}top`, parent: between })
    await assert.rejects(calls.remove({ key: between }), { code: 'FAILED_PRECONDITION' })
    for (const key of [`${prefix}top`, between, base]) await calls.remove({ key })
  },
  'files that a layer deletes are gone in those above': (bench) =>
    sameAsFlat(bench, 'deleted', [
      [file('foo', 'foo\n', 0o777), file('foobar', 'foobar\n', 0o777)],
      [remove('foobar')],
      [],
    ]),
  'files of a lower layer are moved and linked': (bench) =>
    sameAsFlat(bench, 'moved', [
      [folder('dir1', 0o700), file('dir1/f1', 'Hello'), folder('dir2', 0o700), file('dir2/f2', '...')],
      [folder('dir3', 0o700), file('dir3/f1', 'Hello'), remove('dir1'), link('dir2/f2', 'dir3/f2'), remove('dir2/f2')],
    ]),
  'a view cannot be written to, whether of none, one or two layers': async (bench) => {
    const { calls, work, prefix } = bench
    const one = await layer(bench, 'one', '', [file('a', '')])
    const two = await layer(bench, 'two', one, [file('b', '')])
    for (const parent of ['', one, two]) {
      const { mounts } = await calls.view({ key: `${prefix}view`, parent })
      await withMounts(mounts, join(work, 'mnt'), () =>
        assert.throws(() => writeFileSync(join(work, 'mnt/testfile'), 'x'), { code: 'EROFS' }),
      )
      await calls.remove({ key: `${prefix}view` })
    }
  },
  'while a list is read, each of it can be asked for': async (bench) => {
    await someSnapshots(bench)
    let seen = 0
    for await (const { info } of bench.calls.list({}))
      for (const one of info) {
        if (!one.name.startsWith(bench.prefix)) continue
        assert.deepEqual((await bench.calls.stat({ key: one.name })).info, one)
        seen++
      }
    assert.equal(seen, SOME.length)
  },
  'the top of a new snapshot has mode 0755': async ({ calls, work, prefix }) => {
    const { mounts } = await calls.prepare({ key: `${prefix}a` })
    await withMounts(mounts, join(work, 'mnt'), () => assert.equal(statSync(join(work, 'mnt')).mode & 0o777, 0o755))
  },
  // A folder of a lower layer cannot be renamed on overlayfs without redirect_dir, as with containerd's own.
  'files of a lower layer are renamed, also over others': (bench) =>
    sameAsFlat(bench, 'renamed', [
      [
        folder('dir1', 0o700),
        folder('somefiles', 0o700),
        file('somefiles/f1', 'was here first!'),
        file('somefiles/f2', 'nothing interesting'),
      ],
      [
        file('somefiles/f1-overwrite', 'new content 1'),
        rename('somefiles/f1-overwrite', 'somefiles/f1'),
        rename('somefiles/f2', 'somefiles/f3'),
      ],
    ]),
  '128 layers are mounted': manyLayers,
}
