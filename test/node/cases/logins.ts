/** Registries that want to know who asks. */
import assert from 'node:assert/strict'
import { rmSync } from 'node:fs'
import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { NodeCase, World } from '../case.ts'
import { Cri } from '../cri.ts'
import { isEmptied, isStopped } from '../emptied.ts'
import { Images } from '../images.ts'
import type { TestNode } from '../node.ts'

const LOGIN = { username: 'kubelet', password: 'not: for everybody' }
const SLEEP = ['/bin/sleep', '1000']

export const LOGIN_CASES: readonly NodeCase[] = [
  {
    name: 'login-cri',
    title: "a private image whose login comes with the kubelet's pull, through the snapshotter's image service",
    whyNot: ({ isOriginal }) => (isOriginal ? 'the original cannot use passwords with a colon' : undefined),
    run: throughProxy,
  },
]

async function throughProxy(world: World): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'node-private-'))
  try {
    await using images = await Images.start(folder, LOGIN)
    const image = await images.image('v6')
    const node = await world.start({
      mode: 'shared',
      recover: 'failover',
      more: (path) => `[remote.auth]\nenable_cri_keychain = true\nimage_service_address = "${path}/c.sock"\n`,
    })
    await pullsAndRuns(node, image)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** As a kubelet does that was given `--image-service-endpoint`. */
async function pullsAndRuns(node: TestNode, image: { reference: string; sums: string }): Promise<void> {
  const proxy = new Cri(join(node.path, 's.sock'), { logs: node.path, cgroup: `/${node.cgroup}` })
  try {
    await assert.rejects(proxy.pull(image.reference), 'without a login')
    await proxy.pull(image.reference, LOGIN)
    const listed = (await proxy.images.listImages({})).images.flatMap(({ repoTags }) => repoTags)
    assert.ok(listed.includes(image.reference), listed.join(', '))
    const pod = await node.cri.runPod()
    const id = await node.cri.start(pod, image.reference, SLEEP)
    assert.equal(await node.cri.exec(id, 'sha256sum /data/*'), image.sums)
    assert.ok(!node.log('snapshotter').includes(LOGIN.password), 'the password is in the log')
    await node.cri.stopAndRemove(id)
    await node.cri.removePod(pod)
    await proxy.removeImage(image.reference)
    await node.cri.removeAll()
    await isEmptied(node)
    await isStopped(node)
  } finally {
    proxy.close()
  }
}
