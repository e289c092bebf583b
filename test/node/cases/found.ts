/** Ordinary references that have a Nydus image somewhere. */
import assert from 'node:assert/strict'
import type { NodeCase, World } from '../case.ts'
import { storedBytes } from '../content.ts'
import { isEmptied, isStopped } from '../emptied.ts'
import type { ImageName } from '../images.ts'

const MIB = 2 ** 20
const KINDS: ReadonlyArray<readonly [ImageName, settings: string, where: string]> = [
  ['index', '[experimental]\nenable_index_detect = true\n', 'in the index of its tag'],
  ['referred', '[experimental]\nenable_referrer_detect = true\n', 'among its referrers'],
]
const TARFS = '[experimental.tarfs]\nenable_tarfs = true\nmount_tarfs_on_host = true\n'

export const FOUND_CASES: readonly NodeCase[] = [
  ...KINDS.map(
    ([image, settings, where]): NodeCase => ({
      name: `found-${image}`,
      title: `an ordinary image whose Nydus image is found ${where}: no layer is fetched`,
      run: (world) => runsLazily(world, image, settings),
    }),
  ),
  {
    name: 'tarfs',
    title:
      'an ordinary image that runs from the tars of its layers (tarfs): containerd unpacks nothing, no loop device is left',
    whyNot: ({ isOriginal }) => (isOriginal ? "the original's nydus-image is needed for it" : undefined),
    run: (world) => runsLazily(world, 'plain', TARFS),
  },
]

async function runsLazily(world: World, name: ImageName, settings: string): Promise<string> {
  const node = await world.start({ mode: 'shared', recover: 'failover', more: () => settings })
  const image = await world.images.image(name)
  await node.cri.pull(image.reference)
  const fetched = await storedBytes(node)
  const pod = await node.cri.runPod()
  const id = await node.cri.start(pod, image.reference, ['/bin/sleep', '1000'])
  assert.equal(await node.cri.exec(id, 'sha256sum /data/*'), image.sums)
  const instances = (await node.daemons()).flatMap((daemon) => Object.keys(daemon.instances))
  assert.equal(instances.length, settings === TARFS ? 0 : 1)
  // The pause image is one, too.
  assert.equal(node.mounts('erofs').length, settings === TARFS ? 2 : 0)
  assert.ok(fetched < MIB, `the pull fetched ${fetched} bytes`)
  await node.restartSnapshotter('SIGKILL')
  const again = await node.cri.start(pod, image.reference, ['/bin/sleep', '1000'], 'again')
  assert.equal(await node.cri.exec(again, 'sha256sum /data/*'), image.sums)
  await node.cri.removeAll()
  await isEmptied(node)
  await isStopped(node)
  return `${(fetched / MIB).toFixed(1)} MiB pulled`
}
