/** Clients that are many, slow, rude or gone: each gets its answer, and nobody else waits for it. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readFileSync, statSync, writeFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { test } from 'node:test'
import { whyNoFuse } from '../../kernel/index.ts'
import {
  CARRIED_BLOBS,
  carriedImage,
  localConfig,
  noSharedFixtures,
  Scratch,
  SHARED_FIXTURES,
  type TestDaemon,
} from '../testing.ts'

const skip = whyNoFuse() ?? false
const IMAGE = carriedImage('v6-tar-none-c64k')
const GET = 'GET /api/v2/daemon HTTP/1.1\r\n\r\n'

/** A client that speaks bytes. */
class RawClient {
  readonly socket: Socket
  text = ''
  isClosed = false
  #news = Promise.withResolvers<void>()

  private constructor(socket: Socket) {
    this.socket = socket
    const tell = (): void => {
      this.#news.resolve()
      this.#news = Promise.withResolvers<void>()
    }
    socket
      .on('error', () => undefined)
      .on('data', (part: Buffer) => {
        this.text += part.toString()
        tell()
      })
    socket.on('end', tell).on('close', () => {
      this.isClosed = true
      tell()
    })
  }

  static async connect(path: string): Promise<RawClient> {
    const socket = connect({ path, allowHalfOpen: true })
    const client = new RawClient(socket)
    await once(socket, 'connect')
    return client
  }

  /** Waits until so much was answered; fails when the connection ends before. */
  async until(wanted: RegExp): Promise<string> {
    while (!wanted.test(this.text)) {
      assert.ok(!this.isClosed, `closed after ${JSON.stringify(this.text.slice(0, 400))}`)
      await this.#news.promise
    }
    return this.text
  }
}

async function isWell(daemon: TestDaemon): Promise<void> {
  assert.equal((await daemon.json('/api/v1/daemon'))['state'], 'RUNNING')
}

/** What the original answers to odd bytes, and ours does not, on purpose. */
const OTHERWISE: ReadonlyMap<string, RegExp> = new Map([
  // A library reads requests here, which takes longer lines and chunked bodies as the standard has them …
  ['request line of 1100 bytes', /^HTTP\/1\.1 404 \r\n/],
  ['header of 1100 bytes', /^HTTP\/1\.1 200 \r\n/],
  ['chunked body', /^HTTP\/1\.1 400 \r\n.*ParseBody\(Error\(\\"expected value\\", line: 1, column: 1\)\)/s],
  // … and tells faults in less detail.
  ['no version', /^HTTP\/1\.1 400 \r\n.*Unsupported HTTP version/s],
  ['garbage', /^HTTP\/1\.1 400 \r\n.*Unsupported HTTP method/s],
  ['header without colon', /^HTTP\/1\.1 400 \r\n.*Header is incorrectly formatted/s],
  ['negative length', /^HTTP\/1\.1 400 \r\n.*Invalid value\. Key:Content-Length/s],
  ['expect continue', /^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 204 \r\n/],
  // The original fails by mistake.
  ['bare newline', /^HTTP\/1\.1 400 \r\n/],
])

test('bytes that were recorded with the original get its answers', {
  skip: skip || noSharedFixtures,
  timeout: 180_000,
}, async () => {
  await using scratch = new Scratch()
  const daemon = await scratch.nydusd([])
  const { exchanges } = JSON.parse(readFileSync(join(SHARED_FIXTURES, 'api/protocol.json'), 'utf8')) as {
    exchanges: Array<{ name: string; request_bytes: string; response_bytes: string }>
  }
  const sent = new Map([
    ['request line of 1100 bytes', `GET /${'a'.repeat(1090)} HTTP/1.1\r\n\r\n`],
    ['header of 1100 bytes', `GET /api/v2/daemon HTTP/1.1\r\nX: ${'a'.repeat(1100)}\r\n\r\n`],
  ])
  const steady = (text: string): string =>
    text.replaceAll(/"version":\{[^}]*\}/g, '"version":{}').replace(/(?<=Content-Length: )288(?=[^]*"version")/, 'N')
  for (const { name, request_bytes: bytes, response_bytes: wanted } of exchanges) {
    const client = await RawClient.connect(daemon.socket)
    client.socket.write(sent.get(name) ?? bytes)
    const other = OTHERWISE.get(name)
    if (other !== undefined) await client.until(other)
    else {
      await client.until(wanted.includes('"version"') ? /"backend_collection"/ : new RegExp(escaped(wanted)))
      if (wanted.includes('"version"'))
        assert.equal(withoutLength(steady(client.text)), withoutLength(steady(wanted)), name)
    }
    client.socket.destroy()
  }
  await isWell(daemon)
})

function escaped(text: string): string {
  return `^${text.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&')}$`
}

function withoutLength(text: string): string {
  return text.replace(/Content-Length: \w+/, 'Content-Length: N')
}

