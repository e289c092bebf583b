import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { differencesSeenApart } from '../src/daemon/testing.ts'
import { Field, FILE, IMAGE, OTHER_IMAGE, skip } from './daemons/field.ts'

for (const mode of ['shared', 'dedicated'] as const)
  test(`${mode}: images are mounted once, survive a restart of the snapshotter, and leave nothing behind`, {
    skip,
    timeout: 120_000,
  }, async () => {
    await using field = new Field({ mode })
    const images = await field.start()
    const [first, second] = [field.layer(IMAGE), field.layer(OTHER_IMAGE)]
    const [a, again, b] = await Promise.all([field.ensure(first), field.ensure(first), field.ensure(second)])
    assert.deepEqual(a, again)
    assert.deepEqual(await differencesSeenApart(a.mountpoint, IMAGE.tree), [])
    assert.deepEqual(await differencesSeenApart(b.mountpoint, OTHER_IMAGE.tree), [])
    assert.equal(field.pids().length, mode === 'shared' ? 1 : 2)
    assert.equal(
      a.mountpoint,
      mode === 'shared'
        ? join(field.settings.root, 'mnt', a.key)
        : join(field.settings.root, 'snapshots', a.key, 'mnt'),
    )
    assert.equal(statSync(a.configPath).mode & 0o777, 0o600)
    const config = JSON.parse(readFileSync(a.configPath, 'utf8')) as Record<string, unknown>
    assert.deepEqual(config['unknown_key'], { stays: [1, 2] })
    assert.equal((config['device'] as { id: string }).id, `/${a.key}`)
    assert.deepEqual(images.find(first.id), a)

    const [pids, mounts] = [field.pids(), field.mounts()]
    assert.equal(mounts.length, mode === 'shared' ? 1 : 2)
    await field.restart()
    assert.deepEqual(field.pids(), pids, field.lines.join('\n'))
    assert.deepEqual(field.mounts(), mounts)
    assert.deepEqual(await field.ensure(first), a)
    assert.deepEqual(field.mounts(), mounts)
    assert.ok(readFileSync(join(a.mountpoint, FILE)).length === 65_536)

    await field.images?.release(first.id)
    assert.equal(field.images?.find(first.id), undefined)
    assert.equal(existsSync(join(a.mountpoint, FILE)), false)
    assert.deepEqual(await differencesSeenApart(b.mountpoint, OTHER_IMAGE.tree), [])
    await field.images?.release(second.id)
    await field.stop()
    assert.deepEqual(field.mounts(), [])
    assert.deepEqual(field.processes(), [])
    for (const folder of ['socket', 'config', 'supervisor'])
      assert.deepEqual(readdirSync(join(field.settings.root, folder)), [])
  })
