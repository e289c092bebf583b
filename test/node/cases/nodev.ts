/** A snapshotter that mounts nothing itself: whoever runs the container brings the files of Nydus images. */
import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import type { NodeCase, World } from '../case.ts'
import { storedBytes } from '../content.ts'
import { isEmptied, isStopped } from '../emptied.ts'

const MIB = 2 ** 20

export const NODEV_CASES: readonly NodeCase[] = [
  {
    name: 'nodev',
    title: 'fs_driver nodev: ordinary images run, of Nydus images the bootstrap is there, and no nydusd',
    whyNot: ({ isOriginal }) =>
      isOriginal ? 'the original has no such driver, though its configuration does' : undefined,
    run: preparesOnly,
  },
]

async function preparesOnly(world: World): Promise<void> {
  const node = await world.start({ mode: 'shared', recover: 'none', driver: 'nodev' })
  const [plain, nydus] = [await world.images.image('plain'), await world.images.image('v6')]
  await node.cri.pull(plain.reference)
  const pod = await node.cri.runPod()
  const id = await node.cri.start(pod, plain.reference, ['/bin/sleep', '1000'])
  assert.equal(await node.cri.exec(id, 'sha256sum /data/*'), plain.sums)
  const before = await storedBytes(node)
  await node.cri.pull(nydus.reference)
  assert.ok((await storedBytes(node)) - before < MIB, 'data of a Nydus image was fetched')
  const bootstraps = node
    .namesIn('snapshots')
    .filter((name) => existsSync(join(node.root, 'snapshots', name, 'fs/image/image.boot')))
  assert.equal(bootstraps.length, 1)
  await assert.rejects(node.cri.start(pod, nydus.reference, ['/bin/sleep', '1000'], 'lazy'), /no such file/)
  assert.deepEqual(await node.daemons(), [])
  assert.deepEqual(node.mounts('fuse'), [])
  await node.cri.removeAll()
  await isEmptied(node)
  await isStopped(node)
}
