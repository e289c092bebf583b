/** Another nydusd takes over from one that is read from. */
import assert from 'node:assert/strict'
import { readlinkSync } from 'node:fs'
import { basename, join } from 'node:path'
import { test } from 'node:test'
import { commitOf } from '../src/snapshotter/daemons/upgrade.ts'
import { Field, FILE, IMAGE, OTHER_IMAGE, OURS, PEER, type Reader, skip, skipPeer, until } from './daemons/field.ts'

/** Images mounted, read from, with the sockets of their daemons. */
async function reading(field: Field): Promise<Reader> {
  const mounted = [await field.ensure(field.layer(IMAGE)), await field.ensure(field.layer(OTHER_IMAGE))]
  const reader = field.reader(...mounted.map(({ mountpoint }) => join(mountpoint, FILE)))
  await reader.more(3)
  return reader
}

function sockets(field: Field): string[] {
  return (field.images?.list() ?? []).map(({ apiSocket }) => basename(apiSocket))
}

for (const { to, from, why } of [
  { from: OURS, to: OURS, why: skip },
  { from: PEER, to: OURS, why: skipPeer },
  { from: OURS, to: PEER, why: skipPeer },
])
  for (const mode of ['shared', 'dedicated'] as const)
    test(`${mode}: ${to === OURS ? 'ours' : 'the original'} takes over from ${from === OURS ? 'ours' : 'the original'} under readers, again and again`, {
      skip: why,
      timeout: 180_000,
    }, async () => {
      await using field = new Field({ mode, recover: 'failover' })
      field.program('nydusd', from)
      const next = field.program('nydusd-next', to)
      await field.start()
      const reader = await reading(field)
      const [pids, mounts] = [field.pids(), field.mounts()]
      await field.images?.upgrade({ nydusdPath: next })
      assert.deepEqual(new Set(sockets(field)), new Set(['api1.sock']))
      assert.equal(
        field.pids().some((pid) => pids.includes(pid)),
        false,
      )
      await reader.more(3)
      assert.equal(readlinkSync(field.settings.daemon.nydusdPath), next)
      for (const { version } of field.images?.list() ?? []) assert.notEqual(version, '')
      // the next start has nothing to replace, and a death is survived by the new program
      await field.restart()
      await field.images?.settled()
      assert.deepEqual(new Set(sockets(field)), new Set(['api1.sock']))
      const [victim = 0] = field.pids()
      process.kill(victim, 'SIGKILL')
      await until('a successor', () =>
        field.pids().includes(victim) || field.images?.list().some(({ state }) => state !== 'running')
          ? undefined
          : true,
      )
      await reader.more(3)
      await field.images?.upgrade({ nydusdPath: field.program('nydusd-last', from) })
      await reader.more(3)
      assert.deepEqual(new Set(sockets(field)), new Set(['api2.sock']))
      assert.deepEqual(field.mounts(), mounts)
      assert.deepEqual(await reader.stop(), [], field.lines.join('\n'))
    })

test('a program that does not come up leaves the old daemon in its place', { skip, timeout: 180_000 }, async () => {
  await using field = new Field({ mode: 'dedicated', recover: 'failover', startupTimeoutMs: 60_000 })
  await field.start()
  const reader = await reading(field)
  const [pids, mounts] = [field.pids(), field.mounts()]
  const version = `if [ "$1" = --version ]; then exec '${OURS}' "$@"; fi`
  const ends = field.script('nydusd-ends', `${version}\necho it has no licence >&2\nexit 3`)
  await assert.rejects(
    async () => field.images?.upgrade({ nydusdPath: ends }),
    (error: Error) => {
      assert.match(
        error.message,
        /is not upgraded, and the old one goes on: .*it ended with 3; its last words: it has no licence/,
      )
      return true
    },
  )
  const odd = field.script('no-nydusd', 'exit 1')
  await assert.rejects(async () => field.images?.upgrade({ nydusdPath: odd }), { code: 'BAD_CONFIG' })
  await assert.rejects(async () => field.images?.upgrade({ nydusdPath: join(field.path, 'nowhere') }), {
    code: 'BAD_CONFIG',
  })
  await reader.more(3)
  assert.deepEqual([field.pids(), field.mounts(), new Set(sockets(field))], [pids, mounts, new Set(['api.sock'])])
  assert.deepEqual(await reader.stop(), [])
  const [victim = 0] = field.pids()
  process.kill(victim, 'SIGKILL') // and it still has a successor
  await until('a successor', () =>
    field.pids().includes(victim) || field.images?.list().some(({ state }) => state !== 'running') ? undefined : true,
  )
  assert.deepEqual(field.mounts(), mounts)
})

test('without a supervisor nothing is replaced, and the answer says what to do', {
  skip,
  timeout: 180_000,
}, async () => {
  await using field = new Field({ mode: 'shared', recover: 'restart' })
  await field.start()
  await field.ensure(field.layer(IMAGE))
  await assert.rejects(async () => field.images?.upgrade({ nydusdPath: OURS }), {
    code: 'FAILED_PRECONDITION',
    message: /recover_policy = "failover"/,
  })
})

test('a start finds another version installed, and replaces the daemons that serve', {
  skip: skipPeer,
  timeout: 180_000,
}, async () => {
  await using field = new Field({ mode: 'shared', recover: 'failover' })
  field.program('nydusd', PEER)
  await field.start()
  const reader = await reading(field)
  await field.stop()
  field.program('nydusd', OURS)
  await field.start()
  const commit = await commitOf(OURS)
  await until('the new version', () =>
    sockets(field)[0] === 'api1.sock' && field.images?.list()[0]?.state === 'running' ? true : undefined,
  )
  await reader.more(3)
  assert.deepEqual(await reader.stop(), [])
  assert.ok(commit !== '' && field.lines.some((line) => line.includes('is replaced by the version that is installed')))
})

test('a takeover that stopped half-way when the snapshotter was killed is ended by the next one', {
  skip,
  timeout: 180_000,
}, async () => {
  await using field = new Field({ mode: 'shared', recover: 'failover' })
  await field.start()
  const reader = await reading(field)
  const mounts = field.mounts()
  const [daemon] = field.images?.list() ?? []
  assert.ok(daemon)
  await field.stop()
  process.kill(daemon.pid, 'SIGKILL')
  const supervised = ['--upgrade', '--id', daemon.id, '--supervisor', daemon.supervisorPath]
  const places = ['--mountpoint', daemon.mountpoint, '--apisock', daemon.apiSocket]
  field.spawn(field.settings.daemon.nydusdPath, ['fuse', ...supervised, ...places])
  await field.start()
  await field.images?.settled()
  await reader.more(3)
  assert.deepEqual(await reader.stop(), [], field.lines.join('\n'))
  assert.deepEqual(field.mounts(), mounts)
})
