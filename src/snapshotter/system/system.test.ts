import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { SnapshotterError } from '../errors.ts'
import { type Log, SnapshotterLog } from '../log/index.ts'
import { Collector } from './collector.ts'
import { startController } from './controller.ts'
import type { DaemonStatus } from '../daemons/index.ts'
import type { ServedImages } from './daemons.ts'
import { Registry } from './exposition.ts'
import { SnapshotterMetrics } from './metrics.ts'
import { startMetrics, startProfiles } from './pages.ts'

const RECORDED = JSON.parse(readFileSync(join(import.meta.dirname, 'testdata/nydusd-metrics.json'), 'utf8')) as {
  readonly files: unknown
  readonly cache: unknown
}
const IMAGE = 'registry.example/app:1'

const CREDENTIALS = {
  counts: () => ({ renewals: new Map([[IMAGE, { success: 3, failure: 1 }]]), entries: [IMAGE] }),
}

const DAEMON: DaemonStatus = {
  id: 'd1',
  pid: process.pid,
  mode: 'shared',
  state: 'running',
  silence: '',
  version: 'v2.4.1',
  apiSocket: '/r/socket/d1/api.sock',
  supervisorPath: '/r/supervisor/d1.sock',
  reference: 2,
  mountpoint: '/r/mnt',
  startupCpuPercent: 1.5,
  memoryRssKib: 4096,
  instances: [
    {
      key: '7',
      snapshotId: '7',
      snapshotDirectory: '/r/snapshots/7',
      mountpoint: '/r/mnt/7',
      reference: IMAGE,
      isMounted: true,
    },
  ],
}

/** Daemons whose answers were recorded. */
class RecordedImages implements ServedImages {
  readonly upgrades: string[] = []
  readonly lists = new Map<string, string>()
  readonly configs = new Map<string, string>()
  daemons: DaemonStatus[] = [DAEMON]
  inflight: unknown = []
  asked = 0

  list(): readonly DaemonStatus[] {
    return this.daemons
  }
  async metrics(): ReturnType<ServedImages['metrics']> {
    this.asked++
    const images = [{ key: '7', reference: IMAGE, ...RECORDED }]
    return await Promise.resolve([{ id: 'd1', inflight: this.inflight, images }])
  }
  async upgrade({ nydusdPath }: { readonly nydusdPath: string }): Promise<void> {
    await Promise.resolve()
    if (nydusdPath === '/bad') throw new SnapshotterError('UNAVAILABLE', 'nydusd d1 never got ready')
    this.upgrades.push(nydusdPath)
  }
  configOf(id: string): string | undefined {
    return this.configs.get(id)
  }
  readonly prefetchLists = {
    put: (image: string, list: string): void => {
      if (!list.startsWith('/')) throw new SnapshotterError('INVALID_ARGUMENT', `the list of ${image} is none`)
      this.lists.set(image, list)
    },
  }
}

async function inFolder(run: (dir: string, log: Log) => Promise<void>): Promise<void> {
  const dir = mkdtempSync(join(tmpdir(), 'system-'))
  const options = {
    level: 'info',
    maxSizeMib: 1,
    maxBackups: 1,
    maxAgeDays: 0,
    localTime: true,
    compress: false,
  } as const
  const log = new SnapshotterLog({ ...options, toStdout: false, dir: join(dir, 'logs') })
  try {
    await run(dir, log)
  } finally {
    await log.close()
    rmSync(dir, { recursive: true })
  }
}

async function ask(
  at: { socketPath: string } | { port: number },
  path: string,
  method = 'GET',
  body?: string,
): Promise<{ status: number; type: string; text: string }> {
  return await new Promise((resolve, reject) => {
    const sent = request({ ...at, path, method }, (answer) => {
      const parts: Buffer[] = []
      answer.on('data', (part: Buffer) => parts.push(part))
      answer.on('end', () =>
        resolve({
          status: answer.statusCode ?? 0,
          type: answer.headers['content-type'] ?? '',
          text: Buffer.concat(parts).toString(),
        }),
      )
    })
    sent.on('error', reject)
    sent.end(body)
  })
}

