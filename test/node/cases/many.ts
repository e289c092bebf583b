/** Many at once, and one of several. */
import assert from 'node:assert/strict'
import type { NodeCase, World } from '../case.ts'
import { isEmptied, isStopped } from '../emptied.ts'
import { variantsOf } from '../image-variants.ts'
import type { ImageName, TestImage } from '../images.ts'
import { isAlive, until } from '../launched.ts'

const SLEEP = ['/bin/sleep', '1000']
const KINDS: readonly ImageName[] = ['v6', 'other', 'v5', 'zran', 'plain']
const OF_EACH = 10
const CHURN_ROUNDS = 5

export const MANY_CASES: readonly NodeCase[] = [
  {
    name: 'many',
    title: '50 pulls, then 50 starts at once, of five images',
    run: many,
  },
  {
    name: 'churn',
    title: 'images are pulled, run and removed, again and again, by six at once that share layers',
    run: churn,
  },
  {
    name: 'gc',
    title: 'an image is removed while a container of another one runs: its data goes, and nothing else',
    isShort: true,
    run: removesOnlyItsOwn,
  },
]

async function many(world: World): Promise<string> {
  const node = await world.start({ mode: 'shared', recover: 'failover' })
  const images: TestImage[] = []
  for (const kind of KINDS) images.push(...(await variantsOf(world.images, kind, OF_EACH)))
  const begun = performance.now()
  await Promise.all(images.map(({ reference }) => node.cri.pull(reference)))
  const pulled = performance.now()
  const started = images.map(async ({ reference, sums }) => {
    const pod = await node.cri.runPod()
    const id = await node.cri.start(pod, reference, SLEEP)
    assert.equal(await node.cri.exec(id, 'sha256sum /data/*'), sums, reference)
  })
  await Promise.all(started)
  const ran = performance.now()
  const instances = (await node.daemons()).flatMap((daemon) => Object.keys(daemon.instances))
  assert.equal(instances.length, KINDS.length - 1, 'a mount for each image that is not the same as another')
  await node.cri.removeAll()
  await isEmptied(node)
  await isStopped(node)
  return `${seconds(pulled - begun)} pulls, ${seconds(ran - pulled)} starts and reads`
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`
}

/** What one of them removes another one is just pulling. */
async function churn(world: World): Promise<string> {
  const node = await world.start({ mode: 'dedicated', recover: 'restart' })
  const kinds: readonly ImageName[] = ['v6', 'v6', 'v6', 'plain', 'plain', 'other']
  const lists = new Map<ImageName, TestImage[]>()
  for (const kind of new Set(kinds)) lists.set(kind, await variantsOf(world.images, kind, kinds.length))
  const workers = kinds.map(async (kind, index) => {
    const { reference, sums } = lists.get(kind)?.[index] ?? (await world.images.image(kind))
    for (let round = 0; round < CHURN_ROUNDS; round += 1) {
      await node.cri.pull(reference)
      const pod = await node.cri.runPod()
      const id = await node.cri.start(pod, reference, SLEEP)
      assert.equal(await node.cri.exec(id, 'sha256sum /data/*'), sums, `${reference}, round ${round}`)
      await node.cri.stopAndRemove(id)
      await Promise.all([node.cri.removePod(pod), node.cri.removeImage(reference)])
    }
  })
  await Promise.all(workers)
  await node.cri.removeAll()
  await isEmptied(node)
  await isStopped(node)
  return `${kinds.length * CHURN_ROUNDS} images`
}

async function removesOnlyItsOwn(world: World): Promise<void> {
  const node = await world.start({ mode: 'dedicated', recover: 'restart' })
  const [kept, removed] = [await world.images.image('other'), await world.images.image('v6')]
  await node.cri.pull(kept.reference)
  const pod = await node.cri.runPod()
  const stays = await node.cri.start(pod, kept.reference, SLEEP, 'stays')
  assert.equal(await node.cri.exec(stays, 'sha256sum /data/*'), kept.sums)
  const before = { snapshots: node.namesIn('snapshots'), cache: node.namesIn('cache'), fuse: node.mounts('fuse') }
  const [{ pid } = { pid: 0 }] = await node.daemons()
  await node.cri.pull(removed.reference)
  const goes = await node.cri.start(pod, removed.reference, SLEEP, 'goes')
  assert.equal(await node.cri.exec(goes, 'sha256sum /data/*'), removed.sums)
  assert.ok(node.namesIn('cache').length > before.cache.length)
  assert.equal(node.mounts('fuse').length, 2)
  await node.cri.stopAndRemove(goes)
  await node.cri.removeImage(removed.reference)
  const now = (): object => ({
    snapshots: node.namesIn('snapshots'),
    cache: node.namesIn('cache'),
    fuse: node.mounts('fuse'),
  })
  await until('what was there before', () => isSame(now(), before) || undefined).catch(() => {
    assert.deepEqual(now(), before)
  })
  assert.ok(isAlive(pid))
  assert.equal(await node.cri.exec(stays, 'sha256sum /data/*'), kept.sums)
  await node.cri.removeAll()
  await isEmptied(node)
  await isStopped(node)
}

function isSame(a: object, b: object): boolean {
  return JSON.stringify(a) === JSON.stringify(b)
}
