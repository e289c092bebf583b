/** Images that the kernel shows, without nydusd. */
import assert from 'node:assert/strict'
import type { NodeCase, World } from '../case.ts'
import type { NodeSettings } from '../configurations.ts'
import { isEmptied, isStopped } from '../emptied.ts'
import { killProcess, until } from '../launched.ts'
import type { TestNode } from '../node.ts'

const MODES: ReadonlyArray<NodeSettings['mode']> = ['shared', 'dedicated']
const SUMS = 'sha256sum /data/*'
const READ_ON = [
  '/bin/sh',
  '-c',
  `while [ ! -e /stop ]; do ${SUMS} | sha256sum >> /rounds; done; : > /stopped; exec sleep 1000`,
]
const ROUNDS = 3

export const SHOWN_CASES: readonly NodeCase[] = MODES.map((mode) => ({
  name: `shown-${mode}`,
  title: `an image that is all in the cache is shown by the kernel: a container reads on without daemon and snapshotter, and after a reboot, ${mode} daemon`,
  isShort: mode === 'shared',
  whyNot: ({ isOriginal }: World) => (isOriginal ? "the original's snapshotter has no such mounts" : undefined),
  run: (world) => isShown(world, mode),
}))

async function isShown(world: World, mode: NodeSettings['mode']): Promise<string> {
  // It follows the keys of [snapshot].
  const more = (): string => 'enable_erofs_for_cached = true\n'
  const node = await world.start({ mode, recover: 'failover', more })
  if (/served by nydusd, not by the kernel/.test(node.log('snapshotter'))) return 'left out: the kernel cannot'
  const image = await world.images.image('v6')
  await node.cri.pull(image.reference)
  await node.run(image.reference, 'first')
  assert.equal(await node.exec('first', SUMS), image.sums)
  assert.deepEqual(await shown(node), [])
  const at = await until('an image that the kernel shows', async () => {
    await node.run(image.reference, 'kept')
    const [found] = await shown(node)
    if (found === undefined) await node.remove('kept')
    return found?.mountpoint
  })
  assert.deepEqual(node.mounts('erofs'), [at])
  await node.exec('kept', 'echo written > /data/own && rm /data/00')
  const pod = await node.cri.runPod()
  const reader = await node.cri.start(pod, image.reference, READ_ON)
  const [both] = await shown(node)
  assert.deepEqual([both?.mountpoint, both?.snapshot_ids.length], [at, 2])
  assert.match(await node.metrics(), /^snapshotter_erofs_users 2$/m)
  await readsOn(node, reader)
  for (const { pid } of await node.daemons()) await killProcess(pid)
  await node.stopSnapshotter('SIGKILL')
  await readsOn(node, reader)
  await node.startSnapshotter()
  await readsOn(node, reader)
  assert.deepEqual(node.mounts('erofs'), [at])
  const rounds = new Set(await roundsOf(node, reader))
  assert.equal(rounds.size, 1, 'every round read the same')
  await node.remove('first')
  await node.reboot()
  await node.startAgain('kept')
  const [, ...others] = image.sums.split(/(?<=\n)/)
  assert.equal(await node.exec('kept', 'cat /data/own && rm /data/own && [ ! -e /data/00 ]'), 'written\n')
  assert.equal(await node.exec('kept', SUMS), others.join(''))
  assert.deepEqual(node.mounts('erofs'), [at])
  await node.remove('kept')
  await node.cri.removeAll()
  assert.deepEqual(node.mounts('erofs'), [])
  await isEmptied(node)
  assert.deepEqual(node.namesIn('erofs'), [])
  await isStopped(node)
  return 'shown from a later start on'
}

interface Shown {
  readonly mountpoint: string
  readonly snapshot_ids: readonly string[]
}

async function shown(node: TestNode): Promise<Shown[]> {
  const { status, text } = await node.system('GET', '/api/v1/erofs')
  assert.equal(status, 200, text)
  return JSON.parse(text) as Shown[]
}

async function roundsOf(node: TestNode, container: string): Promise<string[]> {
  const text = await node.cri.exec(container, 'cat /rounds 2>/dev/null || :')
  return text.trim().split('\n').filter(Boolean)
}

async function readsOn(node: TestNode, container: string): Promise<void> {
  const from = (await roundsOf(node, container)).length
  await until('rounds of a reader', async () =>
    (await roundsOf(node, container)).length >= from + ROUNDS ? true : undefined,
  )
}
