/** The life of a pod, by the calls that the kubelet makes. */
import assert from 'node:assert/strict'
import type { NodeCase, World } from '../case.ts'
import { isEmptied, isStopped } from '../emptied.ts'
import type { ImageName } from '../images.ts'
import { until } from '../launched.ts'
import { storedBytes } from '../content.ts'
import type { TestNode } from '../node.ts'

const MIB = 2 ** 20
const MAIN = ['/bin/sh', '-c', 'echo to stdout; echo to stderr >&2; exec sleep 1000']

/** What images have, and whether all of it is fetched when it is pulled. */
const IMAGES: ReadonlyArray<readonly [ImageName, what: string, isLazy: boolean]> = [
  ['v6', 'a Nydus image, RAFS v6', true],
  ['plain', 'an ordinary image', false],
  ['v5', 'a Nydus image, RAFS v5', true],
  ['zran', 'a Nydus image over an ordinary layer (zran)', true],
  ['mixed', 'a Nydus image with ordinary layers above', true],
  ['built', 'the same as BuildKit leaves it, without annotations', true],
  ['index', 'a tag with an ordinary image and its Nydus image', false],
  ['deep-plain', 'an ordinary image of 120 layers', false],
  ['deep', 'a Nydus image of 120 layers', true],
]
const SHORT: ReadonlySet<ImageName> = new Set(['v6', 'plain'])

export const POD_CASES: readonly NodeCase[] = IMAGES.map(([image, what, isLazy]) => ({
  name: `pod-${image}`,
  title: `${what}: pull, run, exec, logs, stats, write, stop, remove; nothing is left`,
  isShort: SHORT.has(image),
  whyNot: (world) =>
    (image === 'mixed' || image === 'built') && world.isOriginal
      ? "the original's snapshotter leaves out layers above a Nydus image"
      : undefined,
  run: (world) => lifeOfPod(world, image, isLazy),
}))

async function lifeOfPod(world: World, name: ImageName, isLazy: boolean): Promise<string> {
  const node = await world.start({ mode: 'shared', recover: 'failover' })
  const image = await world.images.image(name)
  await node.cri.pull(image.reference)
  const fetched = await storedBytes(node)
  const pod = await node.cri.runPod()
  const main = await node.cri.start(pod, image.reference, MAIN)
  assert.equal(await node.cri.exec(main, 'sha256sum /data/*'), image.sums)
  await until('the log', () => /to stdout\n.*to stderr|to stderr\n.*to stdout/s.test(node.cri.logOf(pod)) || undefined)
  await isCounted(node, main)
  await isWritable(node, main, image.sums)
  await node.cri.stopAndRemove(main)
  const again = await node.cri.start(pod, image.reference, MAIN, 'again')
  assert.equal(await node.cri.exec(again, 'sha256sum /data/*'), image.sums, 'writes of the first container are seen')
  const instances = (await node.daemons()).flatMap((daemon) => Object.keys(daemon.instances ?? {}))
  assert.equal(instances.length, isLazy ? 1 : 0)
  await node.cri.stopAndRemove(again)
  await node.cri.removePod(pod)
  await node.cri.removeAll()
  await isEmptied(node)
  await isStopped(node)
  if (isLazy) assert.ok(fetched < 4 * MIB, `the pull fetched ${fetched} bytes`)
  return `${(fetched / MIB).toFixed(1)} MiB pulled`
}

/** What it wrote is counted, as are its memory and its time. */
async function isCounted(node: TestNode, containerId: string): Promise<void> {
  const stats = async () => (await node.cri.runtime.containerStats({ containerId })).stats
  await node.cri.exec(containerId, 'dd if=/dev/zero of=/tmp/large bs=64k count=48 2>/dev/null')
  const counted = await until('the usage of the writable layer', async () => {
    const now = await stats()
    return Number(now?.writableLayer?.usedBytes?.value ?? 0) >= 3 * MIB ? now : undefined
  })
  assert.ok(Number(counted.memory?.workingSetBytes?.value ?? 0) > 0)
  assert.ok(Number(counted.cpu?.usageCoreNanoSeconds?.value ?? 0) > 0)
}

/** Files of the image can be changed, deleted, renamed and replaced; the others stay as they are. */
async function isWritable(node: TestNode, id: string, sums: string): Promise<void> {
  const files = sums.trim().split('\n')
  const [changed = '', deleted = '', ...others] = files.map((line) => line.split('  ')[1] ?? '')
  const [, , ...kept] = files
  const script = [
    `echo more >> ${changed}`,
    `rm ${deleted}`,
    'echo new > /data-new',
    'mkdir /made',
    `cp ${others[0]} /made/copy`,
    `sha256sum /made/copy ${others.join(' ')}`,
  ]
  const answer = await node.cri.exec(id, script.join(' && '))
  const digest = (kept[0] ?? '').split('  ')[0]
  assert.equal(answer, `${digest}  /made/copy\n${kept.join('\n')}\n`)
  assert.equal(await node.cri.exec(id, `[ ! -e ${deleted} ] && cat /data-new`), 'new\n')
}
