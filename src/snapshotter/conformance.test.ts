import assert from 'node:assert/strict'
import { mkdirSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { readMountInfo } from '../kernel/index.ts'
import { CHECKS } from './conformance.ts'
import { callsOf, clientOf, startSnapshotter, whyNoMounts } from './testing.ts'

const skip = whyNoMounts()

for (const [name, check] of Object.entries(CHECKS))
  test(name, { skip, timeout: 180_000 }, async () => {
    const snapshotter = await startSnapshotter()
    try {
      await check({ calls: callsOf(snapshotter.client), work: snapshotter.work, prefix: '' })
      assert.deepEqual(snapshotter.complaints, [])
    } finally {
      await snapshotter.close()
    }
  })

test('closing twice is closing once', { skip }, async () => {
  const started = await startSnapshotter()
  const { snapshotter, client } = started
  await callsOf(client).prepare({ key: 'a' })
  await callsOf(client).commit({ name: 'b', key: 'a' })
  await callsOf(client).remove({ key: 'b' })
  await snapshotter.close()
  await snapshotter.close()
  assert.throws(() => snapshotter.stat('b'), { code: 'UNAVAILABLE' })
  await started.close()
})

test('16 clients do all of it at the same time, and nothing is left when they have cleaned up', {
  skip,
  timeout: 300_000,
}, async () => {
  const snapshotter = await startSnapshotter()
  const { root, work, store } = snapshotter
  const checks = Object.entries(CHECKS).filter(([name]) => name !== '128 layers are mounted')
  const client = async (i: number): Promise<void> => {
    const own = clientOf(join(root, '../s.sock'))
    try {
      for (let k = 0; k < 2; k++) {
        const [, check] = checks[(i * 2 + k) % checks.length] ?? []
        const folder = join(work, `${i}-${k}`)
        mkdirSync(folder)
        await check?.({ calls: callsOf(own), work: folder, prefix: `client-${i}/${k}/` })
      }
    } finally {
      own.close()
    }
  }
  try {
    await Promise.all(Array.from({ length: 16 }, (_, i) => client(i)))
    const calls = callsOf(snapshotter.client)
    const parents = (): Set<string> => new Set(store.list([]).map(({ parent }) => parent))
    for (let left = store.list([]); left.length > 0; left = store.list([])) {
      const used = parents()
      await Promise.all(left.filter(({ key }) => !used.has(key)).map(({ key }) => calls.remove({ key })))
    }
    await calls.cleanup({})
    assert.deepEqual(readdirSync(join(root, 'snapshots')), [])
    assert.deepEqual(snapshotter.complaints, [])
    assert.deepEqual(
      (await readMountInfo()).filter(({ at }) => at.startsWith(work)),
      [],
    )
  } finally {
    await snapshotter.close()
  }
})
