/** What becomes of readers and mounts when nydusd, the snapshotter, or both are killed. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { closeSync, openSync, readFileSync, readSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { differencesSeenApart } from '../src/daemon/testing.ts'
import { mountOverlay } from '../src/kernel/index.ts'
import type { Snapshot } from '../src/snapshotter/snapshot.ts'
import { Field, FILE, type FieldOptions, IMAGE, OTHER_IMAGE, PEER, skip, skipPeer, until } from './daemons/field.ts'

/** Both nydusd: ours, and the original. */
const SIDES = [
  { side: 'ours', skip },
  { side: 'original', skip: skipPeer },
] as const

function fieldOf(side: 'ours' | 'original', options: FieldOptions): Field {
  const field = new Field(options)
  if (side === 'original') field.program('nydusd', PEER)
  return field
}

/** Kills the only daemon, and waits for the one that follows. */
async function killed(field: Field): Promise<number> {
  const [before = 0] = field.pids()
  process.kill(before, 'SIGKILL')
  return await until(`a daemon after ${before}\n${field.lines.join('\n')}`, () => {
    const [now] = field.images?.list() ?? []
    return now?.state === 'running' && now.pid !== before ? now.pid : undefined
  })
}

async function isRight(at: string): Promise<void> {
  const found = (await differencesSeenApart(at, IMAGE.tree)) as string[]
  // the original shows the time of the mount in the place of 1970
  assert.deepEqual(
    found.filter((line) => !/: mtime is \d+, wanted 0$/.test(line)),
    [],
  )
}

async function mounted(field: Field): Promise<{ readonly snapshot: Snapshot; readonly at: string }> {
  await field.start()
  const snapshot = field.layer(IMAGE)
  return { snapshot, at: (await field.ensure(snapshot)).mountpoint }
}

for (const { side, skip: reason } of SIDES)
  for (const mode of ['shared', 'dedicated'] as const)
    test(`failover, ${mode}, ${side}: readers of a daemon that is killed only wait, also when the snapshotter is killed with it`, {
      skip: reason,
      timeout: 180_000,
    }, async () => {
      await using field = fieldOf(side, { mode, recover: 'failover' })
      const { snapshot, at } = await mounted(field)
      const root = join(field.path, 'root')
      for (const name of ['root', 'up', 'work']) field.folder(name)
      await mountOverlay(root, { lower: [at], upper: join(field.path, 'up'), work: join(field.path, 'work') })
      const held = openSync(join(root, FILE), 'r')
      const reader = field.reader(join(at, FILE), join(root, 'sizes/4097'))
      await reader.more(3)
      for (let times = 0; times < 2; times++) {
        await killed(field)
        await reader.more(3)
      }
      if (mode === 'shared') {
        const other = await field.ensure(field.layer(OTHER_IMAGE))
        await killed(field)
        assert.equal(readFileSync(join(other.mountpoint, FILE)).length, 65_536)
      }
      const mounts = field.mounts()
      await field.stop()
      const snapshotter = await field.process()
      snapshotter.kill('SIGKILL')
      for (const pid of field.daemonProcesses()) process.kill(pid, 'SIGKILL')
      await once(snapshotter, 'exit')
      await field.start()
      await reader.more(3)
      assert.deepEqual(field.mounts(), mounts)
      await field.ensure(snapshot)
      assert.deepEqual(await reader.stop(), [], field.lines.join('\n'))
      await isRight(at)
      const whole = Buffer.alloc(70_000)
      assert.equal(readSync(held, whole), 65_536)
      closeSync(held)
      assert.equal(
        field.lines.some((line) => line.startsWith('error')),
        false,
        field.lines.join('\n'),
      )
    })

test('restart, ours: its keeper is quicker than a new session, and readers only wait', {
  skip,
  timeout: 180_000,
}, async () => {
  await using field = new Field({ mode: 'shared', recover: 'restart' })
  const { at, snapshot } = await mounted(field)
  const reader = field.reader(join(at, FILE))
  await reader.more(3)
  const mounts = field.mounts()
  await killed(field)
  await killed(field)
  await reader.more(3)
  assert.deepEqual(await reader.stop(), [], field.lines.join('\n'))
  assert.deepEqual(field.mounts(), mounts)
  await field.images?.release(snapshot.id)
  await field.stop()
  assert.deepEqual([field.mounts(), field.processes()], [[], []])
})

for (const { side, skip: reason } of SIDES)
  for (const mode of ['shared', 'dedicated'] as const)
    test(`restart, ${mode}, ${side}: when nothing is left of a daemon, all its images are mounted anew`, {
      skip: reason,
      timeout: 180_000,
    }, async () => {
      await using field = fieldOf(side, { mode, recover: 'restart' })
      const { at, snapshot } = await mounted(field)
      const before = field.pids()
      for (const pid of field.daemonProcesses()) process.kill(pid, 'SIGKILL') // with their keepers
      await until('a new session', () => {
        const [now] = field.images?.list() ?? []
        return now?.state === 'running' && now.pid !== before[0] ? true : undefined
      })
      assert.equal((await field.ensure(snapshot)).mountpoint, at)
      await isRight(at)
      // and after a reboot, as it were
      await field.stop()
      for (const pid of field.daemonProcesses()) process.kill(pid, 'SIGKILL')
      await field.detachAll()
      await field.start()
      assert.equal((await field.ensure(snapshot)).mountpoint, at)
      await isRight(at)
      assert.equal(field.mounts().length, 1)
    })

test('none, original: a dead daemon stays dead until somebody needs the image', {
  skip: skipPeer,
  timeout: 180_000,
}, async () => {
  await using field = fieldOf('original', { mode: 'dedicated', recover: 'none' })
  const { at, snapshot } = await mounted(field)
  for (const pid of field.daemonProcesses()) process.kill(pid, 'SIGKILL')
  await until('a dead daemon', () => (field.lines.some((line) => line.includes('stays dead')) ? true : undefined))
  await field.ensure(snapshot)
  await isRight(at)
})
