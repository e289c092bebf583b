/** A machine that loses its power, and starts again. */
import assert from 'node:assert/strict'
import type { NodeCase, World } from '../case.ts'
import type { NodeSettings } from '../configurations.ts'
import { isEmptied, isStopped } from '../emptied.ts'

const MODES: ReadonlyArray<NodeSettings['mode']> = ['shared', 'dedicated']

export const REBOOT_CASES: readonly NodeCase[] = MODES.map((mode) => ({
  name: `reboot-${mode}`,
  title: `after a reboot containers that were there start again, and new ones of images that were pulled, ${mode} daemon`,
  run: (world) => comesBack(world, mode),
}))

async function comesBack(world: World, mode: NodeSettings['mode']): Promise<void> {
  const node = await world.start({ mode, recover: 'failover' })
  const [image, plain] = [await world.images.image('v6'), await world.images.image('plain')]
  for (const { reference } of [image, plain]) await node.cri.pull(reference)
  await node.run(image.reference, 'kept')
  await node.exec('kept', 'echo written > /data/own && rm /data/00')
  await node.run(plain.reference, 'plain')
  const pod = await node.cri.runPod()
  const first = await node.cri.start(pod, image.reference, ['/bin/sleep', '1000'])
  assert.equal(await node.cri.exec(first, 'sha256sum /data/*'), image.sums)
  await node.reboot()
  for (const id of ['kept', 'plain']) await node.startAgain(id)
  assert.equal(await node.exec('kept', 'cat /data/own && rm /data/own && [ ! -e /data/00 ]'), 'written\n')
  const [, ...others] = image.sums.split(/(?<=\n)/)
  assert.equal(await node.exec('kept', 'sha256sum /data/*'), others.join(''))
  assert.equal(await node.exec('plain', 'sha256sum /data/*'), plain.sums)
  await node.cri.removePod(pod)
  const again = await node.cri.runPod()
  const second = await node.cri.start(again, image.reference, ['/bin/sleep', '1000'])
  assert.equal(await node.cri.exec(second, 'sha256sum /data/*'), image.sums)
  for (const id of ['kept', 'plain']) await node.remove(id)
  await node.cri.removeAll()
  await isEmptied(node)
  await isStopped(node)
}
