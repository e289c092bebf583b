import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import type { AddressInfo, Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import type { RegistryServer, RegistryServerOptions } from '../registry/index.ts'
import { digestOf, fromPassword, parseReference, RegistryClient, startRegistry } from '../registry/index.ts'
import type { Backend } from './backend.ts'
import type { Subject } from './conformance.ts'
import { backendConformance, patience, pattern, sha256 } from './conformance.ts'
import type { BackendError } from './errors.ts'
import type { RegistryBackendOptions } from './registry.ts'
import { registryBackend } from './registry.ts'
import { withRetry } from './retry.ts'

const REPO = 'test/image'
const USER = { users: { ann: 'secret' } }
const AUTH = Buffer.from('ann:secret').toString('base64')

interface Setup extends AsyncDisposable {
  readonly server: RegistryServer
  readonly backend: Backend
}

async function setup(
  server: Partial<RegistryServerOptions> = {},
  options: Partial<RegistryBackendOptions> = {},
): Promise<Setup> {
  const root = await mkdtemp(join(tmpdir(), 'backend-'))
  const running = await startRegistry({ root, host: '127.0.0.1', port: 0, ...server })
  const backend = registryBackend({ host: running.host, repo: REPO, scheme: 'http', retryBaseMs: 5, ...options })
  return {
    server: running,
    backend,
    async [Symbol.asyncDispose]() {
      await backend.close()
      await running.close()
      await rm(root, { recursive: true })
    },
  }
}

async function push(server: RegistryServer, bytes: Uint8Array): Promise<string> {
  const client = new RegistryClient({ credentials: fromPassword('ann', 'secret'), plainHttp: 'always' })
  const blob = {
    digest: digestOf(bytes),
    size: bytes.length,
    open: async function* () {
      yield bytes
    },
  }
  await client.repository(parseReference(`${server.host}/${REPO}`)).uploadBlob(blob)
  await client.close()
  server.resetCounters()
  return sha256(bytes)
}

async function subject(): Promise<Subject> {
  const parts = await setup()
  return {
    backend: parts.backend,
    put: (bytes) => push(parts.server, bytes),
    [Symbol.asyncDispose]: () => parts[Symbol.asyncDispose](),
  }
}

const BLOB = pattern(3_000_000)

/** Opens the blob, reads a part, compares it. */
async function readAndCompare(backend: Backend, id: string, offset = 1_000_000, length = 1_500_000): Promise<void> {
  const reader = await backend.open(id)
  const into = Buffer.alloc(length)
  await reader.read(offset, into, patience())
  assert.ok(into.equals(BLOB.subarray(offset, offset + length)))
}

backendConformance('registry', subject)

test('a token that is refused mid-way is renewed, and the read goes on', async () => {
  await using parts = await setup({ auth: { kind: 'bearer', tokenLifeMs: 60_000, ...USER } }, { auth: AUTH })
  const id = await push(parts.server, BLOB)
  const reader = await parts.backend.open(id)
  const into = Buffer.alloc(2_000_000)
  await reader.read(0, into.subarray(0, 10), patience())
  parts.server.fail({ match: { method: 'GET', route: 'blob' }, fault: { kind: 'cut', afterBytes: 700_000 } })
  const expire = (): void => parts.server.expireTokens()
  await reader.read(0, into, { ...patience(), onFilled: expire })
  assert.ok(into.equals(BLOB.subarray(0, into.length)))
  assert.ok(parts.server.counters().token.requests >= 2)
})

test('basic logins work; a wrong one is UNAUTHORIZED, and its secret is not shown', async () => {
  const auth = { kind: 'basic', ...USER } as const
  await using good = await setup({ auth }, { auth: AUTH })
  await readAndCompare(good.backend, await push(good.server, BLOB))
  const wrong = Buffer.from('ann:hidden').toString('base64')
  const bad = registryBackend({ host: good.server.host, repo: REPO, scheme: 'http', auth: wrong })
  await assert.rejects(readAndCompare(bad, sha256(BLOB)), (error: Error & { code: string; status: number }) => {
    assert.deepEqual([error.code, error.status], ['UNAUTHORIZED', 401])
    assert.ok(!error.message.includes('hidden') && !error.message.includes(wrong))
    return true
  })
  await bad.close()
})

test('a login that changes in the configuration is taken up when the old one is refused', async () => {
  let auth = Buffer.from('ann:old').toString('base64')
  await using parts = await setup({ auth: { kind: 'basic', ...USER } }, { auth: () => auth })
  const id = await push(parts.server, BLOB)
  await assert.rejects(readAndCompare(parts.backend, id), { code: 'UNAUTHORIZED' })
  auth = AUTH
  await readAndCompare(parts.backend, id)
})

test('a registry token that is refused gives way to the login, whatever kind the registry wants', async () => {
  for (const auth of [
    { kind: 'bearer', tokenLifeMs: 60_000, ...USER },
    { kind: 'basic', ...USER },
  ] as const) {
    await using parts = await setup({ auth }, { auth: AUTH, registryToken: 'stale' })
    const id = await push(parts.server, BLOB)
    await Promise.all([0, 500_000, 1_000_000].map((offset) => readAndCompare(parts.backend, id, offset)))
    await using alone = await setup({ auth }, { registryToken: 'stale' })
    await assert.rejects(readAndCompare(alone.backend, await push(alone.server, BLOB)), { code: 'UNAUTHORIZED' })
  }
})

test('a newer token counts from the next request on, also for one whose old token is refused meanwhile', async () => {
  const auth = { kind: 'bearer', tokenLifeMs: 60_000, ...USER } as const
  let token = ''
  await using parts = await setup({ auth }, { newToken: () => token })
  const id = await push(parts.server, BLOB)
  const tokenNow = async (): Promise<string> => {
    const url = `http://${parts.server.host}/token?service=x&scope=repository:${REPO}:pull`
    const answer = await fetch(url, { headers: { authorization: `Basic ${AUTH}` } })
    return ((await answer.json()) as { readonly token: string }).token
  }
  token = await tokenNow()
  await readAndCompare(parts.backend, id)
  for (let times = 0; times < 3; times++) {
    parts.server.expireTokens()
    await assert.rejects(readAndCompare(parts.backend, id), { code: 'UNAUTHORIZED' })
    token = await tokenNow()
    await Promise.all([0, 500_000, 1_000_000].map((offset) => readAndCompare(parts.backend, id, offset)))
  }
  assert.equal(parts.server.counters().token.requests, 4 + 3) // ours, and one in vain after each refusal
})

test('a token that is taken back is used no more, also when the login is the one that there was before it', async () => {
  const auth = { kind: 'bearer', tokenLifeMs: 60_000, ...USER } as const
  let token: string | undefined
  await using parts = await setup({ auth }, { auth: () => AUTH, newToken: () => token })
  const id = await push(parts.server, BLOB)
  await readAndCompare(parts.backend, id)
  const url = `http://${parts.server.host}/token?service=x&scope=repository:${REPO}:pull`
  const answer = await fetch(url, { headers: { authorization: `Basic ${AUTH}` } })
  token = ((await answer.json()) as { readonly token: string }).token
  await readAndCompare(parts.backend, id)
  parts.server.expireTokens()
  token = undefined
  parts.server.resetCounters()
  await readAndCompare(parts.backend, id)
  assert.equal(parts.server.counters().token.requests, 1)
})

test('a token that no header can hold is a coded error, without the token, and no matter of proxies', async () => {
  await using parts = await setup({}, { registryToken: 'tok3n\nof two lines' })
  await assert.rejects((await parts.backend.open('1'.repeat(64))).size(patience().signal), (error: BackendError) => {
    assert.deepEqual([error.code, error.retryable], ['BAD_OPTION', false], error.message)
    assert.match(error.message, /a header of the request .*token/)
    assert.doesNotMatch(error.message, /tok3n|proxy|\n/)
    return true
  })
})

test('redirects are followed, remembered, and rewritten as configured', async () => {
  await using store = await setup()
  await using parts = await setup({}, { blobRedirectedHost: '127.0.0.1' })
  const id = await push(parts.server, BLOB)
  await push(store.server, BLOB)
  const to = `http://store.invalid:${store.server.port}{path}`
  parts.server.fail({ match: { route: 'blob' }, fault: { kind: 'redirect', to } })
  await readAndCompare(parts.backend, id)
  await readAndCompare(parts.backend, id, 0, 100)
  assert.equal(parts.server.counters().blob.requests, 1)
  assert.equal(store.server.counters().blob.requests, 2)
})

test('429 with Retry-After is waited out; 5xx is tried again', async () => {
  await using parts = await setup()
  const id = await push(parts.server, BLOB)
  parts.server.fail(
    { match: { route: 'blob' }, fault: { kind: 'status', status: 429, headers: { 'retry-after': '1' } } },
    { match: { route: 'blob' }, fault: { kind: 'status', status: 503 } },
    { match: { route: 'blob' }, fault: { kind: 'reset' } },
  )
  await readAndCompare(parts.backend, id)
  assert.equal(parts.server.counters().blob.requests, 4)
})

test('a server that stays ill is named with its status, and a retry around it adds nothing', async () => {
  await using parts = await setup({}, { retryLimit: 2 })
  const id = await push(parts.server, BLOB)
  parts.server.fail({ times: 100, fault: { kind: 'status', status: 502 } })
  const backend = withRetry(parts.backend, { attempts: 3, baseDelayMs: 1, maxDelayMs: 1 })
  await assert.rejects(readAndCompare(backend, id), { code: 'SERVER', status: 502, attempts: 3, retryable: true })
  assert.equal(parts.server.counters().blob.requests, 3)
})

test('a cut body is resumed: no byte is asked for twice', async () => {
  await using parts = await setup()
  const id = await push(parts.server, BLOB)
  const match = { method: 'GET', route: 'blob' } as const
  parts.server.fail(
    { match, fault: { kind: 'cut', afterBytes: 600_000 } },
    { match, fault: { kind: 'cut', afterBytes: 500_000 } },
  )
  await readAndCompare(parts.backend, id)
  const { requests, bytesOut } = parts.server.counters().blob
  assert.equal(requests, 3)
  // What the dying connection still held was sent again at most.
  assert.ok(bytesOut >= 1_500_000 && bytesOut < 1_500_000 + 2 * 600_000, String(bytesOut))
})

test('a stalled body ends after the time without a byte, and is resumed', async () => {
  await using parts = await setup({}, { timeoutMs: 2_000 })
  const id = await push(parts.server, BLOB)
  parts.server.fail({ match: { route: 'blob' }, fault: { kind: 'stall', afterBytes: 100_000 } })
  await readAndCompare(parts.backend, id)
  assert.equal(parts.server.counters().blob.requests, 2)
})

test('a dead registry is a coded error that names host and blob', async () => {
  const probe = createServer()
  await new Promise<void>((resolve) => probe.listen(0, '127.0.0.1', resolve))
  const host = `127.0.0.1:${(probe.address() as AddressInfo).port}`
  await new Promise((resolve) => probe.close(resolve))
  const backend = registryBackend({ host, repo: REPO, scheme: 'http', retryBaseMs: 1 })
  const id = sha256(BLOB)
  const named = (error: Error & { code: string }): boolean =>
    error.code === 'UNREACHABLE' && error.message.includes(host) && error.message.includes(id)
  await assert.rejects(readAndCompare(backend, id), named)
  await backend.close()
})

test('a registry that takes connections and says nothing ends with TIMEOUT, by its own limit or by the deadline of the reader', async () => {
  const sockets = new Set<Socket>()
  const mute = createServer((socket) => sockets.add(socket))
  await new Promise<void>((resolve) => mute.listen(0, '127.0.0.1', resolve))
  const host = `127.0.0.1:${(mute.address() as AddressInfo).port}`
  const options = { host, repo: REPO, scheme: 'http', retryLimit: 0 }
  const impatient = registryBackend({ ...options, timeoutMs: 200 })
  await assert.rejects(readAndCompare(impatient, sha256(BLOB)), { code: 'TIMEOUT', retryable: true })
  const patient = registryBackend({ ...options, timeoutMs: 0 })
  const reader = await patient.open(sha256(BLOB))
  const named = (error: Error & { code: string }): boolean => error.code === 'TIMEOUT' && error.message.includes(host)
  await assert.rejects(reader.read(0, Buffer.alloc(10), patience(300)), named)
  await Promise.all([impatient.close(), patient.close()])
  for (const socket of sockets) socket.destroy()
  await new Promise((resolve) => mute.close(resolve))
})

test('a server that ignores Range is not read whole', async () => {
  const big = pattern(30_000_000)
  await using parts = await setup({ bytesPerSecond: 40_000_000 }, { retryLimit: 0 })
  const id = await push(parts.server, big)
  const ignoring = { match: { route: 'blob' }, times: 3, fault: { kind: 'ignore-range' } } as const
  parts.server.fail(ignoring)
  const reader = await parts.backend.open(id)
  // Near the start what stands before is thrown away, and the connection is closed after what was wanted.
  const into = Buffer.alloc(1000)
  await reader.read(1000, into, patience())
  assert.ok(into.equals(big.subarray(1000, 2000)))
  await assert.rejects(reader.read(20_000_000, into, patience()), { code: 'BAD_ANSWER', message: /ignores Range/ })
  assert.ok(parts.server.counters().blob.bytesOut < 10_000_000, String(parts.server.counters().blob.bytesOut))
})

test('a lying Content-Range is BAD_ANSWER', async () => {
  await using parts = await setup()
  const id = await push(parts.server, BLOB)
  parts.server.fail({ match: { route: 'blob' }, fault: { kind: 'wrong-range', shiftBytes: 512 } })
  await assert.rejects(readAndCompare(parts.backend, id), { code: 'BAD_ANSWER', retryable: false })
})

test('a mirror is asked first; without it the registry answers', async () => {
  await using mirror = await setup()
  await using parts = await setup({}, { mirrors: [{ url: mirror.server.url }] })
  const id = await push(parts.server, BLOB)
  await readAndCompare(parts.backend, id)
  assert.equal(parts.server.counters().blob.requests, 1)
  await push(mirror.server, BLOB)
  await readAndCompare(parts.backend, id)
  assert.equal(parts.server.counters().blob.requests, 1)
})

test('after wrong bytes no mirror is asked', async () => {
  await using mirror = await setup()
  await using parts = await setup({}, { mirrors: [{ url: mirror.server.url }] })
  const id = await push(parts.server, BLOB)
  await push(mirror.server, BLOB)
  mirror.server.fail({ match: { route: 'blob' }, times: 10, fault: { kind: 'wrong-bytes', at: 3 } })
  const reader = await parts.backend.open(id)
  const into = Buffer.alloc(100)
  await reader.read(0, into, patience())
  assert.notDeepEqual(into, BLOB.subarray(0, 100))
  await reader.read(0, into, { ...patience(), afterWrongBytes: true })
  assert.deepEqual(into, BLOB.subarray(0, 100))
  assert.deepEqual([mirror.server.counters().blob.requests, parts.server.counters().blob.requests], [1, 1])
  await reader.close()
})

test('HTTPS is asked for unless the scheme is http; without verification, or on this machine where no scheme is said, plain HTTP will do', async () => {
  await using parts = await setup()
  const id = await push(parts.server, BLOB)
  const { host } = parts.server
  for (const scheme of ['', 'https']) {
    const strict = registryBackend({ host, repo: REPO, scheme, retryLimit: 0 })
    await assert.rejects(readAndCompare(strict, id), { code: 'UNREACHABLE' })
    await strict.close()
  }
  for (const options of [{ scheme: 'https', skipVerify: true }, {}]) {
    const lax = registryBackend({ host, repo: REPO, retryLimit: 0, ...options })
    await readAndCompare(lax, id)
    await lax.close()
  }
})

test('options that cannot be used are refused before anything is mounted', () => {
  const good = { host: 'registry', repo: 'a/b' }
  for (const bad of [
    { host: '' },
    { host: 'a/../b' },
    { host: 'user@host' },
    { repo: '' },
    { repo: '../x' },
    { repo: 'a/b:tag' },
    { auth: 'no base64!' },
    { auth: 'bm9jb2xvbg==' },
    { ca: 'not PEM' },
    { blobUrlScheme: 'ftp' },
    { mirrors: [{ url: 'mirror' }] },
  ])
    assert.throws(
      () => registryBackend({ ...good, ...bad }),
      { name: 'BackendError', code: 'BAD_OPTION' },
      JSON.stringify(bad),
    )
})
