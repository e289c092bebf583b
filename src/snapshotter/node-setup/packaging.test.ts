/** The files of `packaging/` are those that the programs know. */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { missingIn, readContainerdConfig } from '../containerd-config/index.ts'
import { parseSettings } from '../settings/index.ts'
import { withDockerKeys } from './docker.ts'
import { DEFAULT_PLACES, NYDUSD_CONFIG, serviceUnit, snapshotterConfig } from './templates.ts'

const PACKAGING = join(import.meta.dirname, '../../../packaging')
const read = (path: string): string => readFileSync(join(PACKAGING, path), 'utf8')

test('what nydus-setup writes is what packages bring', () => {
  assert.equal(read('systemd/containerd-nydus-grpc.service'), serviceUnit('/usr/bin/containerd-nydus-grpc'))
  assert.equal(read('snapshotter/snapshotter.toml'), snapshotterConfig())
  assert.equal(read('snapshotter/nydusd-config.json'), NYDUSD_CONFIG)
})

test('every example configuration of the snapshotter is read without a warning', () => {
  for (const name of readdirSync(join(PACKAGING, 'snapshotter'))) {
    if (name.endsWith('.toml'))
      assert.deepEqual(parseSettings(read(`snapshotter/${name}`), {}, name).warnings, [], name)
    else assert.ok('device' in (JSON.parse(read(`snapshotter/${name}`)) as object), name)
  }
})

test('the examples for containerd and Docker lack nothing', () => {
  for (const [name, containerd] of [
    ['config-1.x.toml', { major: 1, minor: 6 }],
    ['config-1.x.toml', { major: 1, minor: 7 }],
    ['config-2.x.toml', { major: 2, minor: 0 }],
    ['config-2.x.toml', { major: 2, minor: 1 }],
  ] as const) {
    const config = readContainerdConfig(join(PACKAGING, 'containerd', name))
    assert.deepEqual(
      missingIn(config, { containerd, ...DEFAULT_PLACES, name: 'nydus', architecture: 'amd64' }),
      [],
      name,
    )
  }
  const docker = read('docker/daemon.json')
  assert.equal(withDockerKeys(docker, 'daemon.json'), docker)
})
