/** ctr-remote runs an image in the containerd of this machine, sees what it reads, and makes a Nydus image whose nodes fetch that first. */
import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { test } from 'node:test'
import { testWorld } from '../src/convert/testing.ts'
import { openBootstrap } from '../src/rafs/index.ts'
import type { ImageManifest } from '../src/registry/index.ts'
import { ctrRemote } from './beside/ctr-remote.ts'
import { pushTestImage } from './beside/image.ts'
import { PrivateContainerd } from './beside/private-containerd.ts'
import { whyNoContainers } from './node/why-no-node.ts'

const skip = whyNoContainers() ?? false

test('what a container reads is what nodes fetch first, and nothing is left of the run', { skip }, async (t) => {
  await using world = await testWorld()
  await pushTestImage(world)
  await using node = await PrivateContainerd.start()
  const images = ['-a', node.address, '-n', node.namespace, 'images']
  const [source, target] = [`${world.server.host}/app:plain`, `${world.server.host}/app:fast`]
  assert.equal((await ctrRemote([...images, 'rpull', '--snapshotter', 'overlayfs', source])).code, 0)
  const temporary = mkdtempSync(join(tmpdir(), 'optimize '))
  t.after(() => rmSync(temporary, { recursive: true, force: true }))
  const recorded = join(temporary, 'recorded')
  const script = 'cat /data/03 > /dev/null; cat /data/01 > /dev/null; echo it is ready; exec sleep 1000'
  const run = [
    '--entrypoint',
    JSON.stringify(['/bin/sh', '-c', script]),
    '--wait-on-line',
    'is ready',
    '--period',
    '120',
  ]
  const ended = await ctrRemote([...images, 'optimize', ...run, '--record-out', recorded, source, target], {
    env: { TMPDIR: temporary },
  })
  assert.match(ended.stderr, /^it is ready\n\d+ files were read\n$/)
  assert.equal(ended.code, 0)
  const list = readFileSync(recorded, 'utf8').trimEnd().split('\n')
  assert.ok(list.indexOf('/data/03') >= 0 && list.indexOf('/data/03') < list.indexOf('/data/01'), list.join())
  assert.ok(!list.includes('/data/02'))
  assert.ok(
    list.some((path) => /busybox|sh$/.test(path)),
    list.join(),
  )
  assert.deepEqual(readdirSync(temporary), ['recorded'])
  for (const [what, args] of [
    ['tasks', ['task', 'ls', '-q']],
    ['containers', ['container', 'ls', '-q']],
    ['leases', ['leases', 'ls', '-q']],
  ] as const)
    assert.equal((await node.ctr(...args)).trim(), '', what)
  assert.doesNotMatch(await node.ctr('snapshots', 'ls'), /optimize|Active/)

  await node.ctr('images', 'push', '--plain-http', target)
  const repository = world.repository('app:fast')
  const { parsed, descriptor } = await repository.manifest('fast')
  assert.equal(ended.stdout, `${descriptor.digest}\n`)
  const layer = (parsed as { image: ImageManifest }).image.layers.at(-1)
  assert.ok(layer)
  const tar = gunzipSync(await repository.blob(layer.digest, 1 << 24))
  // The tar has a directory and the one file, whose size is in its header.
  const size = Number.parseInt(tar.subarray(512 + 124, 512 + 135).toString(), 8)
  const bootstrap = openBootstrap(tar.subarray(1024, 1024 + size))
  assert.equal(bootstrap.prefetch().length, list.length)
})

test('runs that cannot be are told in a line, and leave nothing', { skip }, async (t) => {
  await using world = await testWorld()
  await pushTestImage(world)
  await using node = await PrivateContainerd.start()
  const temporary = mkdtempSync(join(tmpdir(), 'optimize '))
  t.after(() => rmSync(temporary, { recursive: true, force: true }))
  writeFileSync(join(temporary, 'list'), '/data/01\n')
  const images = ['-a', node.address, '-n', node.namespace, 'images']
  const source = `${world.server.host}/app:plain`
  assert.equal((await ctrRemote([...images, 'rpull', '--snapshotter', 'overlayfs', source])).code, 0)
  const failing: Array<[string[], RegExp]> = [
    [['absent:1', 'x:1'], /image "absent:1": not found/],
    [['--snapshotter', 'native', source, 'x:1'], /is not unpacked for the snapshotter native/],
    [['--period', 'x', source, 'x:1'], /invalid value "x" for flag -period/],
    [['--args', 'x', source, 'x:1'], /-args: write a JSON array/],
    [['--entrypoint', '["/no/such"]', source, 'x:1'], /no such file/],
    [['--user', 'somebody', source, 'x:1'], /give it with --user UID:GID/],
    [['--no-optimize', '--prefetch-list', join(temporary, 'list'), source, 'x:1'], /cannot be used together/],
  ]
  for (const [args, told] of failing) {
    const { code, stdout, stderr } = await ctrRemote([...images, 'optimize', ...args])
    assert.deepEqual([code, stdout], [1, ''], args.join(' '))
    assert.match(stderr, told)
  }
  assert.equal((await node.ctr('container', 'ls', '-q')).trim(), '')
  assert.doesNotMatch(await node.ctr('snapshots', 'ls'), /optimize|Active/)
})
