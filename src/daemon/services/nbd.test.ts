import assert from 'node:assert/strict'
import { copyFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { NbdRequests, socketPair, UnixStream } from '../../kernel/vm/index.ts'
import { parseConfig } from '../config/document.ts'
import { CARRIED_BLOBS, carriedImage, localConfig, runNydusd, Scratch } from '../testing.ts'
import { parseBlobEntry } from './blob-entry.ts'
import { NbdConnection } from './nbd-connection.ts'
import { openDisk } from './open-disk.ts'

const IMAGE = carriedImage('v6-tar-none-c64k')
const MAGIC = 0x25609513

function request(type: number, cookie: bigint, offset: number, length: number, magic = MAGIC): Buffer {
  const head = Buffer.alloc(28)
  head.writeUInt32BE(magic, 0)
  head.writeUInt32BE(type, 4)
  head.writeBigUInt64BE(cookie, 8)
  head.writeBigUInt64BE(BigInt(offset), 16)
  head.writeUInt32BE(length, 24)
  return head
}

/** The kernel's end of a connection: it sends requests and takes answers apart, of which it knows the lengths. */
class Driver {
  readonly #stream: UnixStream
  readonly #lengths = new Map<bigint, number>()
  readonly answers = new Map<bigint, { error: number; data: Buffer }>()
  #bytes = Buffer.alloc(0)
  isOver = false

  constructor(fd: number) {
    this.#stream = new UnixStream(fd)
    const buffer = Buffer.alloc(65536)
    this.#stream.listen({
      onReadable: () => {
        for (let got = this.#stream.receive(buffer); got !== undefined; got = this.#stream.receive(buffer)) {
          if (got.length === 0) {
            this.isOver = true
            this.#stream.close()
            return
          }
          this.#bytes = Buffer.concat([this.#bytes, buffer.subarray(0, got.length)])
          this.#parse()
        }
      },
      onError: () => undefined,
    })
  }

  send(type: number, cookie: bigint, offset: number, length: number, magic = MAGIC, payload = Buffer.alloc(0)): void {
    this.#lengths.set(cookie, type === 0 ? length : 0)
    this.#stream.send(Buffer.concat([request(type, cookie, offset, length, magic), payload]))
  }

  sendRaw(bytes: Buffer): void {
    this.#stream.send(bytes)
  }

  async answer(cookie: bigint): Promise<{ error: number; data: Buffer }> {
    for (let tries = 0; tries < 6000; tries++) {
      const found = this.answers.get(cookie)
      if (found !== undefined) return found
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
    throw new Error(`no answer to ${cookie}`)
  }

  close(): void {
    this.#stream.close()
  }

  #parse(): void {
    while (this.#bytes.length >= 16) {
      assert.equal(this.#bytes.readUInt32BE(0), 0x67446698)
      const [error, cookie] = [this.#bytes.readUInt32BE(4), this.#bytes.readBigUInt64BE(8)]
      const length = error === 0 ? (this.#lengths.get(cookie) ?? 0) : 0
      if (this.#bytes.length < 16 + length) return
      this.answers.set(cookie, { error, data: this.#bytes.subarray(16, 16 + length) })
      this.#bytes = this.#bytes.subarray(16 + length)
    }
  }
}

async function serve(scratch: Scratch) {
  const { config } = parseConfig(localConfig(CARRIED_BLOBS, scratch.cache), 'of the test')
  const { disk, close } = await openDisk({ bootstrap: IMAGE.bootstrap, config })
  const [theirs, ours] = socketPair()
  const errors: string[] = []
  let ended = false
  const connection = new NbdConnection(new UnixStream(ours), {
    disk,
    onError: (text) => errors.push(text),
    onEnd: () => (ended = true),
  })
  const driver = new Driver(theirs)
  return {
    disk,
    driver,
    errors,
    isEnded: () => ended,
    [Symbol.asyncDispose]: async () => {
      driver.close()
      connection.close()
      await close()
    },
  }
}

test('every block is read over the protocol, requests of any order and size at once', {
  timeout: 180_000,
}, async () => {
  await using scratch = new Scratch()
  await using served = await serve(scratch)
  const { disk, driver } = served
  const wanted = Buffer.alloc(disk.size)
  const step = 3 * 4096
  const starts = Array.from({ length: Math.ceil(disk.size / step) }, (_none, index) => index * step).reverse()
  for (const start of starts) driver.send(0, BigInt(start + 1), start, Math.min(step, disk.size - start))
  for (const start of starts) {
    const { error, data } = await driver.answer(BigInt(start + 1))
    assert.equal(error, 0)
    data.copy(wanted, start)
  }
  const direct = Buffer.alloc(disk.size)
  await disk.read(0, direct, new AbortController().signal)
  assert.ok(wanted.equals(direct))
  assert.equal(wanted.readUInt32LE(1024), 0xe0f5e1e2)
})

test('what is no read of the disk is refused, and the next request understood', { timeout: 180_000 }, async () => {
  await using scratch = new Scratch()
  await using served = await serve(scratch)
  const { disk, driver } = served
  for (const [what, type, offset, length, error, magic] of [
    ['a flush', 3, 0, 0, 22, MAGIC],
    ['a trim', 4, 0, 4096, 22, MAGIC],
    ['an unknown command', 99, 0, 4096, 22, MAGIC],
    ['a wrong magic', 0, 0, 4096, 22, 1],
    ['an offset within a block', 0, 512, 4096, 22, MAGIC],
    ['a length of no blocks', 0, 0, 100, 22, MAGIC],
    ['a read beyond the end', 0, disk.size, 4096, 22, MAGIC],
    ['a read over the end', 0, disk.size - 4096, 8192, 22, MAGIC],
    ['too much', 0, 0, 0x8000_0000, 22, MAGIC],
  ] as const) {
    const cookie = BigInt(what.length * 1000 + type)
    driver.send(type, cookie, offset, length, magic)
    assert.deepEqual(await driver.answer(cookie), { error, data: Buffer.alloc(0) }, what)
  }
  driver.send(1, 77n, 0, 8192, MAGIC, Buffer.alloc(8192, 'x'))
  assert.equal((await driver.answer(77n)).error, 1)
  driver.send(0, 78n, 0, 4096)
  assert.equal((await driver.answer(78n)).error, 0)
})

test('a disconnect ends the connection', { timeout: 180_000 }, async () => {
  await using scratch = new Scratch()
  await using served = await serve(scratch)
  served.driver.send(2, 1n, 0, 0)
  for (let tries = 0; !served.driver.isOver && tries < 6000; tries++)
    await new Promise((resolve) => setTimeout(resolve, 10))
  assert.ok(served.driver.isOver && served.isEnded())
})

test('requests may come in any pieces', () => {
  const all = Buffer.concat([
    request(0, 1n, 4096, 4096),
    request(1, 2n, 0, 10),
    Buffer.alloc(10, 255),
    request(0, 3n, 0, 1),
  ])
  for (const size of [1, 7, 28, 29, all.length]) {
    const requests = new NbdRequests()
    const found = []
    for (let at = 0; at < all.length; at += size) found.push(...requests.push(all.subarray(at, at + size)))
    assert.deepEqual(
      found.map(({ type, offset, length }) => [type, offset, length]),
      [
        [0, 4096, 4096],
        [1, 0, 10],
        [0, 0, 1],
      ],
    )
  }
})

test('blob cache entries in both forms, and what is wrong with others', () => {
  const v2 = {
    version: 2,
    id: 'f',
    backend: { type: 'localfs', localfs: { dir: '/b' } },
    cache: { type: 'filecache', filecache: { work_dir: '/c' } },
  }
  const legacy = {
    id: 'f',
    backend_type: 'localfs',
    backend_config: { dir: '/b' },
    cache_type: 'filecache',
    cache_config: { work_dir: '/c' },
  }
  const of = (more: object) => parseBlobEntry({ type: 'bootstrap', id: 'x', ...more })
  const [a, b] = [
    of({ config_v2: { ...v2, metadata_path: '/m' } }),
    of({ config: { ...legacy, metadata_path: '/m' }, domain_id: 'd' }),
  ]
  assert.deepEqual([a.metadataPath, a.domainId, b.metadataPath, b.domainId], ['/m', '', '/m', 'd'])
  assert.deepEqual(
    [a.config.backend, a.config.cache?.filecache, a.config.id],
    [b.config.backend, b.config.cache?.filecache, b.config.id],
  )
  assert.equal(of({ config: legacy }).config.rafs?.prefetch.enable, false)
  const ahead = { enable: true, threads_count: 2, merging_size: 4096, bandwidth_rate: 0 }
  assert.equal(of({ config: { ...legacy, prefetch_config: ahead } }).config.rafs?.prefetch.prefetch_all, true)
  for (const [wrong, wire] of [
    [{}, 'BadRequest'],
    [{ config: {} }, 'BadRequest'],
    [{ config_v2: { ...v2, backend: { type: 'tape' } } }, 'BadRequest'],
    [
      { config: { ...legacy, prefetch_config: { enable: true } } },
      'ParseBody(Error("missing field `threads_count`", line: 1, column: 1))',
    ],
    [{ id: undefined, config: legacy }, 'ParseBody(Error("missing field `id`", line: 1, column: 1))'],
  ] as const)
    assert.throws(() => of(wrong), { wire })
  assert.throws(() => parseBlobEntry([]), { name: 'BodyError' })
})

test('without a device, or without the driver, the program says what is missing', { timeout: 180_000 }, async () => {
  await using scratch = new Scratch()
  const file = join(scratch.path, 'entry.json')
  writeFileSync(file, '{"type":"bootstrap"}')
  copyFileSync(IMAGE.bootstrap, join(scratch.path, 'boot'))
  const source = ['-B', IMAGE.bootstrap, '-D', scratch.path, '--rlimit-nofile', '0']
  for (const [args, code, text] of [
    [['nbd', join(scratch.path, 'nbd0'), ...source], 1, /nbd0 is not here; load the driver with "modprobe nbd"/],
    [['nbd', file, ...source], 1, /is no block device/],
    [['nbd', '/dev/null'], 1, /--config and --bootstrap are missing/],
    [['nbd', ...source], 2, /DEVICE/],
    [['nbd', '/dev/nbd0', '-B', 'x', '-C', 'y', '-D', 'z'], 2, /cannot be used with '--config <config>'/],
    [['nbd', '/dev/nbd0', '-B', 'x'], 2, /--localfs-dir/],
  ] as const) {
    const ended = await runNydusd(args)
    assert.equal(ended.code, code, ended.stderr)
    assert.match(ended.stderr, text)
  }
})