test('a hundred clients at once, three calls each on one connection', { skip, timeout: 180_000 }, async () => {
  await using scratch = new Scratch()
  const daemon = await scratch.nydusd([])
  const clients = await Promise.all(Array.from({ length: 100 }, () => RawClient.connect(daemon.socket)))
  for (const client of clients) client.socket.write(GET.repeat(3))
  for (const client of clients) await client.until(/(?:"backend_collection":null\}[^]*){3}/)
  assert.ok(
    clients.every(({ isClosed }) => !isClosed),
    'idle connections stay',
  )
  const more = await Promise.all(Array.from({ length: 157 }, () => RawClient.connect(daemon.socket)))
  const refused = more.at(-1)
  assert.ok(refused)
  await refused.until(/^HTTP\/1\.1 503 \r\n[^]*\{ "error": "Too many open connections" \}$/)
  clients[0]?.socket.write(GET)
  await clients[0]?.until(/(?:"backend_collection":null\}[^]*){4}/)
  for (const { socket } of [...clients, ...more]) socket.destroy()
})

test('what is sent in one go is done in order', { skip, timeout: 180_000 }, async () => {
  await using scratch = new Scratch()
  const daemon = await scratch.nydusd([])
  const config = localConfig(CARRIED_BLOBS, scratch.cache)
  const body = JSON.stringify({ source: IMAGE.bootstrap, fs_type: 'rafs', config })
  const length = `Content-Length: ${Buffer.byteLength(body)}`
  const client = await RawClient.connect(daemon.socket)
  client.socket.write(
    `POST /api/v1/mount?mountpoint=/x HTTP/1.1\r\n${length}\r\n\r\n${body}GET /api/v1/daemon HTTP/1.1\r\n\r\nDELETE /api/v1/mount?mountpoint=/x HTTP/1.1\r\n\r\nGET /api/v1/daemon HTTP/1.1\r\n\r\n`,
  )
  const text = await client.until(/(?:"backend_collection"[^]*){2}/)
  assert.deepEqual(
    [...text.matchAll(/HTTP\/1\.1 (\d+) /g)].map(([, status]) => status),
    ['204', '200', '204', '200'],
  )
  assert.match(text, /"mountpoint":"\/x"[^]*"backend_collection":\{\}\}$/)
  client.socket.destroy()
})

test('slow, endless and broken requests hold up nobody', { skip, timeout: 180_000 }, async () => {
  await using scratch = new Scratch()
  const daemon = await scratch.nydusd([])
  const slow = await RawClient.connect(daemon.socket)
  const level = '{"log_level":"warn"}'
  slow.socket.write(`PUT /api/v1/daemon HTTP/1.1\r\nContent-Length: ${level.length}\r\n\r\n`)
  const cut = await RawClient.connect(daemon.socket)
  cut.socket.write('PUT /api/v1/daemon HTTP/1.1\r\nContent-Length: 100\r\n\r\n{"log')
  for (const letter of level) {
    slow.socket.write(letter)
    await isWell(daemon)
  }
  await slow.until(/^HTTP\/1\.1 204 /)
  cut.socket.destroy()
  // More than the limit, told or not: an answer, though the sender goes on.
  for (const headers of ['Content-Length: 20000000', 'Transfer-Encoding: chunked']) {
    const huge = await RawClient.connect(daemon.socket)
    huge.socket.write(`PUT /api/v1/daemon HTTP/1.1\r\n${headers}\r\n\r\n`)
    const isChunked = headers.startsWith('T')
    for (let part = 0; part < 40; part++)
      huge.socket.write(isChunked ? `10000\r\n${' '.repeat(65_536)}\r\n` : ' '.repeat(65_536))
    await huge.until(/^HTTP\/1\.1 400 \r\n.*is larger than the limit of 51200 allowed by server\./s)
    huge.socket.destroy()
  }
  const half = await RawClient.connect(daemon.socket)
  half.socket.end('GET /api/v1/daemon HTTP/1.1\r\n\r\n')
  await half.until(/"state":"RUNNING"/)
  for (const bytes of [
    'CONNECT x HTTP/1.1\r\n\r\n',
    'GET /api/v1/daemon HTTP/1.1\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n',
    '\x16\x03\x01\x02\x00\x01',
    'GET // HTTP/1.1\r\n\r\n',
  ]) {
    const odd = await RawClient.connect(daemon.socket)
    odd.socket.end(bytes)
    await Promise.race([odd.until(/^HTTP/), once(odd.socket, 'end')])
    odd.socket.destroy()
  }
  await isWell(daemon)
})

test('a client that asks for the end and hangs up gets it all the same', { skip, timeout: 180_000 }, async () => {
  await using scratch = new Scratch()
  const daemon = await scratch.nydusd([])
  const client = await RawClient.connect(daemon.socket)
  client.socket.write('PUT /api/v1/daemon/exit HTTP/1.1\r\n\r\n', () => client.socket.destroy())
  assert.equal(await daemon.ended(), 0)
})

test('the socket is its owner’s, and its path may have 107 bytes', { skip, timeout: 180_000 }, async () => {
  await using scratch = new Scratch()
  const longest = join(scratch.path, 's'.repeat(107 - Buffer.byteLength(scratch.path) - 1))
  const daemon = await scratch.nydusd(['--log-level', 'error'], {}, longest)
  assert.equal(statSync(longest).mode & 0o777, 0o600)
  await isWell(daemon)
  assert.equal(await daemon.stop(), 0)
  assert.equal(statSync(longest, { throwIfNoEntry: false }), undefined)
  writeFileSync(join(scratch.path, 'kept'), '')
  await assert.rejects(scratch.nydusd([], {}, `${longest}s`), /the path has 108 bytes, and a socket's has at most 107/)
  await assert.rejects(scratch.nydusd([], {}, join(scratch.path, 'kept')), /there is a file that is no socket/)
})
