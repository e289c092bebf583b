/** ctr-remote against the containerd of this machine: pulls into its own snapshotter and into a remote one. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { join } from 'node:path'
import { pushImage, tarOf, testWorld } from '../src/convert/testing.ts'
import { hostPlatform, type ImageManifest } from '../src/registry/index.ts'
import { ctrRemote } from './beside/ctr-remote.ts'
import { PrivateContainerd } from './beside/private-containerd.ts'
import { StubSnapshotter } from './beside/stub-snapshotter.ts'
import { pushTestImage } from './beside/image.ts'
import { whyNoContainers } from './node/why-no-node.ts'

const skip = whyNoContainers() ?? false

/** What `ctr content ls` shows of a digest. */
async function labelsOf(node: PrivateContainerd, digest: string): Promise<Map<string, string>> {
  const lines = (await node.ctr('content', 'ls')).split('\n')
  const line = lines.find((text) => text.startsWith(digest)) ?? ''
  const labels = line.split('\t').at(-1) ?? ''
  return new Map(labels.split(',').map((text) => text.trim().split('=') as [string, string]))
}

test('pulls plain images into the snapshotter of containerd, whole, and they run', { skip }, async () => {
  await using world = await testWorld()
  const sums = await pushTestImage(world)
  await using node = await PrivateContainerd.start()
  const image = `${world.server.host}/app:plain`
  const at = ['--address', node.address, '-n', node.namespace]
  const args = [...at, 'images', 'rpull', '--snapshotter=overlayfs', '--label', 'a=b', '--label', 'c', image]
  const ended = await ctrRemote(args)
  assert.deepEqual([ended.code, ended.stderr], [0, ''])
  const manifest = await world.repository('app:plain').manifest('plain')
  assert.equal(manifest.parsed.kind, 'image')
  const { config, layers } = (manifest.parsed as { image: ImageManifest }).image
  const all = [manifest.descriptor, config, ...layers]
  assert.deepEqual(
    ended.stdout.trimEnd().split('\n').sort(),
    all.map(({ digest, mediaType }) => `fetching ${digest.slice(0, 15)}... ${mediaType}`).sort(),
  )
  assert.deepEqual(await node.content(), all.map(({ digest }) => String(digest)).sort())
  const labels = await labelsOf(node, manifest.descriptor.digest)
  assert.equal(labels.get('containerd.io/gc.ref.content.config'), config.digest)
  assert.equal(labels.get('containerd.io/gc.ref.content.l.1'), layers[1]?.digest)
  assert.equal(labels.get(`containerd.io/distribution.source.${world.server.host}`), 'app')
  assert.match(await node.ctr('images', 'ls'), new RegExp(`${image}.*a=b,c=true`))
  assert.equal(await node.run(image, 'c1', 'overlayfs', '/bin/sh', '-c', 'sha256sum /data/*'), sums)

  const requests = world.server.counters().blob.requests
  const again = await ctrRemote(args)
  assert.deepEqual([again.code, again.stderr], [0, ''])
  assert.equal(world.server.counters().blob.requests, requests, 'nothing is fetched twice')
  assert.equal((await node.ctr('leases', 'ls', '-q')).trim(), '', 'no lease is left')
  await node.ctr('images', 'rm', '--sync', image)
  assert.deepEqual(await node.content(), [], 'the garbage collector finds all of it')
})

test('layers that the snapshotter has by itself are not fetched, and it is told which image they are of', {
  skip,
}, async () => {
  await using world = await testWorld()
  await pushTestImage(world)
  await using node = await PrivateContainerd.start()
  const folder = join(node.path, 'stub')
  await using stub = await StubSnapshotter.start(node.snapshotterSocket, folder, {
    overlayType: 'overlay',
    extraOptions: [],
  })
  const image = `${world.server.host}/app:nydus`
  const ended = await ctrRemote(['-a', node.address, '-n', node.namespace, 'i', 'rpull', image])
  assert.deepEqual([ended.code, ended.stderr], [0, ''])
  const { parsed, descriptor } = await world.repository('app:nydus').manifest('nydus')
  const { config, layers } = (parsed as { image: ImageManifest }).image
  const bootstrap = layers.at(-1)
  assert.deepEqual(
    await node.content(),
    [descriptor.digest, config.digest, bootstrap?.digest].map(String).sort(),
    'manifest, config and bootstrap',
  )
  assert.equal(stub.prepared.length, layers.length)
  for (const [index, labels] of stub.prepared.entries()) {
    const own = Object.fromEntries(Object.entries(labels).filter(([key]) => key.includes('/cri.')))
    assert.deepEqual(own, {
      'containerd.io/snapshot/cri.image-ref': image,
      'containerd.io/snapshot/cri.layer-digest': layers[index]?.digest,
      'containerd.io/snapshot/cri.image-layers': layers
        .slice(index)
        .map(({ digest }) => digest)
        .join(','),
      'containerd.io/snapshot/cri.manifest-digest': descriptor.digest,
    })
  }
  const snapshots = [...stub.snapshots.values()]
  assert.deepEqual(
    snapshots.map(({ kind }) => kind),
    layers.map(() => 3),
    'all are committed, none is left under way',
  )
  assert.equal(snapshots.at(-1)?.labels['containerd.io/snapshot/nydus-bootstrap'], 'true')
  const refs = await labelsOf(node, config.digest)
  assert.equal(refs.get('containerd.io/gc.ref.snapshot.nydus'), stub.prepared.at(-1)?.['containerd.io/snapshot.ref'])
})