test('the system API describes, upgrades and configures daemons, for the owner of its socket', async () => {
  await inFolder(async (dir, log) => {
    const images = new RecordedImages()
    const socketPath = join(dir, 'made/system.sock')
    const api = await startController({ address: socketPath, uid: 0, gid: 0, images, log })
    try {
      assert.equal(statSync(socketPath).mode & 0o777, 0o600)
      const daemons = await ask({ socketPath }, '/api/v1/daemons')
      assert.equal(daemons.type, 'application/json')
      assert.deepEqual(JSON.parse(daemons.text), [
        {
          id: 'd1',
          pid: process.pid,
          api_socket: '/r/socket/d1/api.sock',
          supervisor_path: '/r/supervisor/d1.sock',
          reference: 2,
          mountpoint: '/r/mnt',
          state: 'running',
          silence: '',
          startup_cpu_utilization: 1.5,
          memory_rss_kb: 4096,
          read_data_kb: 139_632 / 1024,
          instances: {
            '7': { snapshot_id: '7', snapshot_dir: '/r/snapshots/7', mountpoint: '/r/mnt/7', image_id: IMAGE },
          },
        },
      ])
      const upgrade = '/api/v1/daemons/upgrade'
      assert.deepEqual(await ask({ socketPath }, upgrade, 'PUT', '{"nydusd_path":"/new","policy":"rolling"}'), {
        status: 200,
        type: '',
        text: '',
      })
      assert.deepEqual(images.upgrades, ['/new'])
      const failed = await ask({ socketPath }, upgrade, 'PUT', '{"nydusd_path":"/bad"}')
      assert.deepEqual(
        [failed.status, JSON.parse(failed.text)],
        [500, { code: 'Unknown', message: 'nydusd d1 never got ready' }],
      )
      assert.equal((await ask({ socketPath }, upgrade, 'PUT', '{"nydusd_path":"relative"}')).status, 400)
      assert.equal((await ask({ socketPath }, upgrade, 'GET')).status, 405)
      assert.equal((await ask({ socketPath }, '/api/v1/nydusd/upgrade', 'PUT', '{}')).status, 404)
      assert.equal((await ask({ socketPath }, '/api/v1/daemons/records')).status, 501)
      const prefetch = JSON.stringify([{ image: IMAGE, prefetch: '/bin/sh,/etc' }])
      assert.equal((await ask({ socketPath }, '/api/v1/prefetch', 'PUT', prefetch)).status, 200)
      assert.deepEqual([...images.lists], [[IMAGE, '/bin/sh,/etc']])
      assert.equal(
        (await ask({ socketPath }, '/api/v1/prefetch', 'PUT', '[{"image":"x","prefetch":"no"}]')).status,
        400,
      )
      assert.equal((await ask({ socketPath }, '/api/v1/prefetch', 'PUT', '{}')).status, 400)
      assert.equal(
        (await ask({ socketPath }, '/api/v1/prefetch', 'PUT', ' '.repeat(5 << 20)).catch(() => ({ status: 413 })))
          .status,
        413,
      )
    } finally {
      await api.close()
    }
    await assert.rejects(ask({ socketPath }, '/api/v1/daemons'), { code: 'ENOENT' })
  })
})

test('images that the kernel shows are told and counted; none where it shows none', async () => {
  const shown = { key: '7', reference: IMAGE, mountpoint: '/r/erofs/7/mnt', bytes: 4096, blobs: ['ab'], users: [9, 10] }
  const told = {
    instance: '7',
    image_id: IMAGE,
    mountpoint: '/r/erofs/7/mnt',
    image_bytes: 4096,
    blobs: ['ab'],
    snapshot_ids: ['9', '10'],
  }
  await inFolder(async (dir, log) => {
    const images = new RecordedImages()
    for (const kernelImages of [undefined, { list: () => [shown] }]) {
      const socketPath = join(dir, 'system.sock')
      const api = await startController({ address: socketPath, uid: 0, gid: 0, images, kernelImages, log })
      const own = { credentials: CREDENTIALS, cacheDirectory: dir, collectIntervalMs: 0, hungIoIntervalMs: 0 }
      const collector = new Collector({ ...own, metrics: new SnapshotterMetrics(), images, kernelImages, log })
      try {
        const { status, text } = await ask({ socketPath }, '/api/v1/erofs')
        assert.deepEqual([status, JSON.parse(text)], [200, kernelImages === undefined ? [] : [told]])
        const [mounts, users] = kernelImages === undefined ? [0, 0] : [1, 2]
        const metrics = await collector.text()
        assert.match(metrics, new RegExp(`^snapshotter_erofs_mounts ${mounts}$`, 'm'))
        assert.match(metrics, new RegExp(`^snapshotter_erofs_users ${users}$`, 'm'))
      } finally {
        collector.stop()
        await api.close()
      }
    }
  })
})

