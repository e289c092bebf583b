/** The state of a node in the original's databases: taken over, and given back. */
import assert from 'node:assert/strict'
import { exportState } from '../../../src/snapshotter/store/index.ts'
import type { NodeCase, World } from '../case.ts'
import type { Pod } from '../cri.ts'
import { isEmptied, isStopped } from '../emptied.ts'
import type { TestImage } from '../images.ts'
import { until } from '../launched.ts'
import type { TestNode } from '../node.ts'

const SLEEP = ['/bin/sleep', '1000']
const OURS = new URL('../../../bin/containerd-nydus-grpc', import.meta.url).pathname

export const STATE_CASES: readonly NodeCase[] = (['shared', 'dedicated'] as const).map((mode) => ({
  name: `given-back-${mode}`,
  title: `state of a stopped snapshotter, taken over and given back: a container goes on, others start, all can be removed (${mode})`,
  run: (world) => goesOn(world, mode),
}))

async function goesOn(world: World, mode: 'shared' | 'dedicated'): Promise<string> {
  const node = await world.start({ mode, recover: 'restart' })
  const [image, plain] = [await world.images.image('v6'), await world.images.image('plain')]
  for (const { reference } of [image, plain]) await node.cri.pull(reference)
  const pod = await node.cri.runPod()
  const first = await node.cri.start(pod, image.reference, SLEEP)
  await node.cri.exec(first, 'echo kept > /kept')
  const [before, daemons] = [await snapshots(node), await node.daemons()]
  await node.stopSnapshotter('SIGTERM')
  if (world.isOriginal) await isTakenOver(node, pod, { first, image, before })
  const { snapshots: count } = exportState(node.root)
  await node.startSnapshotterAgain()
  assert.equal(await snapshots(node), before)
  assert.deepEqual(
    (await node.daemons()).map(({ pid }) => pid),
    daemons.map(({ pid }) => pid),
  )
  assert.equal(await node.cri.exec(first, 'cat /kept; sha256sum /data/*'), `kept\n${image.sums}`)
  for (const [name, { reference, sums }] of Object.entries({ second: image, third: plain })) {
    const container = await node.cri.start(pod, reference, SLEEP, name)
    assert.equal(await node.cri.exec(container, 'sha256sum /data/*'), sums, name)
    await node.cri.stopAndRemove(container)
  }
  await node.cri.stopAndRemove(first)
  await node.cri.removePod(pod)
  await node.cri.removeAll()
  await isEmptied(node)
  await isStopped(node)
  return `${count} snapshots`
}

/** Ours goes on from what the original left: the container that runs, and one more. */
async function isTakenOver(
  node: TestNode,
  pod: Pod,
  { first, image, before }: { readonly first: string; readonly image: TestImage; readonly before: string },
): Promise<void> {
  await node.startSnapshotter(OURS)
  assert.equal(await snapshots(node), before)
  assert.equal(await node.cri.exec(first, 'sha256sum /data/*'), image.sums)
  const other = await node.cri.start(pod, image.reference, SLEEP, 'other')
  assert.equal(await node.cri.exec(other, 'sha256sum /data/*'), image.sums)
  await node.cri.stopAndRemove(other)
  await node.stopSnapshotter('SIGTERM')
}

/** containerd takes its time to see that a snapshotter is back. */
async function snapshots(node: TestNode): Promise<string> {
  return await until('a list of snapshots', () => node.ctr('snapshots', '--snapshotter', 'nydus', 'ls'))
}
