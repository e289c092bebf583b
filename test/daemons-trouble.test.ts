/** Daemons and images that do not do what they should: each fails alone, in time, and with its reason. */
import assert from 'node:assert/strict'
import { generateKeyPairSync, sign } from 'node:crypto'
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { mountFuse, mountTmpfs, readMountInfoNow, unmount } from '../src/kernel/index.ts'
import { NYDUS_BOOTSTRAP, NYDUS_SIGNATURE } from '../src/snapshotter/labels.ts'
import { closeSync } from 'node:fs'
import { CARRIED_BLOBS, carriedImage, differencesSeenApart } from '../src/daemon/testing.ts'
import { Field, FILE, IMAGE, OTHER_IMAGE, OURS, skip, until } from './daemons/field.ts'

/** Also of a process that nobody has asked how it ended. */
function isOver(pid: string): boolean {
  try {
    return / Z /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))
  } catch {
    return true
  }
}

/** What is left of images that could not be mounted: nothing. */
function isClean(field: Field): void {
  assert.deepEqual(field.mounts(), [])
  assert.deepEqual(field.daemonProcesses(), [])
  for (const folder of ['socket', 'config', 'supervisor', 'logs'])
    if (existsSync(join(field.settings.root, folder)))
      assert.deepEqual(readdirSync(join(field.settings.root, folder)), [])
  assert.deepEqual(field.store?.records('instances').all(), [])
  assert.deepEqual(field.store?.records('daemons').all(), [])
}

for (const { what, body, startupTimeoutMs = 60_000, wanted } of [
  {
    what: 'dies at once',
    body: 'echo out of luck >&2; exit 7',
    wanted:
      /cannot mount the image of snapshot 1: nydusd \w+ does not serve: it ended with 7; its last words: out of luck/,
  },
  {
    what: 'never gets ready',
    body: 'echo I think >&2; while :; do sleep 1; done',
    startupTimeoutMs: 5_000,
    wanted: /it is not RUNNING after 5 s: .*; its last words: I think/,
  },
  {
    what: 'is another program that never gets ready, and is known by no word of its command line',
    body: 'sleep 1000 & echo $! $$ > "$(dirname "$0")/pids"; exec sleep 1000',
    startupTimeoutMs: 5_000,
    wanted: /it is not RUNNING after 5 s/,
  },
  { what: 'kills itself', body: 'kill -9 $$', wanted: /it was ended by SIGKILL/ },
])
  test(`a nydusd that ${what} is told with its last words, and leaves nothing`, {
    skip,
    timeout: 180_000,
  }, async () => {
    await using field = new Field({ mode: 'dedicated', startupTimeoutMs })
    field.script('nydusd', body)
    await field.start()
    const layer = field.layer(IMAGE)
    await assert.rejects(field.ensure(layer), { code: 'UNAVAILABLE', message: wanted })
    isClean(field)
    const written = join(field.path, 'pids')
    for (const pid of existsSync(written) ? readFileSync(written, 'utf8').trim().split(' ') : [])
      await until(`the end of process ${pid}`, () => (isOver(pid) ? true : undefined))
    field.program('nydusd', OURS)
    await field.restart({ daemon: { ...field.settings.daemon, startupTimeoutMs: 60_000 } })
    assert.equal(readFileSync(join((await field.ensure(layer)).mountpoint, FILE)).length, 65_536)
  })

test('a program that is not there is named, with what to set; other programs fail alike', {
  skip,
  timeout: 180_000,
}, async () => {
  await using field = new Field({ mode: 'dedicated', nydusd: '/nowhere/nydusd' })
  await field.start()
  await assert.rejects(field.ensure(field.layer(IMAGE)), {
    code: 'INTERNAL',
    message: /\/nowhere\/nydusd cannot be started: .*ENOENT.*set daemon.nydusd_path/,
  })
  isClean(field)
})

test('an image that cannot be mounted hinders no other, in one daemon as in many', {
  skip,
  timeout: 180_000,
}, async () => {
  await using field = new Field({ mode: 'shared' })
  await field.start()
  const broken = field.layer(IMAGE, 'broken')
  const path = join(field.request(broken).directory, 'fs/image/image.boot')
  writeFileSync(path, Buffer.alloc(65_536, 'no bootstrap'))
  const [failed, right] = await Promise.allSettled([field.ensure(broken), field.ensure(field.layer(IMAGE))])
  assert.equal(failed.status, 'rejected')
  assert.match(String(failed.reason), /cannot mount the image of snapshot 1: nydusd at .* refuses POST/)
  assert.equal(right.status, 'fulfilled', String((right as PromiseRejectedResult).reason))
  assert.deepEqual(await differencesSeenApart(right.value.mountpoint, IMAGE.tree), [])
  copyFileSync(IMAGE.bootstrap, path)
  assert.deepEqual(await differencesSeenApart((await field.ensure(broken)).mountpoint, IMAGE.tree), [])
})

