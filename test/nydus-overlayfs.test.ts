/** containerd mounts the roots of containers by bin/nydus-overlayfs: through mount.fuse3, for itself and by the shim. */
import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { test } from 'node:test'
import { dirname, join } from 'node:path'
import { testWorld } from '../src/convert/testing.ts'
import { ctrRemote } from './beside/ctr-remote.ts'
import { PrivateContainerd } from './beside/private-containerd.ts'
import { StubSnapshotter } from './beside/stub-snapshotter.ts'
import { pushTestImage } from './beside/image.ts'
import { whyNoContainers } from './node/why-no-node.ts'

const MOUNT_FUSE = [...(process.env['PATH'] ?? '').split(':'), '/usr/sbin', '/sbin']
  .map((folder) => join(folder, 'mount.fuse'))
  .find(existsSync)
const skip = whyNoContainers() || (MOUNT_FUSE === undefined && 'mount.fuse is not installed (package fuse3)')

test('containers run on mounts of type fuse.nydus-overlayfs, whose other options nobody sees', { skip }, async () => {
  await using world = await testWorld()
  const sums = await pushTestImage(world)
  const helper = join(import.meta.dirname, '../bin')
  await using node = await PrivateContainerd.start([helper, dirname(MOUNT_FUSE ?? '')])
  await using _stub = await StubSnapshotter.start(node.snapshotterSocket, join(node.path, 'stub'), {
    overlayType: 'fuse.nydus-overlayfs',
    extraOptions: [
      `extraoption=${Buffer.from(JSON.stringify({ source: '/x', config: '{"auth":"c2VjcmV0"}' })).toString('base64')}`,
      `io.katacontainers.volume=${'QUJD'.repeat(3000)}`,
    ],
  })
  const image = `${world.server.host}/app:plain`
  const pulled = await ctrRemote(['-a', node.address, '-n', node.namespace, 'images', 'rpull', image])
  assert.deepEqual([pulled.code, pulled.stderr], [0, ''])
  assert.equal(await node.run(image, 'c0', 'nydus', '/bin/sh', '-c', 'sha256sum /data/*'), sums)
  const id = 'c1'
  const runc = ['--runc-root', join(node.path, 'runc')]
  await node.ctr('run', '-d', ...runc, '--snapshotter', 'nydus', image, id, '/bin/sleep', '1000')
  const table = readFileSync('/proc/self/mountinfo', 'utf8').split('\n')
  const root = table.find((line) => line.includes(`${node.path}/state`) && line.includes(`/${id}/rootfs `)) ?? ''
  assert.match(root, / - overlay overlay /)
  assert.doesNotMatch(root, /extraoption|katacontainers|nosuid|nodev/)
  const inside = ['task', 'exec', '--exec-id', 'e', id, '/bin/sh', '-c', 'echo new > /data/new; sha256sum /data/*']
  assert.ok((await node.ctr(...inside)).startsWith(sums.split('\n')[0] ?? 'nothing'))
  await node.ctr('task', 'rm', '-f', id)
  await node.ctr('container', 'rm', id)
  assert.equal(readFileSync('/proc/self/mountinfo', 'utf8').includes(`/${id}/rootfs `), false)
})
