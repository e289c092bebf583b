import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { callsOf, startSnapshotter } from './testing.ts'

test('a layer is measured some time after its commit, or when somebody asks; one that was removed meanwhile is not missed', async (t) => {
  const started = await startSnapshotter()
  t.after(async () => await started.close())
  const { client, store, complaints } = started
  const calls = callsOf(client)
  const layer = async (name: string): Promise<void> => {
    await calls.prepare({ key: `key of ${name}` })
    writeFileSync(join(store.directory(store.stat(`key of ${name}`)), 'fs/file'), Buffer.alloc(100_000, 1))
    await calls.commit({ name, key: `key of ${name}` })
  }
  const measured = async (name: string): Promise<void> => {
    while (store.stat(name).usage === undefined) await new Promise((resolve) => setTimeout(resolve, 20))
    assert.deepEqual(store.stat(name).usage, store.stat('asked').usage)
  }
  for (const name of ['asked', 'removed', 'measured']) await layer(name)
  assert.equal(store.stat('removed').usage, undefined)
  await calls.remove({ key: 'removed' })
  const { inodes, size } = await calls.usage({ key: 'asked' })
  assert.deepEqual(store.stat('asked').usage, { bytes: Number(size), inodes: Number(inodes) })
  await measured('measured')
  await layer('later')
  await measured('later')
  assert.deepEqual(complaints, [])
})

test('what was measured is not told of a layer that got the name meanwhile', async (t) => {
  const started = await startSnapshotter()
  t.after(async () => await started.close())
  const { snapshotter, store } = started
  const layer = (bytes: number): void => {
    const snapshot = store.create('active', 'key', '', new Map())
    writeFileSync(join(store.directory(snapshot), 'fs/file'), Buffer.alloc(bytes, 1))
    store.commit('layer', 'key', new Map(), undefined)
  }
  layer(100_000)
  const measuring = snapshotter.usage('layer', new AbortController().signal)
  await Promise.resolve().then(() => undefined) // it has found the first one, and asks the disk
  store.remove('layer')
  layer(10)
  const before = await measuring
  assert.equal(store.stat('layer').usage, undefined)
  const after = await snapshotter.usage('layer', new AbortController().signal)
  assert.ok(after.bytes < before.bytes)
})
