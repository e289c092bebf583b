/** What must be true of a node from which everything was removed. */
import assert from 'node:assert/strict'
import { until } from './launched.ts'
import type { TestNode } from './node.ts'

/** Pods, containers and images are removed: no mounts, snapshots, caches and instances are left. Daemons of images are gone; a shared one stays. */
export async function isEmptied(node: TestNode): Promise<void> {
  await until('no snapshots', () => node.namesIn('snapshots').length === 0 || undefined).catch((error: unknown) => {
    throw new Error(`snapshots are left: ${node.namesIn('snapshots').join(', ')}`, { cause: error })
  })
  await until('an empty cache', () => node.namesIn('cache').length === 0 || undefined).catch((error: unknown) => {
    throw new Error(`the cache has ${node.namesIn('cache').join(', ')}`, { cause: error })
  })
  assert.deepEqual(node.mounts('overlay'), [])
  const daemons = await node.daemons()
  assert.deepEqual(
    daemons.flatMap(({ instances }) => Object.keys(instances ?? {})),
    [],
  )
  const mountpoints = daemons.map(({ mountpoint }) => mountpoint)
  await until('no mounts of images', () => node.mounts('fuse').every((at) => mountpoints.includes(at)) || undefined)
}

/** An emptied node is stopped: it has nothing on the machine any more. */
export async function isStopped(node: TestNode): Promise<void> {
  await node.stopContainerd('SIGTERM')
  await node.stopSnapshotter('SIGTERM')
  const left = (): string[] =>
    node.leftOvers().filter((line) => !line.startsWith('control group') && !line.startsWith('socket'))
  await until('no left-overs', () => left().length === 0 || undefined).catch((error: unknown) => {
    throw new Error(`there are left-overs:\n  ${left().join('\n  ')}`, { cause: error })
  })
}