test('the backend of a daemon is told with what it is configured by', async () => {
  await inFolder(async (dir, log) => {
    const images = new RecordedImages()
    const socketPath = join(dir, 's')
    const api = await startController({ address: socketPath, uid: 0, gid: 0, images, log })
    try {
      const backend = { type: 'registry', config: { host: 'registry.example', auth: 'c2VjcmV0' } }
      writeFileSync(join(dir, 'config.json'), JSON.stringify({ device: { backend } }))
      assert.equal((await ask({ socketPath }, '/api/v1/daemons/d1/backend')).status, 404)
      images.configs.set('d1', join(dir, 'config.json'))
      images.configs.set('../d1', join(dir, 'config.json'))
      const told = await ask({ socketPath }, '/api/v1/daemons/d1/backend')
      assert.deepEqual([told.status, JSON.parse(told.text)], [200, backend])
      for (const id of ['d2', '..%2Fd1', '../d1', ''])
        assert.equal((await ask({ socketPath }, `/api/v1/daemons/${id}/backend`)).status, 404)
      assert.doesNotMatch(readFileSync(join(dir, 'logs/nydus-snapshotter.log'), 'utf8'), /c2VjcmV0/)
    } finally {
      await api.close()
    }
  })
})

test("metrics have upstream's names, and their values are those of the daemons", async () => {
  await inFolder(async (dir, log) => {
    const images = new RecordedImages()
    const metrics = new SnapshotterMetrics()
    images.inflight = [
      { timestamp_secs: Math.floor(Date.now() / 1000) - 100 },
      { timestamp_secs: Math.floor(Date.now() / 1000) + 100 },
    ]
    writeFileSync(join(dir, 'blob'), Buffer.alloc(8192, 1))
    const options = {
      metrics,
      images,
      credentials: CREDENTIALS,
      cacheDirectory: dir,
      collectIntervalMs: 0,
      hungIoIntervalMs: 0,
      log,
    }
    const collector = new Collector({ ...options, hungIoIntervalMs: 50_000 })
    const server = await startMetrics('127.0.0.1:0', collector)
    try {
      metrics.operation('PREPARE', 7)
      metrics.operation('PREPARE', 5000)
      metrics.daemonEvent('RUNNING')
      metrics.daemonEvent('RUNNING')
      const page = await ask({ port: server.port }, '/v1/metrics')
      assert.deepEqual([page.status, page.type], [200, 'text/plain; version=0.0.4; charset=utf-8'])
      const lines = new Set(page.text.split('\n'))
      const image = `{image_ref="${IMAGE}"}`
      for (const line of [
        'nydusd_lifetime_event_counts{nydusd_event="RUNNING"} 2',
        'nydusd_counts{version="v2.4.1"} 1',
        'nydusd_silent_counts 0',
        'nydusd_rss_kilobytes{daemon_id="d1"} 4096',
        `nydusd_image_info{daemon_id="d1",image_ref="${IMAGE}"} 1`,
        'nydusd_hung_io_counts 1',
        `nydusd_total_read_bytes${image} 139632`,
        `nydusd_read_hits${image} 3`,
        `nydusd_read_errors${image} 0`,
        `nydusd_cumulative_read_block_bytes_bucket{image_ref="${IMAGE}",le="16"} 1`,
        `nydusd_cumulative_read_block_bytes_bucket{image_ref="${IMAGE}",le="128"} 3`,
        `nydusd_cumulative_read_block_bytes_sum${image} 272`,
        `nydusd_cumulative_read_block_bytes_count${image} 3`,
        `nydusd_read_latency_microseconds_bucket{image_ref="${IMAGE}",le="+Inf"} 3`,
        `nydusd_cache_partial_hits${image} 2`,
        `nydusd_cache_total_requests${image} 3`,
        `nydusd_cache_entries_count${image} 40`,
        `nydusd_cache_prefetch_duration_millis${image} 0`,
        'snapshotter_snapshot_operation_elapsed_milliseconds_bucket{snapshot_operation="PREPARE",le="10"} 1',
        'snapshotter_snapshot_operation_elapsed_milliseconds_bucket{snapshot_operation="PREPARE",le="+Inf"} 2',
        'snapshotter_cache_blobs_deleted_total 0',
        '# TYPE snapshotter_cache_blobs_in_use gauge',
        `snapshotter_credential_renewals_total{image_ref="${IMAGE}",result="success"} 3`,
        `snapshotter_credential_store_entries${image} 1`,
      ])
        assert.ok(lines.has(line), `${line}\n${page.text}`)
      for (const name of [
        'cache_usage_kilobytes',
        'memory_usage_kilobytes',
        'fd_counts',
        'thread_counts',
        'run_time_seconds',
      ]) {
        const value = Number(new RegExp(`^snapshotter_${name} (.*)$`, 'm').exec(page.text)?.[1])
        assert.ok(value > 0, name)
      }
      // one that is gone is gone
      images.daemons = []
      assert.doesNotMatch((await ask({ port: server.port }, '/v1/metrics')).text, /nydusd_image_info|nydusd_counts/)
      assert.equal((await ask({ port: server.port }, '/metrics')).status, 404)
      await assert.rejects(startMetrics(`127.0.0.1:${server.port}`, collector), {
        code: 'BAD_CONFIG',
        message: `cannot use "metrics.address": cannot listen on 127.0.0.1:${server.port}: another program listens there`,
      })
    } finally {
      collector.stop()
      await server.close()
    }
    const docs = readFileSync(join(import.meta.dirname, '../../../docs/containerd-nydus-grpc.md'), 'utf8')
    const text = metrics.registry.text()
    for (const [, name = ''] of text.matchAll(/^# TYPE (\S+)/gm))
      assert.ok(docs.includes(`\`${name}\``), `docs lack ${name}`)
  })
})

test('gauges of what is not heard of any more go after three minutes; odd names cannot break a line', () => {
  let now = 0
  const metrics = new SnapshotterMetrics(new Registry(() => now))
  metrics.takeReads([{ inflight: [], images: [{ reference: 'a"b\\c\nd', files: undefined, cache: undefined }] }])
  metrics.rss.set(1, 'old')
  now = 100_000
  metrics.rss.set(2, 'a"b\\c\nd')
  now = 200_000
  const text = metrics.registry.text()
  assert.doesNotMatch(text, /"old"/)
  assert.ok(text.includes('nydusd_rss_kilobytes{daemon_id="a\\"b\\\\c\\nd"} 2'))
  for (const line of text.trimEnd().split('\n')) assert.match(line, /^(# (HELP|TYPE) \w+ .+|\w+(\{.*\})? -?[\d.e+-]+)$/)
})

test('answers of a daemon that make no sense count as none', async () => {
  await inFolder(async (dir, log) => {
    const images = new RecordedImages()
    images.metrics = async () =>
      await Promise.resolve([
        {
          id: 'd',
          inflight: 'x',
          images: [
            { key: '1', reference: 'r', files: { data_read: 'much' }, cache: [] },
            { key: '2', reference: 's', files: null, cache: 7 },
          ],
        },
      ])
    const metrics = new SnapshotterMetrics()
    const collector = new Collector({
      metrics,
      images,
      credentials: CREDENTIALS,
      cacheDirectory: join(dir, 'none'),
      collectIntervalMs: 0,
      hungIoIntervalMs: 0,
      log,
    })
    assert.doesNotMatch(await collector.text(), /total_read_bytes/)
    collector.stop()
  })
})

test('profiles are those of the inspector, where Go programs have theirs', async () => {
  const server = await startProfiles('127.0.0.1:0')
  try {
    const at = { port: server.port }
    const json = async (path: string): Promise<Record<string, unknown>> =>
      JSON.parse((await ask(at, `/debug/pprof/${path}`)).text) as Record<string, unknown>
    assert.ok(Array.isArray((await json('profile?seconds=0.2'))['nodes']))
    assert.ok('head' in (await json('allocs?seconds=0.1')))
    assert.ok('snapshot' in (await json('heap')))
    assert.ok(Array.isArray((await json('trace?seconds=0.1'))['traceEvents']))
    assert.match((await ask(at, '/debug/pprof/heap?debug=1')).text, /^heapUsed: \d+$/m)
    assert.match((await ask(at, '/debug/pprof/')).text, /profile\?seconds=30/)
    assert.match((await ask(at, '/debug/pprof/goroutine?debug=1')).text, /^\d+\t\w+$/m)
    assert.equal((await ask(at, '/debug/pprof/mutex')).status, 404)
    assert.equal((await ask(at, '/debug/pprof/profile?seconds=x')).status, 400)
    const both = await Promise.all([
      ask(at, '/debug/pprof/profile?seconds=1'),
      ask(at, '/debug/pprof/allocs?seconds=1'),
    ])
    assert.deepEqual(
      both.map(({ status }) => status).sort((a, b) => a - b),
      [200, 503],
    )
  } finally {
    await server.close()
  }
})
