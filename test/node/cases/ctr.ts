/** What people type: ctr, in one namespace and in two. */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { NodeCase, World } from '../case.ts'
import { isEmptied, isStopped } from '../emptied.ts'
import type { ImageName } from '../images.ts'
import { NAMESPACE, type TestNode } from '../node.ts'

const SECOND = 'second'

/** Brings an image into a namespace. */
type Pull = (node: TestNode, reference: string, namespace?: string) => Promise<void>

export const CTR_CASES: readonly NodeCase[] = [
  {
    name: 'ctr-plain',
    title: 'ctr pulls, runs and removes an ordinary image; usage and mounts of its snapshots',
    run: (world) => byHand(world, 'plain', byCtr),
  },
  {
    name: 'ctr-nydus',
    title: 'ctr pulls, runs and removes a Nydus image; usage and mounts of its snapshots',
    whyNot: ({ runtime }) =>
      runtime.configVersion === 3 ? undefined : 'this ctr does not tell snapshotters what it pulls',
    run: (world) => byHand(world, 'v6', byCtr),
  },
  {
    name: 'ctr-remote',
    title: 'ctr-remote pulls a Nydus image, ctr runs and removes it; usage and mounts of its snapshots',
    run: (world) => byHand(world, 'v6', byCtrRemote),
  },
  {
    name: 'namespaces',
    title: 'an image in two namespaces: what one removes stays for the other',
    run: twoNamespaces,
  },
]

async function byCtr(node: TestNode, reference: string, namespace = NAMESPACE): Promise<void> {
  await node.ctrOf(namespace, 'images', 'pull', '--plain-http', '--snapshotter', 'nydus', reference)
}

async function byCtrRemote(node: TestNode, reference: string, namespace = NAMESPACE): Promise<void> {
  const program = join(import.meta.dirname, '../../../bin/ctr-remote')
  const args = ['-a', node.socket, '-n', namespace, 'images', 'rpull', '--plain-http', reference]
  await promisify(execFile)(program, args, { timeout: 120_000 })
}

async function byHand(world: World, name: ImageName, pull: Pull): Promise<void> {
  const node = await world.start({ mode: 'dedicated', recover: 'restart' })
  const image = await world.images.image(name)
  await pull(node, image.reference)
  await node.run(image.reference, 'one')
  assert.equal(await node.exec('one', 'sha256sum /data/*'), image.sums)
  await node.exec('one', 'dd if=/dev/zero of=/written bs=64k count=16 2>/dev/null')
  const usage = await node.ctr('snapshots', '--snapshotter', 'nydus', 'usage', '-b', 'one')
  const bytes = Number(usage.match(/^one\s+(\d+)/m)?.[1])
  assert.ok(bytes >= 1 << 20 && bytes < 2 << 20, usage)
  assert.match(await node.ctr('snapshots', '--snapshotter', 'nydus', 'mounts', '/target', 'one'), /^mount -t overlay/)
  const listed = (await node.ctr('snapshots', '--snapshotter', 'nydus', 'ls')).trim().split('\n').slice(1)
  assert.equal(listed.filter((line) => line.includes('Active')).length, 1)
  assert.equal(listed.filter((line) => line.includes('Committed')).length, name === 'plain' ? 2 : 3)
  await node.remove('one')
  await node.run(image.reference, 'two')
  assert.equal(await node.exec('two', '[ ! -e /written ] && sha256sum /data/*'), image.sums)
  await node.remove('two')
  await node.removeImages()
  await isEmptied(node)
  await isStopped(node)
}

async function twoNamespaces(world: World): Promise<void> {
  const node = await world.start({ mode: 'shared', recover: 'failover' })
  const image = await world.images.image('v6')
  await node.cri.pull(image.reference)
  await byCtrRemote(node, image.reference, SECOND)
  await node.run(image.reference, 'here')
  await node.run(image.reference, 'there', SECOND)
  assert.equal(await node.exec('here', 'sha256sum /data/*'), image.sums)
  assert.equal(await node.exec('there', 'sha256sum /data/*', SECOND), image.sums)
  await node.remove('here')
  await node.removeImages()
  assert.equal(await node.exec('there', 'sha256sum /data/*', SECOND), image.sums)
  await node.remove('there', SECOND)
  await node.run(image.reference, 'again', SECOND)
  assert.equal(await node.exec('again', 'sha256sum /data/*', SECOND), image.sums)
  await node.remove('again', SECOND)
  await node.removeImages(SECOND)
  await isEmptied(node)
  await isStopped(node)
}
