import assert from 'node:assert/strict'
import { readFile, rm } from 'node:fs/promises'
import { createServer as createTlsServer } from 'node:https'
import { connect, createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { test } from 'node:test'
import { openAgent, openProxyAgent } from './agents.ts'
import type { PlainHttp } from './endpoint.ts'
import { makeAuthority, skipWithoutOpenssl as skip } from './test-authority/index.ts'
import { blobOf, pattern, temporaryFolder, testClient, testRegistry } from './testing.ts'
import { RegistryClient } from './client.ts'
import { anonymous, fromPassword } from './credentials.ts'
import { RegistryError } from './errors.ts'

const content = pattern(200_000)

interface Authority {
  readonly ca: string
  readonly tls: { readonly key: string; readonly cert: string }
  readonly client: { readonly key: string; readonly cert: string }
}

async function authority(): Promise<Authority> {
  const folder = await temporaryFolder()
  makeAuthority(folder)
  const text = (name: string): Promise<string> => readFile(join(folder, name), 'utf8')
  const pair = async (name: string): Promise<Authority['tls']> => ({
    key: await text(`${name}.key`),
    cert: await text(`${name}.pem`),
  })
  const made = { ca: await text('ca.pem'), tls: await pair('server'), client: await pair('client') }
  await rm(folder, { recursive: true })
  return made
}

test('HTTPS: with the CA, without it, with verification off', { skip }, async () => {
  const own = await authority()
  await using registry = await testRegistry({ tls: own.tls })
  const blob = blobOf(content)
  await using one = testClient(registry.server.host, { plainHttp: 'never', ca: own.ca })
  await one.repository.uploadBlob(blob)
  const into = Buffer.alloc(1000)
  await one.repository.readRange(blob.digest, 500, into)
  assert.deepEqual(into, content.subarray(500, 1500))
  await using lax = testClient(registry.server.host, { plainHttp: 'never', skipVerify: true })
  assert.equal(await lax.repository.blobSize(blob.digest), content.length)
  for (const plainHttp of ['never', 'localhost', 'fallback'] as const) {
    await using strict = testClient(registry.server.host, { plainHttp })
    await assert.rejects(strict.repository.blobSize(blob.digest), { code: 'UNTRUSTED' })
  }
  const other = await authority()
  await using wrong = testClient(registry.server.host, { plainHttp: 'never', ca: other.ca })
  await assert.rejects(wrong.repository.readRange(blob.digest, 0, into), { code: 'UNTRUSTED' })
})

test('a registry that wants to know its clients is shown the certificate', { skip }, async () => {
  const own = await authority()
  const server = createTlsServer({ ...own.tls, ca: own.ca, requestCert: true }, (_request, response) => {
    response.setHeader('content-type', 'application/json')
    response.end(JSON.stringify({ name: 'test/image', tags: ['seen'] }))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const host = `127.0.0.1:${(server.address() as AddressInfo).port}`
  const options = { plainHttp: 'never', ca: own.ca, retry: { attempts: 1 } } as const
  try {
    await using known = testClient(host, { ...options, clientCertificate: own.client })
    assert.deepEqual(await known.repository.tags(), ['seen'])
    await using unknown = testClient(host, options)
    await assert.rejects(unknown.repository.tags(), RegistryError)
  } finally {
    server.closeAllConnections()
    server.close()
  }
})

test('a CA that is none is refused at once', () => {
  for (const ca of ['', 'nonsense', '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----']) {
    assert.throws(() => new RegistryClient({ credentials: anonymous(), ca }), { code: 'BAD_CONFIG' })
  }
})

test('plain HTTP: found on localhost, not with "never"', async () => {
  await using registry = await testRegistry()
  const outcomes: Record<PlainHttp, boolean> = { never: false, localhost: true, fallback: true, always: true }
  for (const [plainHttp, works] of Object.entries(outcomes) as [PlainHttp, boolean][]) {
    await using one = testClient(registry.server.host, { plainHttp, retry: { attempts: 1 } })
    const both = Promise.all([
      one.repository.uploadBlob(blobOf(content)),
      one.repository.uploadBlob(blobOf(pattern(10))),
    ])
    if (works) await both
    else await assert.rejects(both, { code: 'UNREACHABLE' })
  }
  await using strict = testClient(registry.server.host, { plainHttp: 'never' })
  await assert.rejects(strict.repository.blobSize(blobOf(content).digest), /seems to speak no TLS/)
})

test('nobody there, and somebody who does not speak HTTP', async () => {
  const mute = createServer((socket) => socket.end('220 smtp ready\r\n'))
  await new Promise<void>((resolve) => mute.listen(0, '127.0.0.1', resolve))
  const { port } = mute.address() as AddressInfo
  await using one = testClient(`127.0.0.1:${port}`)
  const refused = assert.rejects(one.repository.tags(), { code: 'BAD_RESPONSE' })
  await refused.finally(() => mute.close())
  await assert.rejects(one.repository.tags(), { code: 'UNREACHABLE', message: /ECONNREFUSED/ })
})

test('a registry with TLS cannot talk us into sending the password to a token server without', { skip }, async () => {
  const own = await authority()
  await using registry = await testRegistry({ tls: own.tls })
  const challenge = { 'www-authenticate': 'Bearer realm="http://tokens.invalid/token",service="x"' }
  registry.server.fail({ times: 5, fault: { kind: 'status', status: 401, headers: challenge } })
  await using one = testClient(registry.server.host, {
    plainHttp: 'never',
    ca: own.ca,
    credentials: fromPassword('me', 'hush'),
  })
  await assert.rejects(one.repository.tags(), {
    code: 'UNAUTHORIZED',
    message: /tokens\.invalid would get the password without TLS/,
  })
})

test('neither a proxy nor who is behind it is offered HTTP/2, which no program of ours has', { skip }, async () => {
  const own = await authority()
  const offered: string[][] = []
  const ALPNCallback = ({ protocols }: { protocols: string[] }): string => {
    offered.push(protocols)
    return 'http/1.1'
  }
  const origin = createTlsServer({ ...own.tls, ALPNCallback }, (_request, response) => response.end('here'))
  const proxy = createTlsServer({ ...own.tls, ALPNCallback }).on('connect', ({ url = '' }, socket) => {
    const there = connect(Number(url.split(':')[1]), '127.0.0.1', () => {
      socket.write('HTTP/1.1 200 OK\r\n\r\n')
      there.pipe(socket).pipe(there)
    })
    for (const one of [there, socket]) one.on('error', () => void (there.destroy(), socket.destroy()))
  })
  const ports: number[] = []
  for (const server of [origin, proxy]) {
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    ports.push((server.address() as AddressInfo).port)
  }
  const limits = { connectionsPerHost: 1, connectTimeoutMs: 30_000, headersTimeoutMs: 30_000, bodyTimeoutMs: 30_000 }
  const options = { ...limits, ca: own.ca, skipVerify: false }
  const agents = [await openAgent(options), await openProxyAgent(`https://127.0.0.1:${ports[1]}`, options)]
  try {
    for (const agent of agents) {
      const asked = { origin: `https://127.0.0.1:${ports[0]}`, path: '/', method: 'GET' } as const
      assert.equal(await (await agent.request(asked)).body.text(), 'here')
    }
    assert.deepEqual(offered, [['http/1.1'], ['http/1.1'], ['http/1.1']])
  } finally {
    await Promise.all(agents.map((agent) => agent.destroy()))
    for (const server of [proxy, origin]) {
      server.closeAllConnections()
      server.close()
    }
  }
})
