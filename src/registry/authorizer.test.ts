import assert from 'node:assert/strict'
import { inspect } from 'node:util'
import { test } from 'node:test'
import { ANONYMOUS, fromPassword, fromRegistryToken } from './credentials.ts'
import type { CredentialSource } from './credentials.ts'
import { Secret } from './secret.ts'
import type { RegistryServer } from './server/registry-server.ts'
import type { ServerAuth } from './server/server-auth.ts'
import { hurriedClock, pattern, pushImage, seed as seedPlain, testClient, testRegistry } from './testing.ts'
import type { Digest } from './digest.ts'
import { blobOf } from './testing.ts'

const PASSWORD = 'hush-hush-1234'
const users = { me: PASSWORD }
const login = fromPassword('me', PASSWORD)
const content = pattern(100_000)
const bearer = (tokenLifeMs: number, more: Partial<Extract<ServerAuth, { kind: 'bearer' }>> = {}): ServerAuth => ({
  kind: 'bearer',
  users,
  tokenLifeMs,
  ...more,
})

async function seed(server: RegistryServer): Promise<Digest> {
  await using one = testClient(server.host, { credentials: login })
  const { digest } = await one.repository.uploadBlob(blobOf(content))
  server.resetCounters()
  return digest
}

test('basic: one refusal, then every request carries the login', async () => {
  await using registry = await testRegistry({ auth: { kind: 'basic', users } })
  const digest = await seed(registry.server)
  await using one = testClient(registry.server.host, { credentials: login })
  await Promise.all(Array.from({ length: 10 }, () => one.repository.readRange(digest, 0, Buffer.alloc(10))))
  assert.equal(registry.server.counters().blob.requests, 11)
})

test('a wrong password and no password are UNAUTHORIZED, asked once, and no message shows the secret', async () => {
  for (const auth of [{ kind: 'basic', users } as const, bearer(60_000)]) {
    await using registry = await testRegistry({ auth })
    const digest = await seed(registry.server)
    for (const credentials of [fromPassword('me', 'wrong-secret-77'), async () => ANONYMOUS]) {
      await using one = testClient(registry.server.host, { credentials })
      await assert.rejects(one.repository.readRange(digest, 0, Buffer.alloc(10)), (error: { code: string }) => {
        assert.equal(error.code, 'UNAUTHORIZED')
        assert.doesNotMatch(inspect(error, { depth: 20, showHidden: true }), /wrong-secret-77|d3Jvbmct|bWU6d3Jvbmct/)
        return true
      })
    }
  }
})

test('bearer: one token however many wait, none for what the first covers', async () => {
  await using registry = await testRegistry({ auth: bearer(60_000) })
  const digest = await seed(registry.server)
  await using one = testClient(registry.server.host, { credentials: login })
  await Promise.all(Array.from({ length: 20 }, () => one.repository.readRange(digest, 0, Buffer.alloc(10))))
  assert.equal(registry.server.counters().token.requests, 1)
  assert.equal(registry.server.counters().blob.requests, 21)
})

test('bearer: a token refused in mid-use is replaced once for all that wait', async () => {
  await using registry = await testRegistry({ auth: bearer(60_000) })
  const digest = await seed(registry.server)
  await using one = testClient(registry.server.host, { credentials: login })
  const read = (): Promise<void> => one.repository.readRange(digest, 0, Buffer.alloc(10))
  await read()
  registry.server.expireTokens()
  await Promise.all(Array.from({ length: 8 }, read))
  assert.equal(registry.server.counters().token.requests, 2)
})

test('bearer: a token is renewed after three quarters of its life, in the background, while the old one still holds', async () => {
  await using registry = await testRegistry({ auth: bearer(100_000) })
  const digest = await seed(registry.server)
  const clock = hurriedClock()
  await using one = testClient(registry.server.host, { credentials: login, clock })
  const read = (): Promise<void> => one.repository.readRange(digest, 0, Buffer.alloc(10))
  await read()
  clock.advance(70_000)
  await read()
  assert.equal(registry.server.counters().token.requests, 1)
  clock.advance(8_000)
  registry.server.fail({ match: { route: 'token' }, fault: { kind: 'status', status: 403 } })
  await Promise.all([read(), read(), read()])
  while (registry.server.counters().token.requests < 2) await new Promise((resolve) => setTimeout(resolve, 5))
  await read()
  assert.equal(registry.server.counters().token.requests, 2, 'a failed renewal is not repeated at once')
  clock.advance(6_000)
  await read()
  while (registry.server.counters().token.requests < 3) await new Promise((resolve) => setTimeout(resolve, 5))
  assert.equal(registry.server.counters().blob.requests, 8, '1 refused + 7 reads')
})

test('bearer: a day of tokens that hold five minutes costs one refusal, the first, and no more tokens than renewals', async () => {
  const clock = hurriedClock()
  const tokenLifeMs = 5 * 60_000
  await using registry = await testRegistry({ auth: bearer(tokenLifeMs), now: () => clock.now() })
  const digest = await seed(registry.server)
  await using one = testClient(registry.server.host, { credentials: login, clock })
  const minutes = 24 * 60
  for (let minute = 0; minute < minutes; minute += 1) {
    await Promise.all([0, 1].map((at) => one.repository.readRange(digest, at, Buffer.alloc(10))))
    clock.advance(60_000)
  }
  const { token, blob } = registry.server.counters()
  assert.equal(blob.requests - 2 * minutes, 1, 'refused')
  assert.ok(token.requests >= minutes / 5, `${token.requests} tokens`)
  assert.ok(token.requests <= 1 + minutes / 4, `${token.requests} tokens, renewed after four minutes at the earliest`)
})

