/** One daemon goes on in the place of another, with readers at work: by upgrade, after a crash, in the orders in which clients of the original do it. */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { openSync } from 'node:fs'
import { open, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { readMountInfo, whyNoFuse } from '../../kernel/index.ts'
import { anonymous, digestOf, parseReference, RegistryClient, startRegistry } from '../../registry/index.ts'
import { CARRIED_BLOBS, carriedImage, differencesSeenApart, localConfig, Scratch, TestDaemon } from '../testing.ts'
import { encodeState, decodeState } from './session-state.ts'
import { TestSupervisor } from './test-supervisor.ts'

const skip = whyNoFuse() ?? false
const IMAGE = carriedImage('v6-tar-none-c64k')
const OTHER = carriedImage('v5-tar-lz4-sha256')
const FILE = 'sizes/65536'
const FUSE_DEVICE = '/dev/fuse'

/** Daemons on one mount point, one after another, and their supervisor. */
class Relay extends Scratch {
  readonly supervisor = new TestSupervisor(join(this.path, 'supervisor.sock'))
  readonly #all: TestDaemon[] = []

  async daemon(name: string, args: readonly string[] = []): Promise<TestDaemon> {
    const socket = join(this.path, `${name}.sock`)
    const daemon = new TestDaemon(
      [
        '--mountpoint',
        this.mnt,
        '--apisock',
        socket,
        '--rlimit-nofile',
        '0',
        '--id',
        'x',
        '--supervisor',
        this.supervisor.path,
        ...args,
      ],
      socket,
      { cwd: this.path, env: {} },
    )
    this.#all.push(daemon)
    await daemon.ready()
    return daemon
  }

  request(image = IMAGE, cache = this.cache): Record<string, unknown> {
    return { fs_type: 'rafs', source: image.bootstrap, config: localConfig(CARRIED_BLOBS, cache) }
  }

  override async [Symbol.asyncDispose](): Promise<void> {
    for (const daemon of this.#all) await daemon.kill()
    this.supervisor[Symbol.dispose]()
    await super[Symbol.asyncDispose]()
  }
}

async function put(daemon: TestDaemon, call: string): Promise<[number, string]> {
  const { status, text } = await daemon.api('PUT', `/api/v1/daemon/${call}`)
  return [status, text === '' ? '' : String((JSON.parse(text) as Record<string, unknown>)['message'])]
}

async function mount(daemon: TestDaemon, path: string, body: unknown): Promise<void> {
  const answer = await daemon.api('POST', `/api/v1/mount?mountpoint=${path}`, body)
  assert.equal(answer.status, 204, answer.text)
}

async function state(daemon: TestDaemon): Promise<unknown> {
  return (await daemon.json('/api/v1/daemon'))['state']
}

test('a new daemon takes over before the old one leaves; open files, inode numbers and mounts stay', {
  skip,
  timeout: 180_000,
}, async () => {
  await using relay = new Relay()
  const old = await relay.daemon('old')
  await mount(old, '/a/b', relay.request())
  await mount(old, '/gone', relay.request())
  await mount(old, '/other', relay.request(OTHER, relay.folder('cache2')))
  assert.equal((await old.api('DELETE', '/api/v1/mount?mountpoint=/gone')).status, 204)
  const file = await open(join(relay.mnt, 'a/b', FILE))
  const bytes = await readFile(join(relay.mnt, 'a/b', FILE))
  const before = await file.stat({ bigint: true })
  await relay.supervisor.fetch(() => put(old, 'fuse/sendfd'))

  const fresh = await relay.daemon('new', ['--upgrade'])
  assert.equal(await state(fresh), 'INIT')
  assert.deepEqual(await relay.supervisor.offer(() => put(fresh, 'fuse/takeover')), [204, ''])
  assert.equal(await state(fresh), 'READY')
  assert.deepEqual(await put(old, 'exit'), [204, ''])
  assert.equal(await old.ended(), 0)
  assert.deepEqual(await put(fresh, 'start'), [204, ''])
  assert.equal(await state(fresh), 'RUNNING')

  assert.equal((await file.stat({ bigint: true })).ino, before.ino)
  assert.deepEqual(await file.readFile(), bytes)
  await file.close()
  assert.deepEqual(await differencesSeenApart(join(relay.mnt, 'a/b'), IMAGE.tree), [])
  assert.deepEqual(await differencesSeenApart(join(relay.mnt, 'other'), OTHER.tree), [])

  // what a snapshotter that restarted does: it asks for the mounts once more, perhaps with another login
  await mount(fresh, '/a/b', relay.request())
  await mount(fresh, '/a/b', { ...relay.request(), config: localConfig(CARRIED_BLOBS, relay.cache, { amplify_io: 0 }) })
  assert.equal((await fresh.api('POST', '/api/v1/mount?mountpoint=/a/b', relay.request(OTHER))).status, 500)
  await mount(fresh, '/a/d', relay.request())
  const again = await relay.supervisor.fetch(() => put(fresh, 'fuse/sendfd'))
  const slots = decodeState(again.state).mounts.map(({ path, slot }) => [path, slot])
  assert.deepEqual(
    new Map(slots as Array<[string, number]>),
    new Map([
      ['/a/b', 1],
      ['/other', 3],
      ['/a/d', 4],
    ]),
  )
  assert.equal(await fresh.stop(), 0)
  assert.ok(!(await readMountInfo()).some(({ at }) => at === relay.mnt))
})

test('the order of the smoke test: mounted twice, exit first, state fetched before the start', {
  skip,
  timeout: 180_000,
}, async () => {
  await using relay = new Relay()
  const old = await relay.daemon('old')
  await mount(old, '/', relay.request())
  const bytes = await readFile(join(relay.mnt, FILE))
  await relay.supervisor.fetch(() => put(old, 'fuse/sendfd'))
  const fresh = await relay.daemon('new', ['--upgrade'])
  await mount(fresh, '/', relay.request())
  assert.equal((await put(fresh, 'fuse/sendfd'))[0], 503)
  await put(old, 'exit')
  await old.ended()
  assert.deepEqual(await relay.supervisor.offer(() => put(fresh, 'fuse/takeover')), [204, ''])
  await relay.supervisor.fetch(() => put(fresh, 'fuse/sendfd'))
  const read = readApart(join(relay.mnt, 'dup/a')) // waits, nobody serves
  assert.deepEqual(await put(fresh, 'start'), [204, ''])
  await read
  assert.deepEqual(await readFile(join(relay.mnt, FILE)), bytes)
  assert.deepEqual(await differencesSeenApart(relay.mnt, IMAGE.tree), [])
})

test('a killed daemon is known by its mount and socket; a takeover that failed may be tried again', {
  skip,
  timeout: 180_000,
}, async () => {
  await using relay = new Relay()
  const killed = await relay.daemon('api')
  await mount(killed, '/x', relay.request())
  const bytes = await readFile(join(relay.mnt, 'x', FILE))
  const { state: blob, device } = await relay.supervisor.fetch(() => put(killed, 'fuse/sendfd'))
  await killed.kill()
  const next = await relay.daemon('api') // the same command line, the same socket
  assert.equal(await state(next), 'INIT')
  assert.match(next.log, /A previous daemon crashed! Try to failover later\./)
  const takeOver = (): Promise<[number, string]> => put(next, 'fuse/takeover')
  const fails = async (expected: RegExp, what: { state: Buffer; device: number }): Promise<void> => {
    const [status, text] = await relay.supervisor.offer(takeOver, what)
    assert.equal(status, 500)
    assert.match(text, expected)
    assert.equal(await state(next), 'INIT')
  }
  assert.deepEqual(await takeOver(), [
    500,
    'Upgrade(DaemonAbnormal(UpgradeManager("StorageBackendError(CreateUnixStream(Os { code: 2, kind: NotFound, message: \\"No such file or directory\\" }))")))',
  ])
  await fails(/Deserialize\(.*Crc64/, { state: blob.subarray(0, 100), device })
  await fails(/Deserialize/, { state: Buffer.alloc(1), device })
  await fails(/NoEnoughFds/, { state: blob, device: openSync('/dev/null', 'r') })
  const missing = decodeState(blob)
  const [record] = missing.mounts
  await fails(/UpgradeManager/, {
    state: encodeState({ ...missing, mounts: [{ ...(record ?? assert.fail()), source: '/nowhere' }] }),
    device: openSync(FUSE_DEVICE, 'r+'),
  })
  assert.deepEqual(await put(next, 'start'), [400, 'Configure(DaemonAbnormal(UnexpectedEvent("Start")))'])
  assert.deepEqual(await relay.supervisor.offer(takeOver), [204, ''])
  assert.deepEqual(await takeOver(), [400, 'Upgrade(DaemonAbnormal(UnexpectedEvent("Takeover")))'])
  assert.deepEqual(await put(next, 'start'), [204, ''])
  assert.deepEqual(await put(next, 'start'), [400, 'Configure(DaemonAbnormal(UnexpectedEvent("Start")))'])
  assert.deepEqual(await takeOver(), [400, 'Upgrade(DaemonAbnormal(UnexpectedEvent("Takeover")))'])
  assert.deepEqual(await readFile(join(relay.mnt, 'x', FILE)), bytes)
})

for (const end of ['exit', 'kill'] as const)
  test(`a read that waits for data is answered by the next daemon, after ${end}`, {
    skip,
    timeout: 180_000,
  }, async () => {
    await using relay = new Relay()
    const server = await startRegistry({ root: join(relay.path, 'registry'), host: '127.0.0.1', port: 0 })
    try {
      await push(server.host)
      const old = await relay.daemon('old')
      const config = JSON.stringify({
        device: {
          backend: { type: 'registry', config: { host: server.host, repo: 'test/image', scheme: 'http', timeout: 30 } },
          cache: { type: 'blobcache', config: { work_dir: relay.cache } },
        },
        mode: 'direct',
      })
      await mount(old, '/', { ...relay.request(), config })
      await relay.supervisor.fetch(() => put(old, 'fuse/sendfd'))
      server.fail({ match: { route: 'blob' }, fault: { kind: 'stall', afterBytes: 100 } })
      const asked = server.counters().blob.requests
      const read = readApart(join(relay.mnt, FILE))
      while (server.counters().blob.requests === asked) await sleep(5)
      if (end === 'exit') await put(old, 'exit')
      else await old.kill()
      const fresh = await relay.daemon('new', ['--upgrade'])
      assert.deepEqual(await relay.supervisor.offer(() => put(fresh, 'fuse/takeover')), [204, ''])
      assert.deepEqual(await put(fresh, 'start'), [204, ''])
      assert.equal((await read).length, 65536)
      assert.deepEqual(await differencesSeenApart(relay.mnt, IMAGE.tree), [])
    } finally {
      await server.close()
    }
  })

/**
 * Reads in another process. One that has files open on a mount must not start a program while nobody serves the mount: the copy closes them before it becomes the program, and waits
 * for an answer to that.
 */
async function readApart(path: string): Promise<Buffer> {
  const { stdout } = await promisify(execFile)('cat', ['--', path], { encoding: 'buffer', maxBuffer: 1 << 30 })
  return stdout
}

async function push(host: string): Promise<void> {
  const client = new RegistryClient({ credentials: anonymous() })
  const repository = client.repository(parseReference(`${host}/test/image:x`))
  for (const id of IMAGE.blobs) {
    const bytes = await readFile(join(CARRIED_BLOBS, id))
    const data = async function* (): AsyncIterable<Uint8Array> {
      yield bytes
    }
    await repository.uploadBlob({ digest: digestOf(bytes), size: bytes.length, open: data })
  }
  await client.close()
}

test('ends: a signal unmounts what was taken over, exit leaves it; without a supervisor there is nobody to send to', {
  skip,
  timeout: 180_000,
}, async () => {
  await using relay = new Relay()
  const old = await relay.daemon('old')
  await mount(old, '/', relay.request())
  await relay.supervisor.fetch(() => put(old, 'fuse/sendfd'))
  await old.kill()
  for (const [end, isMounted] of [
    ['exit', true],
    ['signal', false],
  ] as const) {
    const next = await relay.daemon(end, ['--upgrade'])
    assert.deepEqual(await relay.supervisor.offer(() => put(next, 'fuse/takeover')), [204, ''])
    if (end === 'exit') await put(next, 'exit')
    assert.equal(end === 'exit' ? await next.ended() : await next.stop(), 0)
    assert.equal(
      (await readMountInfo()).some(({ at }) => at === relay.mnt),
      isMounted,
    )
  }
  const alone = await relay.nydusd([])
  assert.deepEqual(await put(alone, 'fuse/sendfd'), [
    500,
    'Upgrade(DaemonAbnormal(UpgradeManager("MissingSupervisorPath")))',
  ])
  const waiting = await relay.daemon('waiting', ['--upgrade'])
  assert.deepEqual(await put(waiting, 'exit'), [204, ''])
  assert.equal(await waiting.ended(), 0)
})