test('a bootstrap is waited for until it is whole, and one that leads out of its layer is not used', {
  skip,
  timeout: 180_000,
}, async () => {
  await using field = new Field({ mode: 'shared' })
  await field.start()
  const [slow, odd, linked, none] = ['slow', 'odd', 'linked', 'none'].map((name) => field.layer(IMAGE, name))
  assert.ok(slow && odd && linked && none)
  const boot = (layer: typeof slow): string => join(field.request(layer).directory, 'fs/image/image.boot')
  truncateSync(boot(slow), 0)
  const mounting = field.ensure(slow)
  await new Promise((resolve) => setTimeout(resolve, 200))
  copyFileSync(IMAGE.bootstrap, boot(slow))
  await mounting
  truncateSync(boot(odd), 5_000)
  rmSync(boot(linked))
  symlinkSync(IMAGE.bootstrap, boot(linked))
  rmSync(join(field.request(none).directory, 'fs/image'), { recursive: true })
  await assert.rejects(field.ensure(odd), {
    code: 'UNAVAILABLE',
    message: /not complete: its 5000 bytes end within a block/,
  })
  await assert.rejects(field.ensure(linked), { code: 'UNAVAILABLE', message: /there is none of fs\/image\/image.boot/ })
  await assert.rejects(field.ensure(none), { code: 'UNAVAILABLE', message: /there is none of/ })
})

test('a full disk is told as one, and nothing half-written is left', { skip, timeout: 180_000 }, async () => {
  await using field = new Field({ mode: 'dedicated', template: { ...LARGE } })
  await field.start()
  const layer = field.layer(IMAGE)
  const config = join(field.settings.root, 'config')
  await mountTmpfs(config, 64 << 10)
  await assert.rejects(field.ensure(layer), {
    code: 'RESOURCE_EXHAUSTED',
    message: /cannot write .*config\.json: ENOSPC.*; make room on its disk/,
  })
  assert.deepEqual(
    readdirSync(config, { recursive: true }).filter((name) => String(name).includes('.')),
    [],
  )
  await unmount(config, true)
  await field.ensure(layer)
})

const LARGE = {
  device: {
    backend: { type: 'localfs', config: { dir: CARRIED_BLOBS } },
    cache: { type: 'blobcache', config: {} },
  },
  mode: 'direct',
  remark: 'x'.repeat(100_000),
}

test('fifty images at once are fifty mounts, in one daemon', { skip, timeout: 180_000 }, async () => {
  await using field = new Field({ mode: 'shared', recover: 'failover' })
  await field.start()
  const layers = Array.from({ length: 50 }, (_, index) =>
    field.layer(index % 2 === 0 ? IMAGE : OTHER_IMAGE, `image ${index}`),
  )
  const mounted = await Promise.all(layers.map((layer) => field.ensure(layer)))
  assert.equal(new Set(mounted.map(({ mountpoint }) => mountpoint)).size, 50)
  for (const { mountpoint } of mounted) assert.equal(readFileSync(join(mountpoint, FILE)).length, 65_536)
  const [pid = 0] = field.pids()
  process.kill(pid, 'SIGKILL')
  await until('a successor', () =>
    field.images?.list()[0]?.state === 'running' && field.pids()[0] !== pid ? true : undefined,
  )
  for (const { mountpoint } of mounted) assert.equal(readFileSync(join(mountpoint, FILE)).length, 65_536)
  await Promise.all(layers.map(async (layer) => await field.images?.release(layer.id)))
  await field.stop()
  assert.deepEqual(field.mounts(), [])
})