test('an image that is put together wrongly leaves no snapshot and no image', { skip }, async () => {
  await using world = await testWorld()
  const layers = [await tarOf([{ path: 'a', type: 'file', content: 'a' }]), await tarOf([{ path: 'b', type: 'file' }])]
  const wrong = `sha256:${'0'.repeat(64)}`
  const { architecture } = hostPlatform()
  await pushImage(world.repository('bad:one'), layers, { architecture, diffIds: [wrong, wrong] })
  await pushImage(world.repository('bad:two'), layers, { architecture, diffIds: [wrong] })
  await pushImage(world.repository('bad:arch'), layers, { architecture })
  await using node = await PrivateContainerd.start()
  const rpull = (image: string, ...more: readonly string[]) =>
    ctrRemote(['-a', node.address, '-n', node.namespace, 'images', 'rpull', '--snapshotter', 'native', ...more, image])
  const { host } = world.server
  const failing: Array<[string, RegExp, ...string[]]> = [
    [`${host}/bad:one`, /^ctr-remote: wrong diff id calculated on extraction "sha256:0/],
    [`${host}/bad:two`, /^ctr-remote: number of layers and diffIDs don't match: 2 != 1/],
    [`${host}/absent:x`, /^ctr-remote: .*absent/],
    [`${host}/bad:arch`, /^ctr-remote: failed to stat layer 1 of 2 .* on snapshotter nope: /, '--snapshotter', 'nope'],
    ['not a name', /^ctr-remote: cannot use image reference "not a name"/],
    [`${host}/bad:arch`, /^ctr-remote: --ipfs is not supported/, '--ipfs'],
    [`${host}/bad:arch`, /^ctr-remote: failed to read "\/no\/ca"/, '--tlscacert', '/no/ca'],
    [`${host}/bad:arch`, /^ctr-remote: flags --tlscert and --tlskey must be set together/, '--tlscert', '/x'],
  ]
  for (const [image, told, ...more] of failing) {
    const { code, stderr } = await rpull(image, ...more)
    assert.equal(code, 1, image)
    assert.match(stderr, told)
    assert.equal(stderr.split('\n').length, 2, 'one line')
  }
  assert.equal((await node.ctr('images', 'ls', '-q')).trim(), '')
  const snapshots = (await node.ctr('snapshots', '--snapshotter', 'native', 'ls')).trim().split('\n')
  assert.equal(snapshots.length, 1, 'only the heading')
  assert.equal((await node.ctr('leases', 'ls', '-q')).trim(), '')
})

test('other commands are those of ctr', { skip }, async () => {
  await using node = await PrivateContainerd.start()
  const ended = await ctrRemote(['--address', node.address, '--namespace=x', 'namespaces', 'create', 'made'])
  assert.deepEqual([ended.code, ended.stderr], [0, ''])
  assert.match((await ctrRemote(['-a', node.address, 'ns', 'ls', '-q'])).stdout, /made/)
  const missing = await ctrRemote(['images', 'check'], { env: { PATH: '/nowhere' } })
  assert.equal(missing.code, 1)
  assert.match(missing.stderr, /"images check" is a command of containerd's ctr, which is not installed/)
  assert.equal((await ctrRemote(['-a', node.address, 'images', 'rm', 'absent'])).code, 0)
  assert.equal((await ctrRemote(['-a', node.address, 'run', 'absent', 'c'])).code, 1)
})
