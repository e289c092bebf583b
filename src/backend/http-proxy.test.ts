import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer, type RequestListener, type Server } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import { type AddressInfo, createServer as createTcpServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { makeAuthority, skipWithoutOpenssl } from '../registry/test-authority/index.ts'
import type { Backend } from './backend.ts'
import { backendConformance, patience, pattern, sha256, type Subject } from './conformance.ts'
import { type HttpProxyOptions, httpProxyBackend } from './http-proxy.ts'

const OPTIONS: HttpProxyOptions = {
  addr: '',
  path: '',
  skipVerify: false,
  ca: '',
  timeoutMs: 60_000,
  connectTimeoutMs: 60_000,
}

async function listening(listener: RequestListener, at: string | number): Promise<Server> {
  const server = createServer(listener)
  server.listen(at)
  await once(server, 'listening')
  return server
}

async function stopped(server: Server): Promise<void> {
  server.closeAllConnections()
  server.close()
  await once(server, 'close')
}

function rangeOf(header = 'bytes=0-'): readonly [from: number, end: number | undefined] {
  const [from = '0', last = ''] = header.slice('bytes='.length).split('-')
  return [Number(from), last === '' ? undefined : Number(last) + 1]
}

/** A server of blobs by their ids, below a path, that keeps to the standard. */
async function subject(): Promise<Subject> {
  const blobs = new Map<string, Buffer>()
  const server = await listening((request, response) => {
    const blob = blobs.get(request.url ?? '')
    const [from, end] = rangeOf(request.headers.range)
    if (blob === undefined) response.writeHead(404)
    else if (request.method === 'HEAD') response.writeHead(200, { 'Content-Length': blob.length })
    else if (from >= blob.length) response.writeHead(416)
    else {
      const part = blob.subarray(from, end)
      const range = `bytes ${from}-${from + part.length - 1}/${blob.length}`
      response.writeHead(206, { 'Content-Length': part.length, 'Content-Range': range })
      response.write(part)
    }
    response.end()
  }, 0)
  const { port } = server.address() as AddressInfo
  const backend = httpProxyBackend({ ...OPTIONS, addr: `http://127.0.0.1:${port}`, path: '/blobs' })
  return {
    backend,
    async put(bytes) {
      blobs.set(`/blobs/${sha256(bytes)}`, Buffer.from(bytes))
      return sha256(bytes)
    },
    async [Symbol.asyncDispose]() {
      await backend.close()
      await stopped(server)
    },
  }
}

backendConformance('http-proxy', subject)

test('one slash comes between address, path and id, however they are written; a login is sent', async () => {
  const asked: string[] = []
  const server = await listening((request, response) => {
    asked.push(`${request.headers.authorization ?? ''} ${request.url}`)
    response.writeHead(200, { 'Content-Length': 5 }).end()
  }, 0)
  const { port } = server.address() as AddressInfo
  const places = [
    ['', '', '', '/id'],
    ['', '/', '/', '/id'],
    ['', '', 'blobs', '/blobs/id'],
    ['me:p%40ss@', '/', '/a/blobs/', '/a/blobs/id'],
  ] as const
  for (const [login, end, path] of places) {
    const backend = httpProxyBackend({ ...OPTIONS, addr: `http://${login}127.0.0.1:${port}${end}`, path })
    assert.equal(await (await backend.open('id')).size(patience().signal), 5)
    await backend.close()
  }
  await stopped(server)
  const basic = `Basic ${Buffer.from('me:p@ss').toString('base64')}`
  assert.deepEqual(
    asked,
    places.map(([login, , , url]) => `${login === '' ? '' : basic} ${url}`),
  )
  for (const addr of ['http://', 'http://me:s3cret%zz@host', 'http://a b/'])
    assert.throws(
      () => httpProxyBackend({ ...OPTIONS, addr }),
      (error: Error) => 'code' in error && error.code === 'BAD_OPTION' && !`${error.stack}`.includes('s3cret'),
    )
})

test('a connection that does not come about ends after its own time, at a server that was reached too', async () => {
  const silent = createTcpServer()
  silent.listen(0, '127.0.0.1')
  await once(silent, 'listening')
  const { port } = silent.address() as AddressInfo
  const addr = `https://127.0.0.1:${port}`
  const backend = httpProxyBackend({ ...OPTIONS, addr, timeoutMs: 0, connectTimeoutMs: 50 })
  await assert.rejects((await backend.open('id')).size(patience().signal), {
    code: 'TIMEOUT',
    message: /no answer from https:.* in time/,
    retryable: true,
  })
  await backend.close()
  silent.close()
})

test('a connection that is there has its time, also for requests that waited for it', async () => {
  await using proxy = await behindSocket(
    (_request, response) => {
      setTimeout(() => response.writeHead(200, { 'Content-Length': 5 }).end(), 1_500)
    },
    { connectTimeoutMs: 1_000 },
  )
  const reader = await proxy.backend.open('any')
  const sizes = Array.from({ length: 3 }, () => reader.size(patience().signal))
  assert.deepEqual(await Promise.all(sizes), [5, 5, 5])
  assert.equal(await reader.size(patience().signal), 5)
})

test('own certificates are trusted when they are given, and only then', { skip: skipWithoutOpenssl }, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'http-proxy-'))
  makeAuthority(folder)
  const read = (name: string): string => readFileSync(join(folder, name), 'utf8')
  const [ca, key, cert] = [read('ca.pem'), read('server.key'), read('server.pem')]
  const server = createTlsServer({ key, cert }, (_request, response) => {
    response.writeHead(200, { 'Content-Length': 5 }).end()
  })
  rmSync(folder, { recursive: true })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const addr = `https://127.0.0.1:${(server.address() as AddressInfo).port}`
  const sizeWith = async (more: Partial<HttpProxyOptions>): Promise<number> => {
    const backend = httpProxyBackend({ ...OPTIONS, addr, ...more })
    try {
      return await (await backend.open('id')).size(patience().signal)
    } finally {
      await backend.close()
    }
  }
  try {
    await assert.rejects(sizeWith({}), { code: 'UNTRUSTED', retryable: false })
    assert.equal(await sizeWith({ ca }), 5)
    assert.equal(await sizeWith({ skipVerify: true }), 5)
  } finally {
    server.closeAllConnections()
    server.close()
  }
})