test('what others left is cleared away, and what they use is not', { skip, timeout: 180_000 }, async () => {
  await using field = new Field({ mode: 'dedicated' })
  await field.start()
  const layer = field.layer(IMAGE)
  const { mountpoint } = await field.ensure(layer)
  const [daemon] = field.images?.list() ?? []
  await field.stop()
  // a dead mount that no record knows, with sockets and configurations
  const dead = join(field.settings.root, 'snapshots/99/mnt')
  mkdirSync(dead, { recursive: true })
  closeSync(mountFuse(dead, { source: 'rafs', readOnly: true, maxReadBytes: 131_072 }))
  for (const folder of ['socket', 'config', 'supervisor'])
    mkdirSync(join(field.settings.root, folder, 'gone0000000000000000'))
  // records that nobody can read
  await field.start()
  field.store?.records('daemons').put('damaged', '{"ID":"../../etc"}')
  field.store?.records('instances').put('damaged', 'no JSON')
  await field.restart()
  assert.deepEqual(
    readMountInfoNow().filter(({ at }) => at === dead),
    [],
  )
  assert.deepEqual(readdirSync(join(field.settings.root, 'socket')), [daemon?.id])
  assert.deepEqual(readdirSync(join(field.settings.root, 'config')), [daemon?.id])
  assert.equal(field.lines.filter((line) => line.includes('cannot be read, and is left alone')).length, 2)
  assert.equal(readFileSync(join(mountpoint, FILE)).length, 65_536)
  // a daemon whose record was lost serves on
  field.store?.records('daemons').remove(daemon?.id ?? '')
  await field.restart()
  assert.ok(field.lines.some((line) => line.includes('is served by a nydusd that no record knows')))
  assert.equal(readFileSync(join(mountpoint, FILE)).length, 65_536)
  for (const pid of field.daemonProcesses()) process.kill(pid, 'SIGKILL')
})

test('the modes of the configuration may change: what is there stays, what comes follows', {
  skip,
  timeout: 180_000,
}, async () => {
  await using field = new Field({ mode: 'dedicated' })
  await field.start()
  const [first, second] = [field.layer(IMAGE), field.layer(OTHER_IMAGE)]
  const a = await field.ensure(first)
  const mounts = field.mounts()
  await field.restart({ daemonMode: 'shared' })
  assert.deepEqual(await field.ensure(first), a)
  const b = await field.ensure(second)
  assert.equal(b.mountpoint, join(field.settings.root, 'mnt', b.key))
  await field.restart()
  assert.deepEqual([await field.ensure(first), await field.ensure(second)], [a, b])
  assert.ok(mounts.every((mount) => field.mounts().includes(mount)))
  assert.equal(field.pids().length, 2)
})

test('without daemons an image is described for others to serve', { skip, timeout: 180_000 }, async () => {
  await using field = new Field({ mode: 'none' })
  await field.start()
  const layer = field.layer(IMAGE)
  const image = await field.ensure(layer)
  assert.equal(image.daemonId, '')
  assert.equal(
    (JSON.parse(readFileSync(image.configPath, 'utf8')) as { device: { id: string } }).device.id,
    `/${image.key}`,
  )
  assert.deepEqual(field.images?.find(layer.id), image)
  assert.deepEqual([field.mounts(), field.pids()], [[], []])
  await field.images?.release(layer.id)
  assert.equal(field.images?.find(layer.id), undefined)
  assert.equal(existsSync(image.configPath), false)
})

