/** What Docker builds and commits on images: it is pushed, and another node can use it. */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import type { NodeCase, World } from '../case.ts'
import { storedBytes } from '../content.ts'
import { type Builder, Docker } from '../docker.ts'
import { isEmptied, isStopped } from '../emptied.ts'
import { layerOf } from '../image-content.ts'
import type { TestNode } from '../node.ts'
import { startTestRegistry } from '../registry.ts'
import { MOBY, SLEEP, whyNoDocker } from './docker.ts'

const MIB = 2 ** 20
const BUILDERS: readonly Builder[] = ['older', 'buildkit']
const CHANGES = 'echo made > /made; rm /data/00; echo more >> /data/01'
const SHOWN = 'cat /made; [ ! -e /data/00 ] && sha256sum /data/*'

export const DOCKER_BUILD_CASES: readonly NodeCase[] = [
  {
    name: 'docker-build',
    title:
      'docker builds on an ordinary and on a Nydus image, with BuildKit and without; what it pushed is pulled and run',
    whyNot: whyNoDocker,
    run: builds,
  },
  {
    name: 'docker-push',
    title:
      'docker commits on a Nydus image and pushes: beside it, from there to elsewhere, to another registry once its data was fetched',
    whyNot: whyNoDocker,
    run: pushes,
  },
]

async function builds(world: World): Promise<string> {
  const node = await world.start({ mode: 'shared', recover: 'failover' })
  await using docker = await Docker.start(node, world.runtime.path, world.images.registry.host)
  let wanted = ''
  const built: string[] = []
  for (const name of ['plain', 'v6'] as const) {
    const { reference } = await world.images.image(name)
    await docker.pull(reference)
    wanted = await changedByHand(docker, reference)
    for (const builder of BUILDERS) {
      const pushed = `${reference}-${builder}`
      await docker.build(await contextOf(reference, builder), pushed, builder)
      await docker.push(pushed)
      built.push(pushed)
    }
  }
  // BuildKit pulls it itself, and takes the plain one.
  const both = await world.images.image('index')
  built.push(`${both.reference}-buildkit`)
  await docker.build(await contextOf(both.reference, 'buildkit'), `${both.reference}-buildkit`, 'buildkit')
  await docker.push(`${both.reference}-buildkit`)
  const fetched: string[] = []
  for (const reference of built) {
    await empty(node, docker)
    await docker.pull(reference)
    const bytes = await storedBytes(node, MOBY)
    fetched.push(`${(bytes / MIB).toFixed(1)} MiB`)
    if (reference.includes('v6')) assert.ok(bytes < MIB, `the pull of ${reference} fetched ${bytes} bytes`)
    await docker.run(reference, 'built', SLEEP)
    assert.equal(await docker.exec('built', SHOWN), wanted, reference)
    assert.match(await docker.exec('built', 'cat /added'), /^by (older|buildkit)\n$/)
    await docker.remove('built')
  }
  await empty(node, docker)
  await docker[Symbol.asyncDispose]()
  await isStopped(node)
  return `${fetched.join(', ')} pulled`
}

async function contextOf(from: string, builder: Builder): Promise<Buffer> {
  return await layerOf([
    { path: 'Dockerfile', type: 'file', content: `FROM ${from}\nCOPY added /added\nRUN ${CHANGES}\n` },
    { path: 'added', type: 'file', content: `by ${builder}\n` },
  ])
}

/** What a container shows that does by hand what the build does. */
async function changedByHand(docker: Docker, reference: string): Promise<string> {
  await docker.run(reference, 'by-hand', SLEEP)
  await docker.exec('by-hand', CHANGES)
  const shown = await docker.exec('by-hand', SHOWN)
  await docker.remove('by-hand')
  return shown
}

async function pushes(world: World): Promise<void> {
  const node = await world.start({ mode: 'shared', recover: 'failover' })
  const { host } = world.images.registry
  await using closing = new AsyncDisposableStack()
  const another = await startTestRegistry(join(node.path, 'another-registry'))
  closing.defer(async () => await another.close())
  await using docker = await Docker.start(node, world.runtime.path, host)
  const { reference } = await world.images.image('v6')
  const [beside, elsewhere] = [`${reference}-committed`, `${host}/elsewhere/app:committed`]
  const far = `${another.host}/far/app:committed`
  await docker.pull(reference)
  await docker.run(reference, 'one', SLEEP)
  await docker.exec('one', CHANGES)
  const wanted = await docker.exec('one', SHOWN)
  await docker.commit('one', beside)
  for (const other of [elsewhere, far]) await docker.tag(beside, other)
  for (const pushed of [beside, elsewhere]) await docker.push(pushed)
  assert.ok((await storedBytes(node, MOBY)) < MIB, 'data was fetched for the push')
  await assert.rejects(docker.push(far), /not found/)
  await node.ctrOf(MOBY, 'content', 'fetch', '--plain-http', reference)
  await docker.push(far)
  await docker.remove('one')
  for (const pushed of [beside, elsewhere, far]) {
    await empty(node, docker)
    await docker.pull(pushed)
    assert.ok((await storedBytes(node, MOBY)) < MIB, pushed)
    await docker.run(pushed, 'two', SLEEP)
    assert.equal(await docker.exec('two', SHOWN), wanted, pushed)
    await docker.remove('two')
  }
  await empty(node, docker)
  await docker[Symbol.asyncDispose]()
  await closing.disposeAsync()
  await isStopped(node)
}

/** Nothing of what was pulled and built is left, so that nothing of it can help what comes next. */
async function empty(node: TestNode, docker: Docker): Promise<void> {
  await docker.removeImages()
  await node.removeImages(MOBY)
  await node.cri.removeAll()
  await isEmptied(node)
}
