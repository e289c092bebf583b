import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readFile, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { test } from 'node:test'
import type { PlainHttp } from './endpoint.ts'
import { blobOf, pattern, temporaryFolder, testClient, testRegistry } from './testing.ts'
import { RegistryClient } from './client.ts'
import { anonymous, fromPassword } from './credentials.ts'

const OPENSSL = 'openssl'
const skip = spawnSync(OPENSSL, ['version']).error === undefined ? false : 'openssl is not installed'
const content = pattern(200_000)

interface Authority {
  readonly ca: string
  readonly tls: { readonly key: string; readonly cert: string }
  [Symbol.asyncDispose](): Promise<void>
}

/** A CA and a certificate of it for 127.0.0.1. */
async function authority(): Promise<Authority> {
  const folder = await temporaryFolder()
  const at = (name: string): string => join(folder, name)
  const openssl = (...args: string[]): void => {
    const { status, stderr } = spawnSync(OPENSSL, args, { encoding: 'utf8' })
    assert.equal(status, 0, stderr)
  }
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes']
  openssl(
    'req',
    '-x509',
    ...newKey,
    '-keyout',
    at('ca.key'),
    '-out',
    at('ca.pem'),
    '-subj',
    '/CN=test CA',
    '-days',
    '2',
  )
  openssl('req', ...newKey, '-keyout', at('key.pem'), '-out', at('csr.pem'), '-subj', '/CN=localhost')
  await writeFile(at('ext'), 'subjectAltName=IP:127.0.0.1\n')
  openssl(
    'x509',
    '-req',
    '-in',
    at('csr.pem'),
    '-CA',
    at('ca.pem'),
    '-CAkey',
    at('ca.key'),
    '-CAcreateserial',
    '-extfile',
    at('ext'),
    '-out',
    at('cert.pem'),
    '-days',
    '1',
  )
  const text = (name: string): Promise<string> => readFile(at(name), 'utf8')
  return {
    ca: await text('ca.pem'),
    tls: { key: await text('key.pem'), cert: await text('cert.pem') },
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }),
  }
}

test('HTTPS: with the CA, without it, with verification off', { skip }, async () => {
  await using own = await authority()
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
  await using other = await authority()
  await using wrong = testClient(registry.server.host, { plainHttp: 'never', ca: other.ca })
  await assert.rejects(wrong.repository.readRange(blob.digest, 0, into), { code: 'UNTRUSTED' })
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
  await using own = await authority()
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
