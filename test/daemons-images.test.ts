import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { callApi, differencesSeenApart } from '../src/daemon/testing.ts'
import { mountOverlay, unmount } from '../src/kernel/index.ts'
import { Field, FILE, IMAGE, OTHER_IMAGE, skip, until } from './daemons/field.ts'

for (const mode of ['shared', 'dedicated'] as const)
  test(`${mode}: images are mounted once, survive a restart of the snapshotter, and leave nothing behind`, {
    skip,
    timeout: 180_000,
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

for (const mode of ['shared', 'dedicated'] as const) {
  test(`${mode}: an image with shifted ids is a second mount of the same layer, and ends alone`, {
    skip,
    timeout: 180_000,
  }, async () => {
    await using field = new Field({ mode })
    const images = await field.start()
    const layer = field.layer(IMAGE)
    const idMapping = { container: 0, host: 100_000, size: 65_536 }
    const [plain, shifted] = [await field.ensure(layer), await field.ensure(layer, { idMapping })]
    assert.deepEqual(await differencesSeenApart(plain.mountpoint, IMAGE.tree), [])
    const before = statSync(join(plain.mountpoint, FILE))
    const after = statSync(join(shifted.mountpoint, FILE))
    assert.deepEqual([after.uid, after.gid], [before.uid + 100_000, before.gid + 100_000])
    assert.equal(shifted.key, `${layer.id}-userns-100000`)
    assert.deepEqual(images.find(layer.id, idMapping), shifted)
    await field.restart()
    assert.deepEqual([await field.ensure(layer), await field.ensure(layer, { idMapping })], [plain, shifted])
    await field.images?.release(layer.id, idMapping)
    assert.equal(field.images?.find(layer.id, idMapping), undefined)
    assert.equal(readFileSync(join(plain.mountpoint, FILE)).length, 65_536)
    await field.images?.release(layer.id)
    assert.deepEqual(
      field.images?.list().flatMap(({ instances }) => instances),
      [],
    )
  })

  test(`${mode}: a mount that somebody detached is made anew, and who used it goes on`, {
    skip,
    timeout: 180_000,
  }, async () => {
    await using field = new Field({ mode, recover: 'failover' })
    await field.start()
    const layer = field.layer(IMAGE)
    const { mountpoint } = await field.ensure(layer)
    const root = field.folder('root')
    await mountOverlay(root, { lower: [mountpoint, field.folder('empty')] })
    const [pid] = field.pids()
    await unmount(field.images?.list()[0]?.mountpoint ?? '', true)
    const again = await field.ensure(layer)
    assert.equal(again.mountpoint, mountpoint)
    assert.deepEqual(await differencesSeenApart(mountpoint, IMAGE.tree), [])
    assert.notEqual(field.pids()[0], pid)
    assert.equal(readFileSync(join(root, 'sizes/4097')).length, 4097)
    await field.restart()
    assert.equal(readFileSync(join(root, 'sizes/4096')).length, 4096)
    assert.equal(readFileSync(join(mountpoint, 'sizes/4096')).length, 4096)
    await unmount(root, true)
    await until('the end of the old daemon', () => (field.daemonProcesses().length === 1 ? true : undefined))
  })
}

test('a renewed login reaches the daemon and its configuration, and is kept over a takeover', {
  skip,
  timeout: 180_000,
}, async () => {
  const [old, renewed] = [
    { username: 'me', password: 'old' },
    { username: 'me', password: 'n:w' },
  ]
  const login = ({ username, password }: typeof old): string =>
    Buffer.from(`${username}:${password}`).toString('base64')
  const template = {
    device: { backend: { type: 'registry', config: { scheme: 'http' } }, cache: { type: 'blobcache', config: {} } },
    mode: 'direct',
  }
  await using field = new Field({ mode: 'shared', recover: 'failover', template })
  field.credentials = { find: async () => old }
  const images = await field.start()
  const reference = '127.0.0.1:1/app:1'
  const layer = field.layer(IMAGE)
  const image = await field.ensure(layer, { reference })
  const auth = async (): Promise<unknown> => {
    const { text } = await callApi(images.list()[0]?.apiSocket ?? '', 'GET', `/api/v1/config?id=/${image.key}`)
    return (JSON.parse(text) as { registry_auth?: string }).registry_auth
  }
  assert.deepEqual([...images.references()], [reference])
  await images.renewed(reference, renewed)
  assert.equal(await auth(), login(renewed))
  assert.match(readFileSync(image.configPath, 'utf8'), new RegExp(login(renewed)))
  const [pid = 0] = field.pids()
  process.kill(pid, 'SIGKILL')
  await until('a successor that has the login', async () =>
    images.list()[0]?.state === 'running' && field.pids()[0] !== pid && (await auth()) === login(renewed)
      ? true
      : undefined,
  )
  assert.equal(
    field.lines.some((line) => line.includes(login(old)) || line.includes(login(renewed)) || line.includes('n:w')),
    false,
  )
})