test('only bootstraps that are signed are mounted, where that is wanted', { skip, timeout: 180_000 }, async () => {
  await using field = new Field({ mode: 'shared' })
  const { publicKey, privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const publicKeyFile = join(field.path, 'key.pem')
  // as upstream's tools write it
  const body = publicKey.export({ type: 'pkcs1', format: 'pem' }).toString().replaceAll('RSA PUBLIC', 'PUBLIC')
  writeFileSync(publicKeyFile, body)
  await field.start({ image: { publicKeyFile, validateSignature: true } })
  const signature = sign('RSA-SHA256', readFileSync(IMAGE.bootstrap), privateKey).toString('base64')
  const labels = (value: string): Map<string, string> =>
    new Map([
      [NYDUS_BOOTSTRAP, 'true'],
      [NYDUS_SIGNATURE, value],
    ])
  await field.ensure(field.layer(IMAGE, 'signed', labels(signature)))
  await assert.rejects(field.ensure(field.layer(IMAGE, 'unsigned')), {
    code: 'FAILED_PRECONDITION',
    message: /there is no label/,
  })
  await assert.rejects(field.ensure(field.layer(OTHER_IMAGE, 'other', labels(signature))), {
    code: 'FAILED_PRECONDITION',
    message: /signature does not fit/,
  })
})

test('the cache loses what nobody needs, and nothing else', { skip, timeout: 180_000 }, async () => {
  await using field = new Field({ mode: 'shared' })
  const images = await field.start()
  const [layer, other] = [field.layer(IMAGE), field.layer(OTHER_IMAGE)]
  for (const each of [layer, other]) readFileSync(join((await field.ensure(each)).mountpoint, FILE))
  const { dir } = field.settings.cache
  const [used, released, pulled, nobodys] = [
    IMAGE.blobs[0] ?? '',
    OTHER_IMAGE.blobs[0] ?? '',
    'a'.repeat(64),
    'b'.repeat(64),
  ]
  for (const id of [pulled, nobodys])
    for (const suffix of ['', '.blob.data', '.blob.data.chunk_map', '.blob.meta', '.image.disk'])
      writeFileSync(join(dir, id + suffix), 'x')
  for (const name of ['notes.txt', 'c'.repeat(63), `${'d'.repeat(64)}.blob.data.123.tmp`])
    writeFileSync(join(dir, name), 'x')
  const before = readdirSync(dir).length
  const first = await images.collectCache(() => [`sha256:${pulled}`], AbortSignal.timeout(60_000))
  assert.deepEqual([first.removed, first.failed, first.skipped], [1, 0, undefined])
  assert.equal(readdirSync(dir).length, before - 5)
  assert.ok(!readdirSync(dir).some((name) => name.startsWith(nobodys)))
  await images.release(other.id)
  assert.equal((await images.collectCache(() => [pulled], AbortSignal.timeout(60_000))).removed, 1)
  const names = readdirSync(dir)
  assert.deepEqual(
    [used, released, pulled].map((id) => names.some((name) => name.startsWith(id))),
    [true, false, true],
  )
  assert.ok((await images.cacheUsage(used)).bytes > 0)
  // while an image is mounted nothing is removed, and the mount sees no file go
  const [mounting, during] = await Promise.all([
    field.ensure(other),
    images.collectCache(() => [], AbortSignal.timeout(60_000)),
  ])
  assert.equal(during.skipped, 'an image is being mounted')
  assert.equal(readFileSync(join(mounting.mountpoint, FILE)).length, 65_536)
})

test('files that are wanted first are fetched before anybody reads, once', { skip, timeout: 180_000 }, async () => {
  for (const mode of ['shared', 'dedicated'] as const) {
    await using field = new Field({ mode, template: PREFETCHING })
    const images = await field.start()
    images.prefetchLists.put('example.com/app:1', `/${FILE},/sizes/4097`)
    assert.throws(() => images.prefetchLists.put('x', 'relative'), { code: 'INVALID_ARGUMENT' })
    await field.ensure(field.layer(IMAGE), { reference: 'example.com/app:1' })
    await until('prefetched data', async () => {
      const [metrics] = await images.metrics(AbortSignal.timeout(60_000))
      const cache = metrics?.images[0]?.cache as { prefetch_data_amount?: number } | undefined
      return (cache?.prefetch_data_amount ?? 0) >= 65_536 ? true : undefined
    })
    assert.deepEqual(images.prefetchLists.take('example.com/app:1'), [])
  }
})

const PREFETCHING = {
  device: {
    backend: { type: 'localfs', config: { dir: CARRIED_BLOBS } },
    cache: { type: 'blobcache', config: {} },
  },
  mode: 'direct',
  fs_prefetch: { enable: true, threads_count: 2, prefetch_all: false },
}

test('a daemon that hangs is ended by the next start, and its readers go on', { skip, timeout: 180_000 }, async () => {
  await using field = new Field({ mode: 'shared', recover: 'failover', startupTimeoutMs: 16_000 })
  await field.start()
  const { mountpoint } = await field.ensure(field.layer(IMAGE))
  const [pid = 0] = field.pids()
  await field.stop()
  process.kill(pid, 'SIGSTOP')
  await field.start()
  await until('another daemon', () =>
    field.images?.list()[0]?.state === 'running' && field.pids()[0] !== pid ? true : undefined,
  )
  assert.equal(readFileSync(join(mountpoint, 'sizes/4097')).length, 4097)
})

test('images that come at the same moment as the end of the snapshotter are refused or mounted, never half', {
  skip,
  timeout: 180_000,
}, async () => {
  await using field = new Field({ mode: 'dedicated' })
  const images = await field.start()
  const layer = field.layer(IMAGE)
  const request = field.request(layer)
  const mounting = images.ensure(request, AbortSignal.timeout(50_000))
  await images.stop()
  const image = await mounting
  assert.equal(readFileSync(join(image.mountpoint, FILE)).length, 65_536)
  await assert.rejects(images.ensure(request, AbortSignal.timeout(1000)), { code: 'UNAVAILABLE' })
})

test('an image with v5 and its empty neighbour are read as the original wrote them', {
  skip,
  timeout: 180_000,
}, async () => {
  await using field = new Field({ mode: 'shared' })
  const images = await field.start()
  const empty = carriedImage('v6-empty')
  const { mountpoint } = await field.ensure(field.layer(empty))
  assert.deepEqual(await differencesSeenApart(mountpoint, empty.tree), [])
  // an image without blobs hinders no collection
  assert.equal((await images.collectCache(() => [], AbortSignal.timeout(60_000))).skipped, undefined)
})
