/** ctr-remote converts images of the containerd of this machine. */
import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { convert, testWorld } from '../src/convert/testing.ts'
import { hostPlatform, type ImageManifest } from '../src/registry/index.ts'
import { ctrRemote } from './beside/ctr-remote.ts'
import { pushTestImage } from './beside/image.ts'
import { PrivateContainerd } from './beside/private-containerd.ts'
import { StubSnapshotter } from './beside/stub-snapshotter.ts'
import { whyNoContainers } from './node/why-no-node.ts'

const skip = whyNoContainers() ?? false

test('an image of the store becomes the Nydus image that a conversion in the registry makes, and stays whole', {
  skip,
}, async (t) => {
  await using world = await testWorld()
  await pushTestImage(world)
  await using node = await PrivateContainerd.start()
  const images = ['-a', node.address, '-n', node.namespace, 'images']
  const [source, target] = [`${world.server.host}/app:plain`, `${world.server.host}/app:made`]
  assert.equal((await ctrRemote([...images, 'rpull', '--snapshotter', 'native', source])).code, 0)

  const temporary = mkdtempSync(join(tmpdir(), 'convert '))
  t.after(() => rmSync(temporary, { recursive: true, force: true }))
  writeFileSync(join(temporary, 'list'), '# what is read first\n/data/05\n\n/bin/busybox\n')
  const list = ['--prefetch-list', join(temporary, 'list')]
  const made = await ctrRemote([...images, 'convert', '--nydus', '--oci', ...list, source, target], {
    env: { TMPDIR: temporary },
  })
  assert.deepEqual([made.code, made.stderr], [0, ''])
  assert.deepEqual(readdirSync(temporary), ['list'], 'nothing is left in the temporary folder')
  const version = (await ctrRemote(['--version'])).stdout.trim().split(' ')[1]
  const other = await convert(world, 'app', {
    target: world.repository('app:other'),
    prefetchPaths: ['/data/05', '/bin/busybox'],
    toOci: true,
    platforms: [hostPlatform()],
    builderVersion: `v${version}`,
  })
  assert.equal(made.stdout, `${other.digest}\n`, 'the same image, byte for byte')

  await node.ctr('images', 'rm', '--sync', source)
  const { descriptor, parsed } = await world.repository('app:other').manifest('other')
  const { config, layers } = (parsed as { image: ImageManifest }).image
  const all = [descriptor, config, ...layers].map(({ digest }) => String(digest)).sort()
  assert.deepEqual(await node.content(), all, 'what it is made of stays, all else goes')
  await node.ctr('images', 'push', '--plain-http', target)
  assert.equal((await world.repository('app:made').resolve('made')).digest, descriptor.digest)
})

test('conversions that cannot be are told in a line', { skip }, async () => {
  await using world = await testWorld()
  await pushTestImage(world)
  await using node = await PrivateContainerd.start()
  const images = ['-a', node.address, '-n', node.namespace, 'images']
  const nydus = `${world.server.host}/app:nydus`
  await using _stub = await StubSnapshotter.start(node.snapshotterSocket, join(node.path, 'stub'), {
    overlayType: 'overlay',
    extraOptions: [],
  })
  assert.equal((await ctrRemote([...images, 'rpull', nydus])).code, 0)
  const failing: Array<[string[], RegExp]> = [
    [['absent:1', 'x:1'], /^ctr-remote: image "absent:1": not found in containerd's namespace/],
    [[nydus, 'x:1'], /is a Nydus image already/],
    [[nydus], /^ctr-remote: src and target image need to be specified/],
    [[nydus, `x@sha256:${'0'.repeat(64)}`], /must be a name with a tag/],
    [['--nydus-chunk-size', '5', nydus, 'x:1'], /invalid --chunk-size 5/],
    [['--nydus-compressor', 'lzma', nydus, 'x:1'], /--compressor should be one of/],
    [['--prefetch-list', '/no/list', nydus, 'x:1'], /failed to open prefetch list file: ENOENT/],
    [['--platform', 'a/b/c/d', nydus, 'x:1'], /cannot use platform "a\/b\/c\/d"/],
  ]
  for (const [args, told] of failing) {
    const { code, stdout, stderr } = await ctrRemote([...images, 'convert', ...args])
    assert.deepEqual([code, stdout], [1, ''], args.join(' '))
    assert.match(stderr, told)
  }
  assert.equal((await node.ctr('leases', 'ls', '-q')).trim(), '')
})