/** A server on a Unix socket, and the backend of it. */
async function behindSocket(
  listener: RequestListener,
  options: Partial<HttpProxyOptions> = {},
): Promise<AsyncDisposable & { readonly backend: Backend }> {
  const folder = mkdtempSync(join(tmpdir(), 'http-proxy-'))
  const server = await listening(listener, join(folder, 'proxy.sock'))
  const backend = httpProxyBackend({ ...OPTIONS, addr: join(folder, 'proxy.sock'), ...options })
  return {
    backend,
    async [Symbol.asyncDispose]() {
      await backend.close()
      await stopped(server)
      rmSync(folder, { recursive: true })
    },
  }
}

test('a proxy on a socket that answers 200 without a length, one request at a time, is read', async () => {
  const blob = pattern(300_000)
  let [running, most] = [0, 0]
  await using proxy = await behindSocket((request, response) => {
    most = Math.max(most, ++running)
    const [from, end] = rangeOf(request.headers.range)
    if (request.method === 'HEAD') response.setHeader('Content-Length', blob.length)
    else response.write(blob.subarray(from, end))
    setImmediate(() => {
      running -= 1
      response.end()
    })
  })
  const reader = await proxy.backend.open('any')
  assert.equal(await reader.size(patience().signal), blob.length)
  const reads = [0, 70_000, 5, 200_000].map(async (offset) => {
    const into = Buffer.alloc(70_000)
    await reader.read(offset, into, patience())
    assert.ok(into.equals(blob.subarray(offset, offset + 70_000)))
  })
  await Promise.all(reads)
  assert.equal(most, 1)
})

test('a proxy that sends the whole blob instead of a range, another range, or less, is told apart', async () => {
  const blob = pattern(10_000)
  const answers: RequestListener[] = [
    (_request, response) => response.end(blob),
    (_request, response) => {
      response.write(blob)
      response.end()
    },
    (_request, response) => {
      response.writeHead(206, { 'Content-Range': 'bytes 0-99/10000' })
      response.end(blob.subarray(0, 100))
    },
  ]
  for (const answer of answers) {
    await using proxy = await behindSocket(answer)
    const reader = await proxy.backend.open('any')
    await assert.rejects(reader.read(500, Buffer.alloc(100), patience()), { code: 'BAD_ANSWER' })
  }
  await using short = await behindSocket((_request, response) => response.end('short'))
  const reader = await short.backend.open('any')
  await assert.rejects(reader.read(0, Buffer.alloc(100), patience()), { code: 'TRUNCATED' })
})

test('statuses, silence and a missing socket have their codes', async () => {
  for (const [status, code] of [
    [400, 'BAD_ANSWER'],
    [401, 'UNAUTHORIZED'],
    [404, 'NOT_FOUND'],
    [429, 'RATE_LIMITED'],
    [503, 'SERVER'],
  ] as const) {
    await using proxy = await behindSocket((_request, response) => response.writeHead(status).end())
    const reader = await proxy.backend.open('any')
    await assert.rejects(reader.read(0, Buffer.alloc(1), patience()), { code, status })
  }
  await using silent = await behindSocket(() => undefined, { timeoutMs: 100 })
  await assert.rejects((await silent.backend.open('any')).read(0, Buffer.alloc(1), patience()), { code: 'TIMEOUT' })
  const nowhere = httpProxyBackend({ ...OPTIONS, addr: '/nowhere/proxy.sock' })
  await assert.rejects((await nowhere.open('any')).read(0, Buffer.alloc(1), patience()), { code: 'UNREACHABLE' })
  await nowhere.close()
  assert.throws(() => httpProxyBackend(OPTIONS), { code: 'BAD_OPTION' })
  assert.throws(() => httpProxyBackend({ ...OPTIONS, addr: 'http://[' }), { code: 'BAD_OPTION' })
})
