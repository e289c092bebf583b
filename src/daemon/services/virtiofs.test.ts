import assert from 'node:assert/strict'
import { closeSync, copyFileSync, existsSync, openSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { CARRIED_BLOBS, carriedImage, localConfig, runNydusd, Scratch, TestDaemon } from '../testing.ts'
import { type DriverOptions, VirtioFsDriver } from './test-virtiofs-driver.ts'

const IMAGE = carriedImage('v6-tar-none-c64k')
const [BLOB = ''] = IMAGE.blobs
const OPCODE = { LOOKUP: 1, FORGET: 2, GETATTR: 3, OPEN: 14, READ: 15, STATFS: 17, INIT: 26, READDIRPLUS: 44 }
const ROOM = 70_000
const SENDFD = '{"code":"UNDEFINED","message":"Upgrade(DaemonAbnormal(Unsupported))"}'

interface WantedFile {
  readonly path: string
  readonly sha256: string
  readonly size: number
}

const FILES = readFileSync(IMAGE.tree, 'utf8')
  .trim()
  .split('\n')
  .map((line) => JSON.parse(line) as { type: string } & WantedFile)
  .filter(
    ({ type, path, hardlink }: { type: string; path: string; hardlink?: string }) =>
      type === 'file' && hardlink === undefined && !path.includes('%'),
  )

async function start(scratch: Scratch): Promise<{ readonly daemon: TestDaemon; readonly socket: string }> {
  const blobs = scratch.folder('blobs')
  copyFileSync(join(CARRIED_BLOBS, BLOB), join(blobs, BLOB))
  const [socket, api] = [join(scratch.path, 'v.sock'), join(scratch.path, 'api.sock')]
  const args = ['virtiofs', '--sock', socket, '-B', IMAGE.bootstrap, '-D', blobs, '--rlimit-nofile', '0', '-A', api]
  const daemon = scratch.own(new TestDaemon(args, api, { cwd: scratch.path, env: {} }))
  await daemon.ready()
  return { daemon, socket }
}

/** What a guest's kernel does first. */
async function init(driver: VirtioFsDriver): Promise<void> {
  await driver.start()
  const body = Buffer.alloc(64)
  for (const [at, value] of [7, 38, 1 << 17, 0x73ff_fffb].entries()) body.writeUInt32LE(value, 4 * at)
  const [answer = Buffer.alloc(0)] = await driver.ask([driver.request(OPCODE.INIT, 0n, body)], 80)
  assert.deepEqual([answer.length, answer.readInt32LE(4), answer.readUInt32LE(16)], [80, 0, 7])
}

/** Node of a path; walks it. */
async function walk(driver: VirtioFsDriver, path: string): Promise<{ readonly node: bigint; readonly size: number }> {
  let found = { node: 1n, size: 0 }
  for (const name of path.split('/').filter((part) => part !== '')) {
    const [answer = Buffer.alloc(0)] = await driver.ask(
      [driver.request(OPCODE.LOOKUP, found.node, Buffer.from(`${name}\0`))],
      144,
    )
    assert.equal(answer.readInt32LE(4), 0, path)
    found = { node: answer.readBigUInt64LE(16), size: Number(answer.readBigUInt64LE(16 + 40 + 8)) }
  }
  return found
}

function read(driver: VirtioFsDriver, node: bigint, offset: number, count: number): Buffer {
  const body = Buffer.alloc(40)
  body.writeBigUInt64LE(BigInt(offset), 8)
  body.writeUInt32LE(count, 16)
  return driver.request(OPCODE.READ, node, body)
}

for (const [name, options] of [
  ['descriptors of the table', {}],
  ['indirect descriptors, event indexes, two regions', { indirect: true, eventIndex: true, regions: 2 }],
  ['a small queue in two regions', { queueSize: 16, regions: 2 }],
] as ReadonlyArray<readonly [string, DriverOptions]>) {
  test(`a machine reads every file: ${name}`, { timeout: 180_000 }, async () => {
    await using scratch = new Scratch()
    const { daemon, socket } = await start(scratch)
    await using driver = new VirtioFsDriver(socket, options)
    await init(driver)
    const { createHash } = await import('node:crypto')
    assert.ok(FILES.length > 2)
    for (const { path, sha256, size } of FILES) {
      const file = await walk(driver, path)
      assert.equal(file.size, size, path)
      const digest = createHash('sha256')
      const step = 65536
      for (let offset = 0; offset < size; offset += 2 * step) {
        // both are new to the cache, and under way together
        const answers = await driver.ask(
          [offset, offset + step].map((at) => read(driver, file.node, at, step)),
          ROOM,
        )
        for (const answer of answers) {
          assert.equal(answer.readInt32LE(4), 0, path)
          assert.equal(answer.readUInt32LE(0), answer.length)
          digest.update(answer.subarray(16))
        }
      }
      assert.equal(digest.digest('hex'), sha256, path)
    }
    assert.ok(driver.interrupts(1) > 0)
    assert.equal(await daemon.stop(), 0)
    assert.ok(!existsSync(socket))
  })
}

test('features, names that are not there, FORGET, OPEN and a queue that stops', { timeout: 180_000 }, async () => {
  await using scratch = new Scratch()
  const { daemon, socket } = await start(scratch)
  await using driver = new VirtioFsDriver(socket)
  assert.deepEqual(await driver.start(), {
    features: (1n << 32n) | (1n << 30n) | (1n << 29n) | (1n << 28n),
    protocol: 0x21n,
    queues: 2n,
  })
  const [missing, opened] = await driver.ask(
    [driver.request(OPCODE.LOOKUP, 1n, Buffer.from('nothing\0')), driver.request(OPCODE.OPEN, 1n, Buffer.alloc(8))],
    144,
  )
  assert.deepEqual([missing?.readInt32LE(4), missing?.readBigUInt64LE(16)], [0, 0n])
  assert.equal(opened?.readInt32LE(4), -38)
  const [forgotten] = await driver.ask([driver.request(OPCODE.FORGET, 2n, Buffer.alloc(8))], 0, 1, 0)
  assert.equal(forgotten?.length, 0)
  const [cramped] = await driver.ask([driver.request(OPCODE.GETATTR, 1n, Buffer.alloc(16))], 20)
  assert.deepEqual([cramped?.length, cramped?.readInt32LE(4)], [16, -5])
  const index = Buffer.from([1, 0, 0, 0, 0, 0, 0, 0])
  const base = await driver.message(11, index, [], true)
  assert.deepEqual([base.readUInt32LE(0), base.readUInt32LE(4)], [1, 3])
  await daemon.kill()
})

test('a queue that is full of requests is answered to its end', { timeout: 180_000 }, async () => {
  await using scratch = new Scratch()
  const { daemon, socket } = await start(scratch)
  await using driver = new VirtioFsDriver(socket, { queueSize: 1024 })
  await init(driver)
  const requests = Array.from({ length: 500 }, () => driver.request(OPCODE.GETATTR, 1n, Buffer.alloc(16)))
  const answers = await driver.ask(requests, 120, 1)
  assert.deepEqual(new Set(answers.map((answer) => answer.readInt32LE(4))), new Set([0]))
  assert.deepEqual(
    answers.map((answer) => answer.readBigUInt64LE(8)),
    requests.map((request) => request.readBigUInt64LE(8)),
  )
  await daemon.kill()
})

test('what no driver or monitor sends ends the session, and the next machine is served', {
  timeout: 180_000,
}, async (t) => {
  await using scratch = new Scratch()
  const { daemon, socket } = await start(scratch)
  const file = openSync(IMAGE.bootstrap, 'r')
  t.after(() => closeSync(file))
  const descriptor = (address: bigint, length: number, flags: number, next: number): Buffer => {
    const bytes = Buffer.alloc(16)
    bytes.writeBigUInt64LE(address)
    bytes.writeUInt32LE(length, 8)
    bytes.writeUInt16LE(flags, 12)
    bytes.writeUInt16LE(next, 14)
    return bytes
  }
  const ring = 0x10000
  const u64 = (value: bigint): Buffer => {
    const bytes = Buffer.alloc(8)
    bytes.writeBigUInt64LE(value)
    return bytes
  }
  const kicked = (what: (driver: VirtioFsDriver) => void) => async (driver: VirtioFsDriver) => {
    await driver.start()
    what(driver)
    driver.kick(1)
  }
  const available = (count: number): Buffer => Buffer.from([0, 0, count & 255, count >> 8, 0, 0])
  const cases: ReadonlyArray<readonly [string, (driver: VirtioFsDriver) => Promise<unknown>]> = [
    ['more requests than the queue has', kicked((driver) => driver.poke(ring + 0x8000, available(500)))],
    [
      'a request without an end',
      kicked((driver) => {
        driver.poke(ring, descriptor(0x1000_0000n, 8, 1, 0))
        driver.poke(ring + 0x8000, available(1))
      }),
    ],
    [
      'memory that is not there',
      kicked((driver) => {
        driver.poke(ring, descriptor(0x7fff_ffff_0000n, 64, 0, 0))
        driver.poke(ring + 0x8000, available(1))
      }),
    ],
    [
      'a table within a table',
      kicked((driver) => {
        driver.poke(ring, descriptor(0x1000_0000n + 0x40000n, 16, 4, 0))
        driver.poke(0x40000, descriptor(0x1000_0000n + 0x40000n, 16, 4, 0))
        driver.poke(ring + 0x8000, available(1))
      }),
    ],
    ['an unknown message', (driver) => driver.message(99, Buffer.alloc(8))],
    ['a cut message', (driver) => driver.message(2, Buffer.alloc(3))],
    ['a huge message', (driver) => driver.message(5, Buffer.alloc(5000))],
    ['unknown features', (driver) => driver.message(2, u64(1n << 50n))],
    [
      'memory that goes beyond its file',
      async (driver) => {
        await driver.start()
        await driver.setMemory(1 << 20)
        driver.kick(1)
      },
    ],
    ['memory without descriptors', (driver) => driver.message(5, Buffer.from([3, 0, 0, 0, 0, 0, 0, 0]))],
    ['a queue that is not there', (driver) => driver.message(8, Buffer.from([7, 0, 0, 0, 16, 0, 0, 0]))],
    ['a queue of no power of two', (driver) => driver.message(8, Buffer.from([1, 0, 0, 0, 15, 0, 0, 0]))],
    ['a queue without kicks', (driver) => driver.message(12, u64(0x101n))],
    ['a file in the place of kicks', (driver) => driver.message(12, u64(1n), [file])],
  ]
  for (const [what, act] of cases) {
    await using driver = new VirtioFsDriver(socket)
    await act(driver)
    for (let tries = 0; !driver.isOver && tries < 6000; tries++) await sleep(10)
    assert.ok(driver.isOver, what)
  }
  await using driver = new VirtioFsDriver(socket)
  await init(driver)
  await using second = new VirtioFsDriver(socket)
  for (let tries = 0; !second.isOver && tries < 6000; tries++) await sleep(10)
  assert.ok(second.isOver)
  assert.equal((await walk(driver, FILES[0]?.path ?? '')).size, FILES[0]?.size)
  assert.equal(await daemon.stop(), 0)
})

test('a daemon that ends leaves the socket alone that another one has put in the place of its own', {
  timeout: 180_000,
}, async () => {
  await using scratch = new Scratch()
  const { daemon, socket } = await start(scratch)
  const api = join(scratch.path, 'other.sock')
  const args = ['virtiofs', '--sock', socket, '-B', IMAGE.bootstrap, '-D', join(scratch.path, 'blobs'), '-A', api]
  const other = scratch.own(new TestDaemon([...args, '--rlimit-nofile', '0'], api, { cwd: scratch.path, env: {} }))
  try {
    await other.ready()
    assert.equal(await daemon.stop(), 0)
    await using driver = new VirtioFsDriver(socket)
    await init(driver)
  } finally {
    await other.kill()
  }
})

test('damaged FUSE requests get an error or nothing, and the next one its answer', { timeout: 180_000 }, async () => {
  await using scratch = new Scratch()
  const { daemon, socket } = await start(scratch)
  await using driver = new VirtioFsDriver(socket)
  await init(driver)
  const lying = driver.request(OPCODE.LOOKUP, 1n, Buffer.from('a\0'))
  lying.writeUInt32LE(0xffff_ffff, 0)
  const [long] = await driver.ask([lying], 144)
  assert.equal(long?.length, 0)
  const [short] = await driver.ask([Buffer.alloc(10)], 144)
  assert.equal(short?.length, 0)
  const [unknown] = await driver.ask([driver.request(4000, 1n, Buffer.alloc(0))], 144)
  assert.equal(unknown?.readInt32LE(4), -38)
  const [stale] = await driver.ask([driver.request(OPCODE.GETATTR, 0x0900_0000_0000_0001n, Buffer.alloc(16))], 144)
  assert.equal(stale?.readInt32LE(4), -116)
  assert.equal((await walk(driver, FILES[0]?.path ?? '')).size, FILES[0]?.size)
  await daemon.kill()
})

test('the API mounts images for a machine, and refuses directories', { timeout: 180_000 }, async () => {
  await using scratch = new Scratch()
  const [socket, api] = [join(scratch.path, 'v.sock'), join(scratch.path, 'api.sock')]
  const daemon = scratch.own(
    new TestDaemon(['virtiofs', '--sock', socket, '--hybrid-mode', '-A', api, '--rlimit-nofile', '0'], api, {
      cwd: scratch.path,
      env: {},
    }),
  )
  await daemon.ready()
  await using driver = new VirtioFsDriver(socket)
  await init(driver)
  const mount = { source: IMAGE.bootstrap, fs_type: 'rafs', config: localConfig(CARRIED_BLOBS, scratch.cache) }
  assert.equal((await daemon.api('POST', '/api/v1/mount?mountpoint=/x', mount)).status, 204)
  const file = await walk(driver, `/x${FILES[0]?.path}`)
  assert.equal(file.size, FILES[0]?.size)
  const shared = await daemon.api('POST', '/api/v1/mount?mountpoint=/y', {
    source: '/tmp',
    fs_type: 'passthrough_fs',
    config: '',
  })
  assert.equal(shared.status, 500)
  assert.match(shared.text, /not supported over virtio-fs/)
  const upper = { upper_dir: scratch.folder('upper'), work_dir: scratch.folder('work') }
  const written = await daemon.api('POST', '/api/v1/mount?mountpoint=/z', {
    ...mount,
    config: overlayConfig(scratch.cache, upper),
  })
  assert.deepEqual([written.status, /overlay are not supported over virtio-fs/.test(written.text)], [500, true])
  assert.equal((await daemon.json('/api/v1/daemon'))['state'], 'RUNNING')
  assert.equal((await daemon.api('PUT', '/api/v1/daemon/fuse/sendfd')).text, SENDFD)
  assert.equal((await daemon.api('DELETE', '/api/v1/mount?mountpoint=/x')).status, 204)
  assert.equal(await daemon.stop(), 0)
  const refused = await runNydusd(['virtiofs', '--sock', socket, '--shared-dir', '/tmp'])
  assert.deepEqual([refused.code, /does not share directories/.test(refused.stderr)], [1, true])
  assert.equal((await runNydusd(['virtiofs'])).code, 2)
})

function overlayConfig(cache: string, overlay: Record<string, string>): string {
  return JSON.stringify({
    version: 2,
    backend: { type: 'localfs', localfs: { dir: CARRIED_BLOBS } },
    cache: { type: 'blobcache', filecache: { work_dir: cache } },
    rafs: {},
    overlay,
  })
}
