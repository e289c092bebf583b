import assert from 'node:assert/strict'
import {
  closeSync,
  copyFileSync,
  existsSync,
  openSync,
  readdirSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { once } from 'node:events'
import { createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { whyNoFaults } from '../../kernel/vm/index.ts'
import { loadBootstrap } from '../bootstrap-file.ts'
import { parseConfig } from '../config/document.ts'
import { Log } from '../log.ts'
import { localfsDocument } from '../run.ts'
import { CARRIED_BLOBS, carriedImage, localConfig, runNydusd, Scratch, TestDaemon } from '../testing.ts'
import { type OpenDisk, openDisk } from './open-disk.ts'
import { UffdClient } from './test-uffd-client.ts'
import { DocumentStream, parseMessage } from './uffd-protocol.ts'
import { UffdServer } from './uffd-server.ts'

const skip = whyNoFaults() ?? false
const IMAGE = carriedImage('v6-tar-none-c64k')
const [BLOB = ''] = IMAGE.blobs

/** A server in this process, and what its disk has in it. */
async function serve(scratch: Scratch) {
  const blobs = scratch.folder('blobs')
  copyFileSync(join(CARRIED_BLOBS, BLOB), join(blobs, BLOB))
  const source = { bootstrap: IMAGE.bootstrap, config: parseConfig(localfsDocument(blobs), 'of the test').config }
  const opened = await openDisk(source)
  const elsewhere = parseConfig(localConfig(CARRIED_BLOBS, scratch.cache), 'of the test').config
  const reference = await openDisk({ ...source, config: elsewhere })
  const log = new Log({ level: 'off', file: undefined, rotationBytes: 0 })
  const socketPath = join(scratch.path, 'uffd.sock')
  const server = new UffdServer({ socketPath, disk: opened.disk, log })
  return {
    blobs,
    disk: opened.disk,
    closeImage: opened.close,
    /** Read by another way than faults. */
    wanted: await contentOf(reference),
    connect: () => new UffdClient(socketPath),
    [Symbol.asyncDispose]: async () => {
      server.close()
      await opened.close().catch(() => undefined) // a test may have closed it
      await reference.close()
    },
  }
}

async function contentOf({ disk }: OpenDisk): Promise<Buffer> {
  const bytes = Buffer.alloc(disk.size)
  await disk.read(0, bytes, new AbortController().signal)
  return bytes
}

test('a disk is the bootstrap, the plain bytes of the blob, and zeros', async () => {
  await using scratch = new Scratch()
  await using served = await serve(scratch)
  const { disk, wanted } = served
  const { bytes } = await loadBootstrap(IMAGE.bootstrap)
  assert.ok(wanted.subarray(0, bytes.length).equals(Buffer.from(bytes)))
  assert.equal(wanted.readUInt32LE(1024), 0xe0f5e1e2)
  const { files, zeros, copies } = await disk.pieces({ offset: 0, length: disk.size }, new AbortController().signal)
  assert.deepEqual(copies, [])
  const total = [...files, ...zeros].reduce((sum, { length }) => sum + length, 0)
  assert.equal(total, disk.size)
})

for (const [name, policy, pageSize] of [
  ['copied pages', 1, 4096],
  ['mapped files', 0, 4096],
  ['copies of 64 KiB', 1, 65536],
  ['mapped files of 64 KiB', 0, 65536],
] as const) {
  test(`every byte arrives by faults: ${name}`, { skip, timeout: 180_000 }, async () => {
    await using scratch = new Scratch()
    await using served = await serve(scratch)
    const { wanted, connect } = served
    await using client = connect()
    const { size, block_size: blockSize } = await client.stat()
    assert.deepEqual([size, blockSize], [wanted.length, 4096])
    client.handshake(size, pageSize, (region) => ({ type: 0, regions: [region], policy, enable_prefault: false }))
    assert.ok((await client.touch(0, size)).equals(wanted))
    assert.deepEqual(await client.touch(Math.ceil(size / 4096) * 4096 - 4096, 4096), padded(wanted))
    assert.equal(
      client.answers.some((answer) => answer.type === 1),
      policy === 0,
    )
    assert.equal(
      client.descriptors,
      client.answers.reduce((sum, { ranges }) => sum + ranges.length, 0),
    )
  })
}

function padded(disk: Buffer): Buffer {
  const last = Buffer.alloc(4096)
  disk.copy(last, 0, Math.floor((disk.length - 1) / 4096) * 4096)
  return last
}

test('Firecracker’s handshake, a region from the middle of the disk, one that goes beyond its end', {
  skip,
  timeout: 180_000,
}, async () => {
  await using scratch = new Scratch()
  await using served = await serve(scratch)
  const { wanted, connect } = served
  await using client = connect()
  const size = wanted.length + 8192
  client.handshake(size - 4096, 4096, (region) => [region], 4096)
  const got = await client.touch(0, size - 4096)
  assert.ok(got.equals(Buffer.concat([wanted.subarray(4096), Buffer.alloc(8192)])))
})

test('what is at hand is told of before anybody faults', { skip, timeout: 180_000 }, async () => {
  await using scratch = new Scratch()
  await using served = await serve(scratch)
  const { disk, wanted, connect } = served
  await disk.read(0, Buffer.alloc(disk.size), new AbortController().signal)
  await using client = connect()
  client.handshake(wanted.length, 4096, (region) => ({ type: 0, regions: [region], policy: 0, enable_prefault: true }))
  const told = (): number => client.answers.flatMap(({ ranges }) => ranges).reduce((sum, { len }) => sum + len, 0)
  const { files } = disk.piecesNow({ offset: 0, length: wanted.length })
  const atHand = files.reduce((sum, { length }) => sum + length, 0)
  for (let tries = 0; told() < atHand && tries < 6000; tries++) await sleep(10)
  assert.equal(told(), atHand)
  assert.ok((await client.touch(0, wanted.length)).equals(wanted))
  assert.equal(told(), atHand)
})

test('what cannot be told beforehand ends nobody', { skip, timeout: 180_000 }, async () => {
  await using scratch = new Scratch()
  await using served = await serve(scratch)
  const { disk, wanted, connect, closeImage } = served
  await disk.read(0, Buffer.alloc(disk.size), new AbortController().signal)
  await closeImage() // its files are gone
  const failures: unknown[] = []
  const failed = (error: unknown): unknown => failures.push(error)
  process.on('unhandledRejection', failed)
  await using client = connect()
  client.handshake(wanted.length, 4096, (region) => ({ type: 0, regions: [region], policy: 0, enable_prefault: true }))
  await client.stat()
  await sleep(100)
  process.off('unhandledRejection', failed)
  assert.deepEqual(failures, [])
  assert.ok(!client.isOver)
})

test('a page whose data cannot be had waits until it can be', { skip, timeout: 180_000 }, async () => {
  await using scratch = new Scratch()
  await using served = await serve(scratch)
  const { blobs, wanted, connect } = served
  rmSync(join(blobs, BLOB))
  await using client = connect()
  client.handshake(wanted.length, 4096, (region) => ({ type: 0, regions: [region], policy: 1 }))
  await client.touch(0, 4096)
  const waiting = client.touch(0, wanted.length)
  const isThere = await Promise.race([waiting.then(() => true), sleep(300, false)])
  copyFileSync(join(CARRIED_BLOBS, BLOB), join(blobs, BLOB))
  assert.ok((await waiting).equals(wanted))
  assert.equal(isThere, false)
})

test('pages that are at hand do not wait for those of a backend that does not answer', {
  skip,
  timeout: 180_000,
}, async (t) => {
  await using scratch = new Scratch()
  const silent = createServer().listen(join(scratch.path, 'blobs.sock'))
  await once(silent, 'listening')
  t.after(() => silent.close())
  const asked = once(silent, 'connection') as Promise<[Socket]>
  const backend = {
    type: 'http-proxy',
    'http-proxy': { addr: join(scratch.path, 'blobs.sock'), timeout: 60, connect_timeout: 60 },
  }
  const cache = { type: 'blobcache', filecache: { work_dir: scratch.cache } }
  const { config } = parseConfig(JSON.stringify({ version: 2, backend, cache, rafs: {} }), 'of the test')
  const { disk, close } = await openDisk({ bootstrap: IMAGE.bootstrap, config })
  const socketPath = join(scratch.path, 'uffd.sock')
  const server = new UffdServer({ socketPath, disk, log: new Log({ level: 'off', file: undefined, rotationBytes: 0 }) })
  try {
    const all = 64 << 20 // as much as may be on its way
    await using greedy = new UffdClient(socketPath)
    greedy.handshake(all, all, (region) => ({ type: 0, regions: [region], policy: 1 }))
    void greedy.touch(0, 4096)
    const [connection] = await asked
    t.after(() => connection.destroy())
    await using modest = new UffdClient(socketPath)
    modest.handshake(4096, 4096, (region) => ({ type: 0, regions: [region], policy: 1 }))
    assert.equal((await modest.touch(0, 4096)).readUInt32LE(1024), 0xe0f5e1e2)
  } finally {
    server.close()
    await close()
  }
})

test('messages come joined, cut, or wrong', { skip, timeout: 180_000 }, async () => {
  await using scratch = new Scratch()
  await using served = await serve(scratch)
  const { connect } = served
  await using client = connect()
  client.stream.send(Buffer.from('{"type":2} {"type":'))
  await client.next((answer) => answer.type === 3)
  client.stream.send(Buffer.from('2}{"type":1}{"type":2}'))
  await client.next((answer) => answer.type === 3)
  await client.next((answer) => answer.type === 3)
  for (const wrong of ['x', '{"type":0}', '[{}]', '{"regions":[],"policy":7}', '{"regions":[]}', '\xff']) {
    await using hostile = connect()
    hostile.stream.send(Buffer.from(wrong, 'latin1'))
    await assert.rejects(
      hostile.next(() => false),
      /hung up/,
      wrong,
    )
  }
  await using alive = connect()
  assert.equal((await alive.stat()).type, 3)
})

test('what is no userfaultfd ends its own connection, leaves nothing open, and hurts nobody else', {
  skip,
  timeout: 180_000,
}, async () => {
  await using scratch = new Scratch()
  await using served = await serve(scratch)
  const { connect } = served
  await using alive = connect()
  assert.equal((await alive.stat()).type, 3)
  const hostiles = [IMAGE.bootstrap, scratch.path, '/dev/null']
  const before = openedOf(hostiles)
  for (const path of hostiles) {
    const fd = openSync(path, 'r')
    {
      await using hostile = connect()
      hostile.stream.send(Buffer.from('{"type":0,"regions":[]}'), [fd])
      await assert.rejects(
        hostile.next(() => false),
        /hung up/,
        path,
      )
    }
    closeSync(fd)
    assert.equal((await alive.stat()).type, 3)
  }
  // The other end of a connection is closed a little later.
  const deadline = Date.now() + 60_000
  while (openedOf(hostiles).length > before.length && Date.now() < deadline) await sleep(10)
  assert.ok(openedOf(hostiles).length <= before.length, openedOf(hostiles).join('\n'))
})

/** What this process has open of these paths, and its sockets: it opens other things for itself, whenever it needs them first. */
function openedOf(paths: readonly string[]): string[] {
  return readdirSync('/proc/self/fd')
    .map((fd) => linkOf(`/proc/self/fd/${fd}`))
    .filter((link) => paths.includes(link) || link.startsWith('socket:'))
}

/** '' when it is closed meanwhile. */
function linkOf(path: string): string {
  try {
    return readlinkSync(path)
  } catch {
    return ''
  }
}

test('documents are cut where they end', () => {
  const stream = new DocumentStream()
  assert.deepEqual(stream.push(Buffer.from(' {"a":"}\\"]"}[1,[2]] {')), [' {"a":"}\\"]"}', '[1,[2]]'])
  assert.deepEqual(stream.push(Buffer.from('}')), [' {}'])
  assert.throws(() => stream.push(Buffer.from('7')), { code: 'BAD_REQUEST' })
  assert.throws(() => new DocumentStream().push(Buffer.alloc(300 << 10, '[')), { code: 'BAD_REQUEST' })
})

test('regions that cannot be are refused', () => {
  const region = { base_host_virt_addr: 4096, size: 4096, offset: 0, page_size: 4096 }
  for (const wrong of [
    { page_size: 0 },
    { page_size: 4097 },
    { offset: 1 },
    { size: -1 },
    { base_host_virt_addr: 2 ** 60 },
  ])
    assert.throws(() => parseMessage(JSON.stringify([{ ...region, ...wrong }])), { code: 'BAD_REQUEST' })
  assert.equal(parseMessage(JSON.stringify([region])).kind, 'handshake')
})

test('the program serves, tells its state, takes a stale socket and ends at SIGTERM', {
  skip,
  timeout: 180_000,
}, async () => {
  await using scratch = new Scratch()
  const blobs = scratch.folder('blobs')
  copyFileSync(join(CARRIED_BLOBS, BLOB), join(blobs, BLOB))
  const [socket, api] = [join(scratch.path, 'uffd.sock'), join(scratch.path, 'api.sock')]
  const args = [
    'uffd',
    '--sock',
    socket,
    '-B',
    IMAGE.bootstrap,
    '-D',
    blobs,
    '--threads',
    '4',
    '--rlimit-nofile',
    '0',
    '--apisock',
    api,
  ]
  for (const way of ['SIGKILL', 'SIGTERM'] as const) {
    const daemon = scratch.own(new TestDaemon(args, api, { cwd: scratch.path, env: {} }))
    await daemon.ready()
    assert.equal((await daemon.json('/api/v1/daemon'))['state'], 'RUNNING')
    const refused = await daemon.api('POST', '/api/v1/mount?mountpoint=/x', {
      source: 'x',
      fs_type: 'rafs',
      config: '',
    })
    assert.deepEqual([refused.status, JSON.parse(refused.text).message], [501, 'Mount(DaemonAbnormal(Unsupported))'])
    await using client = new UffdClient(socket)
    assert.equal((await client.stat()).type, 3)
    daemon.child.kill(way)
    assert.equal(await daemon.ended(), way === 'SIGTERM' ? 0 : null)
  }
  assert.ok(existsSync(socket))
  assert.ok(!existsSync(api))
})

test('a bootstrap that is not there, or of version 5, or a wrong command line, ends with 1 or 2', {
  timeout: 180_000,
}, async () => {
  await using scratch = new Scratch()
  const config = join(scratch.path, 'config.json')
  writeFileSync(config, '{"version":2,"backend":{"type":"localfs","localfs":{"dir":"/nowhere"}}}')
  const sock = ['uffd', '--sock', join(scratch.path, 'u.sock'), '--rlimit-nofile', '0']
  for (const [args, code, text] of [
    [[...sock, '-B', '/nothing/here', '-D', scratch.path], 1, /cannot read bootstrap \/nothing\/here/],
    [[...sock, '-B', carriedImage('v5-empty').bootstrap, '-D', scratch.path], 1, /is no disk/],
    [[...sock, '-B', IMAGE.bootstrap, '-C', config], 1, /has no "cache"/],
    [sock, 1, /--bootstrap is missing/],
    [['uffd', '-B', IMAGE.bootstrap], 2, /--sock/],
    [[...sock, '-D', scratch.path], 2, /--bootstrap/],
    [[...sock, '--mountpoint', '/mnt'], 2, /unexpected argument '--mountpoint'/],
  ] as const) {
    const ended = await runNydusd(args)
    assert.equal(ended.code, code, ended.stderr)
    assert.match(ended.stderr, text)
  }
})
