/** Ordinary references that have a Nydus image somewhere. */
import assert from 'node:assert/strict'
import type { NodeCase, World } from '../case.ts'
import { storedBytes } from '../content.ts'
import { isEmptied, isStopped } from '../emptied.ts'
import type { ImageName } from '../images.ts'

const MIB = 2 ** 20
const KINDS: ReadonlyArray<readonly [ImageName, switchName: string, where: string]> = [
  ['index', 'enable_index_detect', 'in the index of its tag'],
  ['referred', 'enable_referrer_detect', 'among its referrers'],
]

export const FOUND_CASES: readonly NodeCase[] = KINDS.map(([image, switchName, where]) => ({
  name: `found-${image}`,
  title: `an ordinary image whose Nydus image is found ${where}: no layer is fetched`,
  run: (world) => runsLazily(world, image, switchName),
}))

async function runsLazily(world: World, name: ImageName, switchName: string): Promise<string> {
  const node = await world.start({
    mode: 'shared',
    recover: 'failover',
    more: () => `[experimental]\n${switchName} = true\n`,
  })
  const image = await world.images.image(name)
  await node.cri.pull(image.reference)
  const fetched = await storedBytes(node)
  const pod = await node.cri.runPod()
  const id = await node.cri.start(pod, image.reference, ['/bin/sleep', '1000'])
  assert.equal(await node.cri.exec(id, 'sha256sum /data/*'), image.sums)
  const instances = (await node.daemons()).flatMap((daemon) => Object.keys(daemon.instances))
  assert.equal(instances.length, 1)
  assert.ok(fetched < MIB, `the pull fetched ${fetched} bytes`)
  await node.restartSnapshotter('SIGKILL')
  const again = await node.cri.start(pod, image.reference, ['/bin/sleep', '1000'], 'again')
  assert.equal(await node.cri.exec(again, 'sha256sum /data/*'), image.sums)
  await node.cri.removeAll()
  await isEmptied(node)
  await isStopped(node)
  return `${(fetched / MIB).toFixed(1)} MiB pulled`
}