test('bearer: an expired token is never sent', async () => {
  await using registry = await testRegistry({ auth: bearer(100_000) })
  const digest = await seed(registry.server)
  const clock = hurriedClock()
  await using one = testClient(registry.server.host, { credentials: login, clock })
  await one.repository.readRange(digest, 0, Buffer.alloc(10))
  clock.advance(100_001)
  await one.repository.readRange(digest, 0, Buffer.alloc(10))
  assert.deepEqual([registry.server.counters().token.requests, registry.server.counters().blob.requests], [2, 3])
})

test('bearer: the token server is asked again after 5xx, and its nonsense is refused', async () => {
  await using registry = await testRegistry({ auth: bearer(60_000) })
  const digest = await seed(registry.server)
  await using one = testClient(registry.server.host, { credentials: login })
  registry.server.fail({ match: { route: 'token' }, times: 2, fault: { kind: 'status', status: 503 } })
  await one.repository.readRange(digest, 0, Buffer.alloc(10))
  assert.equal(registry.server.counters().token.requests, 3)
  for (const body of ['{}', 'no json', '{"token":"a\\r\\nb: c"}', '{"token":""}']) {
    await using other = testClient(registry.server.host, { credentials: login })
    registry.server.fail({ match: { route: 'token' }, fault: { kind: 'status', status: 200, body } })
    await assert.rejects(other.repository.readRange(digest, 0, Buffer.alloc(10)), { code: 'BAD_RESPONSE' })
  }
})

test('identity tokens go by POST, and by GET where there is no POST', async () => {
  await using registry = await testRegistry({ auth: bearer(60_000, { identityTokens: ['refresh-me'] }) })
  const digest = await seed(registry.server)
  const credentials: CredentialSource = async () => ({
    kind: 'identity-token',
    username: 'me',
    token: new Secret('refresh-me'),
  })
  await using one = testClient(registry.server.host, { credentials })
  await one.repository.readRange(digest, 0, Buffer.alloc(10))
  const byGet: CredentialSource = async () => ({ kind: 'identity-token', username: 'me', token: new Secret(PASSWORD) })
  await using other = testClient(registry.server.host, { credentials: byGet })
  registry.server.fail({ match: { route: 'token', method: 'POST' }, fault: { kind: 'status', status: 405 } })
  await other.repository.readRange(digest, 0, Buffer.alloc(10))
  assert.equal(registry.server.counters().token.requests, 3)
})

test('a registry token is sent at once, and when it is refused the challenge counts', async () => {
  await using registry = await testRegistry({ auth: bearer(60_000, { anonymousPull: true }) })
  const digest = await seed(registry.server)
  await using one = testClient(registry.server.host, { credentials: fromRegistryToken('Bearer stale') })
  await one.repository.readRange(digest, 0, Buffer.alloc(10))
  assert.deepEqual([registry.server.counters().blob.requests, registry.server.counters().token.requests], [2, 1])
})

test('everybody may read where the registry says so, but not write', async () => {
  await using registry = await testRegistry({ auth: bearer(60_000, { anonymousPull: true }) })
  const digest = await seed(registry.server)
  await using one = testClient(registry.server.host)
  await one.repository.readRange(digest, 0, Buffer.alloc(10))
  await assert.rejects(one.repository.uploadBlob(blobOf(pattern(10, 3))), { code: 'UNAUTHORIZED' })
})

test('pushing, mounting and deleting ask for their own scopes', async () => {
  await using registry = await testRegistry({ auth: bearer(60_000) })
  const digest = await seed(registry.server)
  await using other = testClient(registry.server.host, { credentials: login }, { name: 'other/place' })
  assert.equal(
    (await other.repository.uploadBlob(blobOf(content), { mountFrom: ['no/where', 'test/image'] })).outcome,
    'mounted',
  )
  assert.equal(await other.repository.mountBlob(digest, 'no/where'), false)
  const image = await pushImage(other.repository, 'v1')
  await other.repository.deleteManifest(image.digest)
  await assert.rejects(other.repository.resolve('v1'), { code: 'NOT_FOUND' })
})

test('a login that changed in the meantime counts', async () => {
  await using registry = await testRegistry({ auth: { kind: 'basic', users } })
  const digest = await seed(registry.server)
  let now = await fromPassword('me', 'old')('')
  await using one = testClient(registry.server.host, { credentials: async () => now })
  await assert.rejects(one.repository.blobSize(digest), { code: 'UNAUTHORIZED' })
  now = await login('')
  assert.equal(await one.repository.blobSize(digest), content.length)
})

test('a caller who goes away while a token is fetched does not take it from the others', async () => {
  await using registry = await testRegistry({ auth: bearer(60_000) })
  const digest = await seed(registry.server)
  await using one = testClient(registry.server.host, { credentials: login })
  registry.server.latencyMs = 60
  const impatient = one.repository.readRange(digest, 0, Buffer.alloc(10), { signal: AbortSignal.timeout(90) })
  const patient = one.repository.readRange(digest, 0, Buffer.alloc(10))
  await assert.rejects(impatient, { code: 'ABORTED' })
  await patient
})

test('no login is needed where none is asked for', async () => {
  await using registry = await testRegistry()
  const digest = await seedPlain(registry.server, content)
  await using one = testClient(registry.server.host, { credentials: login })
  await one.repository.readRange(digest, 0, Buffer.alloc(10))
  assert.equal(registry.server.counters().blob.requests, 1)
})
