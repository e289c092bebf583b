/** Docker with containerd's image store. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import type { NodeCase, World } from '../case.ts'
import { storedBytes } from '../content.ts'
import { Docker } from '../docker.ts'
import { isEmptied, isStopped } from '../emptied.ts'

const MIB = 2 ** 20
export const SLEEP = ['/bin/sleep', '1000']
/** docker's namespace in containerd. */
export const MOBY = 'moby'

export const DOCKER_CASES: readonly NodeCase[] = [
  {
    name: 'docker',
    title: 'docker pulls, runs, commits, runs what it committed, and removes a Nydus image',
    whyNot: whyNoDocker,
    run: pullsRunsCommits,
  },
]

/** Docker puts a layer of its own between the image and the container; the original's snapshotter loses the image then. */
export function whyNoDocker({ runtime, isOriginal }: World): string | undefined {
  if (isOriginal) return "the original's snapshotter gives containers of Docker 25 and later an empty root"
  try {
    const text = execFileSync('dockerd', ['--version'], {
      env: { ...process.env, PATH: runtime.path },
      encoding: 'utf8',
    })
    const version = Number(text.match(/version (\d+)/)?.[1])
    return version >= 24 ? undefined : `dockerd ${version} is too old`
  } catch {
    return 'there is no dockerd beside this containerd'
  }
}

async function pullsRunsCommits(world: World): Promise<string> {
  const node = await world.start({ mode: 'shared', recover: 'failover' })
  const image = await world.images.image('v6')
  await using docker = await Docker.start(node, world.runtime.path, world.images.registry.host)
  await docker.pull(image.reference)
  const fetched = await storedBytes(node, MOBY)
  assert.ok(fetched < MIB, `the pull fetched ${fetched} bytes`)
  await docker.run(image.reference, 'one', SLEEP)
  assert.equal(await docker.exec('one', 'sha256sum /data/*'), image.sums)
  await docker.exec('one', 'echo made > /made && rm /data/00 && echo more >> /data/01')
  const changes = (await docker.ask('GET', '/containers/one/changes')) as Array<{ Path: string; Kind: number }>
  const named = new Map(changes.map(({ Path, Kind }) => [Path, Kind]))
  assert.deepEqual([named.get('/made'), named.get('/data/00'), named.get('/data/01')], [1, 2, 0])
  const left = await docker.exec('one', 'sha256sum /data/*')
  await docker.ask('POST', '/commit?container=one&repo=committed&tag=1', {})
  await docker.run('committed:1', 'two', SLEEP)
  assert.equal(await docker.exec('two', 'cat /made; [ ! -e /data/00 ] && sha256sum /data/*'), `made\n${left}`)
  await docker.run(image.reference, 'three', SLEEP)
  assert.equal(await docker.exec('three', 'sha256sum /data/*'), image.sums)
  for (const name of ['one', 'two', 'three']) await docker.remove(name)
  await docker.ask('DELETE', '/images/committed:1?force=true')
  await docker.ask('DELETE', `/images/${encodeURIComponent(image.reference)}?force=true`)
  await node.cri.removeAll()
  await isEmptied(node)
  await docker[Symbol.asyncDispose]()
  await isStopped(node)
  return `${(fetched / MIB).toFixed(1)} MiB pulled`
}
