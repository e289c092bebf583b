/** What is left of an image when the end of it comes at the wrong moment: nothing. */
import assert from 'node:assert/strict'
import { existsSync, globSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { DaemonApi } from '../src/snapshotter/daemons/api-client.ts'
import { SnapshotterError } from '../src/snapshotter/errors.ts'
import { RecordTable } from '../src/snapshotter/store/records.ts'
import { Field, FILE, IMAGE, skip, until } from './daemons/field.ts'

const FULL = new SnapshotterError('RESOURCE_EXHAUSTED', 'the disk is full')

/** Nothing of any image: no mount, no process, no file, no record. */
async function isNothingLeft(field: Field): Promise<void> {
  await until(
    () => `the end of processes ${field.daemonProcesses().join(', ')}\n${field.lines.join('\n')}\n`,
    () => (field.daemonProcesses().length === 0 ? true : undefined),
  )
  assert.deepEqual(field.mounts(), [])
  for (const folder of ['socket', 'config', 'supervisor', 'logs'])
    if (existsSync(join(field.settings.root, folder)))
      assert.deepEqual(readdirSync(join(field.settings.root, folder)), [], folder)
  assert.deepEqual(field.store?.records('instances').all(), [])
  assert.deepEqual(field.store?.records('daemons').all(), [])
}

test('a daemon whose image was released by a snapshotter that was killed meanwhile is ended by the next one', {
  skip,
  timeout: 180_000,
}, async () => {
  for (const recover of ['restart', 'failover', 'none'] as const) {
    await using field = new Field({ mode: 'dedicated', recover })
    await field.start()
    const { key } = await field.ensure(field.layer(IMAGE))
    assert.equal(field.mounts().length, 1)
    field.store?.records('instances').remove(key)
    const images = await field.restart()
    assert.deepEqual(images.list(), [])
    await isNothingLeft(field)
  }
})

for (const lost of ['record', 'bootstrap'] as const)
  test(`a daemon goes on that serves an image whose ${lost} cannot be read any more: a container may have it`, {
    skip,
    timeout: 180_000,
  }, async () => {
    await using field = new Field({ mode: 'dedicated' })
    await field.start()
    const { key, mountpoint: path } = await field.ensure(field.layer(IMAGE))
    const [mounts, processes] = [field.mounts(), field.daemonProcesses()]
    assert.equal(mounts.length, 1)
    const before = readFileSync(join(path, FILE))
    if (lost === 'record') field.store?.records('instances').put(key, '{ damaged')
    else
      for (const boot of globSync('**/image.boot', { cwd: field.settings.root }))
        rmSync(join(field.settings.root, boot))
    await field.restart()
    assert.match(
      field.lines.join('\n'),
      lost === 'record' ? /a record cannot be read, and is left alone: image/ : /is forgotten: its bootstrap is gone/,
    )
    assert.deepEqual([field.mounts(), field.daemonProcesses()], [mounts, processes])
    assert.deepEqual(readFileSync(join(path, FILE)), before)
  })

test('a daemon whose record cannot be removed is ended all the same, and its record by the next start', {
  skip,
  timeout: 180_000,
}, async (t) => {
  await using field = new Field({ mode: 'dedicated' })
  const images = await field.start()
  const layer = field.layer(IMAGE)
  await field.ensure(layer)
  const remove = Reflect.get(RecordTable.prototype, 'remove')
  const refusing = t.mock.method(RecordTable.prototype, 'remove', function (this: RecordTable, key: string) {
    if (key.length === 20) throw FULL // of a daemon
    remove.call(this, key)
  })
  await images.release(layer.id)
  assert.deepEqual([field.mounts(), field.daemonProcesses()], [[], []])
  assert.ok(field.lines.some((line) => /^error something is left of nydusd .*: the disk is full/.test(line)))
  refusing.mock.restore()
  await field.restart()
  await isNothingLeft(field)
})

for (const mode of ['shared', 'dedicated'] as const)
  test(`an image whose record cannot be written says why, ${mode}, and leaves nothing`, {
    skip,
    timeout: 180_000,
  }, async (t) => {
    await using field = new Field({ mode })
    const images = await field.start()
    const layer = field.layer(IMAGE)
    const refuse = (): never => {
      throw FULL
    }
    await images.settled()
    for (const method of ['put', 'remove'] as const) t.mock.method(RecordTable.prototype, method, refuse)
    await assert.rejects(field.ensure(layer), { code: 'RESOURCE_EXHAUSTED' })
    t.mock.restoreAll()
    assert.equal(images.find(layer.id), undefined)
    if (mode === 'dedicated') await isNothingLeft(field)
    assert.equal(readFileSync(join((await field.ensure(layer)).mountpoint, FILE)).length, 65_536)
  })

for (const mode of ['shared', 'dedicated'] as const)
  test(`an image of a snapshot that was removed meanwhile is not mounted, ${mode}`, {
    skip,
    timeout: 180_000,
  }, async () => {
    await using field = new Field({ mode })
    const images = await field.start()
    const [layer, other] = [field.layer(IMAGE), field.layer(IMAGE, 'other')]
    field.store?.remove(layer.key)
    await images.release(layer.id)
    await assert.rejects(field.ensure(layer), { code: 'NOT_FOUND', message: /was removed/ })
    assert.equal(images.find(layer.id), undefined)
    // Its name may be another's by now.
    field.store?.remove(other.key)
    field.layer(IMAGE, 'other')
    await assert.rejects(field.ensure(other), { code: 'NOT_FOUND' })
    if (mode === 'dedicated') await isNothingLeft(field)
  })

for (const mode of ['shared', 'dedicated'] as const)
  test(`what a daemon tells of an image that was released meanwhile is not recorded, ${mode}`, {
    skip,
    timeout: 180_000,
  }, async (t) => {
    await using field = new Field({ mode })
    const images = await field.start()
    const layer = field.layer(IMAGE)
    const [asked, answer] = [Promise.withResolvers<void>(), Promise.withResolvers<unknown>()]
    t.mock.method(DaemonApi.prototype, 'metrics', async () => {
      asked.resolve()
      return await answer.promise
    })
    await field.ensure(layer)
    await asked.promise
    await images.release(layer.id)
    answer.resolve({ underlying_files: ['a'] })
    await nextTurn()
    assert.deepEqual(field.store?.records('instances').all(), [])
  })

test('a configuration, which has logins in it, goes with an image that could not be mounted', {
  skip,
  timeout: 180_000,
}, async () => {
  await using field = new Field({ mode: 'shared' })
  const images = await field.start()
  const broken = field.layer(IMAGE)
  writeFileSync(join(field.request(broken).directory, 'fs/image/image.boot'), Buffer.alloc(65_536, 'no bootstrap'))
  await assert.rejects(field.ensure(broken), /cannot mount/)
  const [daemon] = images.list()
  assert.deepEqual(readdirSync(join(field.settings.root, 'config', daemon?.id ?? '')), [])
})
