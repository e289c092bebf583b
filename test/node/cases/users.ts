/** Pods whose users are others on the host. */
import assert from 'node:assert/strict'
import type { NodeCase, World } from '../case.ts'
import { isEmptied, isStopped } from '../emptied.ts'
import type { ImageName } from '../images.ts'

const USERS = [
  { hostId: 100_000, length: 65_536 },
  { hostId: 300_000, length: 65_536 },
] as const
const IMAGES: ReadonlyArray<readonly [ImageName, string]> = [
  ['v6', 'a Nydus image'],
  ['plain', 'an ordinary image'],
]

export const USER_CASES: readonly NodeCase[] = IMAGES.map(([image, what]) => ({
  name: `users-${image}`,
  title: `pods in user namespaces, two mappings of ${what}: files belong to root, and can be written`,
  whyNot: ({ runtime }) =>
    runtime.hasUserNamespaces ? undefined : 'this containerd or its runc cannot shift the ids of a pod',
  run: (world) => shifted(world, image),
}))

async function shifted(world: World, name: ImageName): Promise<void> {
  const node = await world.start({ mode: 'shared', recover: 'failover' })
  const image = await world.images.image(name)
  await node.cri.pull(image.reference)
  for (const users of USERS) {
    const pod = await node.cri.runPod(users)
    const id = await node.cri.start(pod, image.reference, ['/bin/sleep', '1000'])
    const map = (await node.cri.exec(id, 'cat /proc/self/uid_map')).trim().split(/\s+/)
    assert.deepEqual(map, ['0', String(users.hostId), String(users.length)])
    assert.equal(await node.cri.exec(id, 'sha256sum /data/*'), image.sums)
    assert.equal(await node.cri.exec(id, 'stat -c %u:%g /data /data/00 /bin/sh'), '0:0\n0:0\n0:0\n')
    await node.cri.exec(id, 'echo more >> /data/00 && rm /data/01 && : > /data/new && mkdir /data/made')
    assert.equal(await node.cri.exec(id, 'stat -c %u:%g /data/00 /data/new'), '0:0\n0:0\n')
  }
  const copies = (await node.ctr('snapshots', '--snapshotter', 'nydus', 'ls')).match(/\S+-remap/g)
  assert.equal(copies, null, 'copies with shifted ids were made')
  await node.cri.removeAll()
  await isEmptied(node)
  await isStopped(node)
}
