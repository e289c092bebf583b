/** Containers whose root file systems the original's containerd-nydus-grpc, unmodified, has our nydusd serve; NYDUS_PEER_DIR names the folder with it. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { whyNoFuse } from '../src/kernel/index.ts'
import { Bench, until } from './snapshotter/bench.ts'
import type { BenchOptions } from './snapshotter/configurations.ts'

const peers = process.env['NYDUS_PEER_DIR'] ?? ''
const skip = whyNoFuse() ?? whyNoBench() ?? false

function whyNoBench(): string | undefined {
  if (peers === '') return 'NYDUS_PEER_DIR is not set'
  if (!existsSync(join(peers, 'containerd-nydus-grpc'))) return `no containerd-nydus-grpc in ${peers}`
  if (!existsSync(join(import.meta.dirname, '../dist/nydusd.cjs'))) return 'dist/ is not built (npm run build)'
  const missing = ['containerd', 'ctr', 'runc'].find((name) => spawnSync(name, ['--version']).error !== undefined)
  return missing === undefined ? undefined : `${missing} is not installed`
}

/** Reads every file, past the page cache, until told to stop; prints a digest of all of them a round. */
const READ_ON =
  'while [ ! -e /stop ]; do for f in /data/*; do dd if=$f iflag=direct bs=64k 2>/dev/null | sha256sum; done | sha256sum; done'
const READ_ONCE = READ_ON.replace('while [ ! -e /stop ]', 'for once in 1')

async function started(options: BenchOptions): Promise<Bench> {
  const bench = await Bench.start(peers, options)
  await bench.pull()
  await bench.run('first')
  return bench
}

/** The container shows what was converted. */
async function isRight(bench: Bench, id: string): Promise<void> {
  assert.equal(await bench.exec(id, 'sha256sum /data/*'), bench.sums, bench.logs())
}

/** Kills the daemon; the one that follows serves, and the snapshotter has its state. */
async function killed(bench: Bench): Promise<number> {
  const [before, kept] = [(await bench.daemon()).pid, bench.statesKept()]
  process.kill(before, 'SIGKILL')
  const { pid } = await bench.successor(before)
  await until('the state', () => bench.statesKept() > kept || undefined)
  return pid
}

/** Containers and the image are removed: nothing of them is left, neither mounts nor snapshots nor caches. */
async function isCleanedUp(bench: Bench, ...ids: readonly string[]): Promise<void> {
  const cache = join(bench.path, 'nydus/cache')
  assert.ok(readdirSync(cache).some((name) => name.endsWith('.blob.data')))
  for (const id of ids) await bench.remove(id)
  await bench.removeImage()
  await until('an empty cache', () => readdirSync(cache).length === 0 || undefined)
  await until('no snapshots', () => readdirSync(join(bench.path, 'nydus/snapshots')).length === 0 || undefined)
  assert.deepEqual(bench.mounts('overlay'), [])
  const left = await bench.daemons()
  assert.equal(left.flatMap(({ instances }) => Object.keys(instances)).length, 0)
}

for (const mode of ['shared', 'dedicated'] as const) {
  test(`failover, upgrade and restarts of the snapshotter under readers: ${mode}`, {
    skip,
    timeout: 120_000,
  }, async () => {
    await using bench = await started({ mode, recover: 'failover' })
    await isRight(bench, 'first')
    const round = await bench.exec('first', READ_ONCE)
    const reading = bench.exec('first', READ_ON)
    reading.catch(() => undefined) // it is awaited below
    await killed(bench)
    const second = await killed(bench)
    const request = { nydusd_path: join(bench.path, 'nydusd-new'), version: 'any', policy: 'rolling' }
    const { status, text } = await bench.system('PUT', '/api/v1/daemons/upgrade', request)
    assert.equal(status, 200, `${text}\n${bench.logs()}`)
    const third = await bench.successor(second)
    assert.match(third.api_socket, /api1\.sock$/)
    for (const signal of ['SIGKILL', 'SIGTERM'] as const) {
      const kept = bench.statesKept()
      await bench.restartSnapshotter(signal)
      assert.equal((await bench.daemon()).pid, third.pid, `after ${signal}`)
      await until('the state', () => bench.statesKept() > kept || undefined)
    }
    await killed(bench)
    await bench.exec('first', ': > /stop')
    assert.deepEqual(new Set((await reading).trim().split('\n')), new Set([round.trim()]), bench.logs())
    await bench.run('again')
    await isRight(bench, 'again')
    const metrics = await until('metrics', async () => {
      const page = await (await fetch(`http://127.0.0.1:${bench.metricsPort}/v1/metrics`)).text()
      return /^nydusd_total_read_bytes\{.*\} [1-9]/m.test(page) ? page : undefined
    })
    assert.match(metrics, /^nydusd_read_errors\{.*\} 0$/m)
    assert.match(metrics, /^nydusd_hung_io_counts 0$/m)
    assert.match(metrics, /^nydusd_cache_entries_count\{.*\} [1-9]/m)
    await isCleanedUp(bench, 'first', 'again')
  })

  test(`restart: containers that come after a death are served, ${mode}`, { skip, timeout: 120_000 }, async () => {
    await using bench = await started({ mode, recover: 'restart' })
    await isRight(bench, 'first')
    const { pid } = await bench.daemon()
    process.kill(pid, 'SIGKILL')
    const next = await bench.successor(pid)
    await bench.remove('first') // its root was built upon the session that is gone
    await bench.run('second')
    await isRight(bench, 'second')
    // The keeper's daemon has ended with the first container.
    assert.equal((await bench.daemon()).pid, next.pid, bench.logs())
    await isCleanedUp(bench, 'second')
  })
}

test('none: what nydusd does about its own death is enough', { skip, timeout: 120_000 }, async () => {
  await using bench = await started({ mode: 'shared', recover: 'none' })
  const daemon = await bench.daemon()
  process.kill(daemon.pid, 'SIGKILL')
  await until('a daemon', async () => (await bench.state(daemon)) === 'RUNNING' || undefined)
  await isRight(bench, 'first')
  await bench.run('second')
  await isRight(bench, 'second')
  await isCleanedUp(bench, 'first', 'second')
})
