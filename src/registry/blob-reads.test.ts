import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { describe, test } from 'node:test'
import type { RegistryErrorCode } from './errors.ts'
import { digestOf } from './digest.ts'
import { SYSTEM_CLOCK } from './retry.ts'
import type { Fault } from './server/faults.ts'
import { blobOf, collect, hurriedClock, openDescriptors, pattern, seed, testClient, testRegistry } from './testing.ts'

const MIB = 1 << 20
const content = pattern(3 * MIB + 17)
const code = (wanted: RegistryErrorCode) => ({ name: 'RegistryError', code: wanted })

test('reads ranges into the middle of a larger buffer and touches nothing else', async () => {
  await using registry = await testRegistry()
  await using one = testClient(registry.server.host)
  const digest = await seed(registry.server, content)
  for (const [offset, length] of [
    [0, 1],
    [0, content.length],
    [content.length - 1, 1],
    [12_345, 700_000],
    [MIB, 0],
  ] as const) {
    const whole = Buffer.alloc(length + 20, 0xee)
    const fills: number[] = []
    await one.repository.readRange(digest, offset, whole.subarray(10, 10 + length), {
      onFilled: (filled) => fills.push(filled),
    })
    assert.deepEqual(whole.subarray(10, 10 + length), content.subarray(offset, offset + length))
    assert.ok(
      whole.subarray(0, 10).every((byte) => byte === 0xee) &&
        whole.subarray(10 + length).every((byte) => byte === 0xee),
    )
    if (length > 0) assert.equal(fills.at(-1), length)
  }
})

test('many reads at once share the connections and get their own bytes', async () => {
  await using registry = await testRegistry()
  await using one = testClient(registry.server.host, { connectionsPerHost: 4 })
  const digest = await seed(registry.server, content)
  await Promise.all(
    Array.from({ length: 100 }, async (_, index) => {
      const into = Buffer.alloc(10_000)
      await one.repository.readRange(digest, index * 7919, into)
      assert.deepEqual(into, content.subarray(index * 7919, index * 7919 + 10_000))
    }),
  )
  assert.equal(registry.server.counters().blob.requests, 100)
  assert.equal(registry.server.counters().base.requests, 0)
})

describe('faults that a read survives', () => {
  const survivable: readonly (readonly [string, Fault, number])[] = [
    ['the connection is reset before the answer', { kind: 'reset' }, 2],
    ['500', { kind: 'status', status: 500 }, 2],
    ['503 with Retry-After', { kind: 'status', status: 503, headers: { 'retry-after': '7' } }, 2],
    ['429', { kind: 'status', status: 429 }, 2],
    ['a body that is cut', { kind: 'cut', afterBytes: 100_000 }, 2],
    ['a body that is cut at its first byte', { kind: 'cut', afterBytes: 0 }, 2],
    ['a body that pauses', { kind: 'stall', afterBytes: 1000, forMs: 20 }, 1],
  ]
  for (const [name, fault, requests] of survivable) {
    test(name, async () => {
      await using registry = await testRegistry()
      await using one = testClient(registry.server.host)
      const digest = await seed(registry.server, content)
      registry.server.fail({ match: { route: 'blob' }, fault })
      const into = Buffer.alloc(500_000)
      await one.repository.readRange(digest, 1000, into)
      assert.deepEqual(into, content.subarray(1000, 501_000))
      assert.equal(registry.server.counters().blob.requests, requests)
      assert.equal(registry.server.clearFaults(), 0)
    })
    test(`${name}, in a stream`, async () => {
      await using registry = await testRegistry()
      await using one = testClient(registry.server.host)
      const digest = await seed(registry.server, content)
      registry.server.fail({ match: { route: 'blob' }, fault })
      assert.deepEqual(await collect(one.repository.blobStream(digest, { size: content.length })), content)
      assert.equal(registry.server.clearFaults(), 0)
    })
  }
})

describe('lies that a read refuses', () => {
  const lies: readonly (readonly [string, Fault, RegistryErrorCode])[] = [
    ['another range', { kind: 'wrong-range', shiftBytes: 5 }, 'BAD_RESPONSE'],
    ['a Content-Length too large', { kind: 'wrong-length', deltaBytes: 10 }, 'BAD_RESPONSE'],
    ['a Content-Length too small', { kind: 'wrong-length', deltaBytes: -10 }, 'BAD_RESPONSE'],
    ['206 without Content-Range', { kind: 'status', status: 206, body: 'x'.repeat(1000) }, 'BAD_RESPONSE'],
    ['416', { kind: 'status', status: 416 }, 'TRUNCATED'],
    ['200 with fewer bytes than the range needs', { kind: 'status', status: 200, body: 'short' }, 'TRUNCATED'],
    ['an encoded body', { kind: 'status', status: 206, headers: { 'content-encoding': 'gzip' } }, 'BAD_RESPONSE'],
    ['403', { kind: 'status', status: 403 }, 'FORBIDDEN'],
    ['404', { kind: 'status', status: 404 }, 'NOT_FOUND'],
    ['405', { kind: 'status', status: 405 }, 'UNSUPPORTED'],
    ['418', { kind: 'status', status: 418 }, 'REFUSED'],
    ['a redirect to nowhere', { kind: 'redirect', to: 'ftp://elsewhere/x' }, 'BAD_RESPONSE'],
    ['a redirect with a password in it', { kind: 'redirect', to: 'http://a:b@127.0.0.1/' }, 'BAD_RESPONSE'],
  ]
  for (const [name, fault, wanted] of lies) {
    test(`${name}: ${wanted}, asked once`, async () => {
      await using registry = await testRegistry()
      await using one = testClient(registry.server.host)
      const digest = await seed(registry.server, content)
      registry.server.fail({ match: { route: 'blob' }, fault })
      await assert.rejects(one.repository.readRange(digest, 100, Buffer.alloc(1000)), code(wanted))
      assert.equal(registry.server.counters().blob.requests, 1)
      await one.repository.readRange(digest, 100, Buffer.alloc(1000)) // and the next read is well again
    })
  }
})

test('a server that ignores Range serves the start of a blob, but not its depths', async () => {
  await using registry = await testRegistry()
  await using one = testClient(registry.server.host)
  const digest = await seed(registry.server, content)
  registry.server.fail({ match: { route: 'blob' }, times: 2, fault: { kind: 'ignore-range' } })
  const into = Buffer.alloc(5000)
  await one.repository.readRange(digest, 300_000, into)
  assert.deepEqual(into, content.subarray(300_000, 305_000))
  await assert.rejects(one.repository.readRange(digest, 2 * MIB, into), code('UNSUPPORTED'))
})

test('what goes on failing ends with the code of the last failure after the allowed tries', async () => {
  await using registry = await testRegistry()
  const clock = hurriedClock()
  await using one = testClient(registry.server.host, {
    clock,
    retry: { attempts: 4, baseDelayMs: 100, maxDelayMs: 250 },
  })
  const digest = await seed(registry.server, content)
  registry.server.fail({ times: 100, fault: { kind: 'status', status: 502 } })
  await assert.rejects(one.repository.readRange(digest, 0, Buffer.alloc(10)), code('UNAVAILABLE'))
  assert.equal(registry.server.counters().blob.requests, 4)
  assert.deepEqual(clock.sleeps, [75, 150, 187.5])
  registry.server.clearFaults()
  registry.server.fail({ times: 100, fault: { kind: 'cut', afterBytes: 1 } })
  await assert.rejects(one.repository.readRange(digest, 0, Buffer.alloc(1000)), (error: { code: string }) =>
    ['TRUNCATED', 'UNREACHABLE'].includes(error.code),
  )
  assert.equal(registry.server.counters().blob.requests, 8)
})

test('Retry-After in seconds and as a date is kept to, up to the cap', async () => {
  await using registry = await testRegistry()
  const clock = { ...hurriedClock(), now: () => Date.UTC(2030, 0, 1) }
  await using one = testClient(registry.server.host, { clock, retry: { attempts: 5, maxRetryAfterMs: 20_000 } })
  const digest = await seed(registry.server, content)
  for (const after of ['3', 'Tue, 01 Jan 2030 00:00:05 GMT', '86400']) {
    registry.server.fail({ fault: { kind: 'status', status: 429, headers: { 'retry-after': after } } })
  }
  await one.repository.readRange(digest, 0, Buffer.alloc(10))
  assert.deepEqual(clock.sleeps, [3000, 5000, 20_000])
})

test('a stalled body ends by the timeout, and by the signal', async () => {
  await using registry = await testRegistry()
  await using one = testClient(registry.server.host, { bodyTimeoutMs: 200, retry: { attempts: 1 } })
  const digest = await seed(registry.server, content)
  registry.server.fail({ times: 3, fault: { kind: 'stall', afterBytes: 100 } })
  await assert.rejects(one.repository.readRange(digest, 0, Buffer.alloc(1000)), code('TIMEOUT'))
  const into = Buffer.alloc(1000)
  await assert.rejects(one.repository.readRange(digest, 0, into, { signal: AbortSignal.timeout(50) }), code('ABORTED'))
  await assert.rejects(collect(one.repository.blobStream(digest, { signal: AbortSignal.timeout(50) })), code('ABORTED'))
})

test('wrong bytes are found at the end of a stream', async () => {
  await using registry = await testRegistry()
  await using one = testClient(registry.server.host)
  const digest = await seed(registry.server, content)
  registry.server.fail({ fault: { kind: 'wrong-bytes', at: 1_000_000 } })
  await assert.rejects(collect(one.repository.blobStream(digest)), code('DIGEST_MISMATCH'))
  assert.deepEqual(await collect(one.repository.blobStream(digest, { offset: 3 * MIB })), content.subarray(3 * MIB))
  await assert.rejects(collect(one.repository.blobStream(digest, { size: 5 })), code('BAD_RESPONSE'))
  await assert.rejects(one.repository.blob(digest, 1000), code('BAD_RESPONSE'))
})

test('an empty blob, and one that is not there', async () => {
  await using registry = await testRegistry()
  await using one = testClient(registry.server.host)
  const digest = await seed(registry.server, Buffer.alloc(0))
  assert.equal((await collect(one.repository.blobStream(digest))).length, 0)
  assert.equal(await one.repository.blobSize(digest), 0)
  const absent = digestOf(Buffer.from('absent'))
  assert.equal(await one.repository.blobExists(absent), false)
  await assert.rejects(one.repository.blobSize(absent), code('NOT_FOUND'))
  await assert.rejects(one.repository.readRange(digest, 0, Buffer.alloc(1)), code('TRUNCATED'))
})

test('redirects lead elsewhere without the login, are remembered, and asked for again when they no longer work', async () => {
  const users = { me: 'hush-hush' }
  await using registry = await testRegistry({ auth: { kind: 'basic', users } })
  await using store = await testRegistry()
  const { fromPassword } = await import('./credentials.ts')
  await using one = testClient(registry.server.host, {
    credentials: fromPassword('me', 'hush-hush'),
    headers: { 'x-own': 'yes' },
  })
  const digest = await seed(store.server, content)
  const seen: (string | undefined)[] = []
  const elsewhere = createServer((request, response) => {
    seen.push(request.headers.authorization, request.headers['x-own'] as string | undefined)
    response.writeHead(307, { location: `${store.server.url}${request.url}` }).end()
  })
  await new Promise<void>((resolve) => elsewhere.listen(0, '127.0.0.1', resolve))
  const origin = `http://127.0.0.1:${(elsewhere.address() as AddressInfo).port}`
  registry.server.fail({ times: 2, match: { route: 'blob' }, fault: { kind: 'redirect', to: `${origin}{path}` } })
  const read = async (): Promise<void> => {
    const into = Buffer.alloc(1000)
    await one.repository.readRange(digest, 5, into)
    assert.deepEqual(into, content.subarray(5, 1005))
  }
  await read()
  assert.deepEqual(seen, [undefined, undefined])
  await read()
  await read()
  assert.equal(registry.server.counters().blob.requests, 2, 'one refused, one redirected')
  assert.equal(store.server.counters().blob.requests, 3)
  store.server.fail({ fault: { kind: 'status', status: 403 } })
  await read()
  assert.equal(registry.server.counters().blob.requests, 3, 'asked for a fresh address')
  elsewhere.closeAllConnections()
  elsewhere.close()
})

test('redirects that go round end after ten', async () => {
  await using registry = await testRegistry()
  await using one = testClient(registry.server.host)
  const digest = await seed(registry.server, content)
  registry.server.fail({ times: 100, fault: { kind: 'redirect', to: '{path}' } })
  await assert.rejects(one.repository.readRange(digest, 0, Buffer.alloc(5)), code('BAD_RESPONSE'))
  assert.equal(registry.server.counters().blob.requests, 11)
})

test('mirrors come first, rest after failures, and do not matter when they are all ill', async () => {
  await using registry = await testRegistry()
  await using mirror = await testRegistry()
  const clock = hurriedClock()
  const mirrors = [
    { url: 'http://127.0.0.1:9', failureLimit: 1, cooldownMs: 60_000 },
    { url: mirror.server.url, failureLimit: 2, cooldownMs: 10_000 },
  ]
  const digest = await seed(registry.server, content)
  await seed(mirror.server, content)
  await using one = testClient(registry.server.host, { clock }, { mirrors })
  const into = Buffer.alloc(100)
  const counts = (): number[] => [mirror.server.counters().blob.requests, registry.server.counters().blob.requests]
  await one.repository.readRange(digest, 0, into)
  assert.deepEqual(counts(), [1, 0])
  mirror.server.fail({ times: 2, fault: { kind: 'status', status: 500 } })
  await one.repository.readRange(digest, 0, into)
  await one.repository.readRange(digest, 0, into)
  assert.deepEqual(counts(), [3, 2])
  await one.repository.readRange(digest, 0, into)
  assert.deepEqual(counts(), [3, 3], 'the mirror rests')
  clock.advance(10_001)
  assert.deepEqual(await collect(one.repository.blobStream(digest)), content)
  assert.deepEqual(counts(), [4, 3])
  const own = await seed(registry.server, pattern(50, 9))
  assert.equal(await one.repository.blobSize(own), 50)
})

test('close ends what is under way with CLOSED and leaves no descriptor open', async () => {
  const before = await openDescriptors()
  {
    await using registry = await testRegistry()
    const digest = await seed(registry.server, content)
    const one = testClient(registry.server.host)
    registry.server.fail({ times: 10, fault: { kind: 'stall', afterBytes: 10 } })
    const reads = Array.from({ length: 5 }, () => one.repository.readRange(digest, 0, Buffer.alloc(1000)))
    const outcomes = Promise.allSettled(reads)
    setTimeout(() => void one.client.close(), 50)
    for (const outcome of await outcomes) assert.equal(outcome.status === 'rejected' && outcome.reason.code, 'CLOSED')
    await assert.rejects(one.repository.tags(), code('CLOSED'))
    assert.throws(() => one.client.repository(one.repository.reference), code('CLOSED'))
  }
  assert.ok((await openDescriptors()) <= before + 2, 'the event loop may keep two of its own')
})

test('closing or giving up ends the wait before another try', async () => {
  await using registry = await testRegistry()
  const digest = await seed(registry.server, content)
  registry.server.fail({ times: 100, fault: { kind: 'status', status: 429, headers: { 'retry-after': '50' } } })
  const one = testClient(registry.server.host, { clock: SYSTEM_CLOCK })
  const reads = [
    one.repository.readRange(digest, 0, Buffer.alloc(10)),
    collect(one.repository.blobStream(digest)),
    one.repository.tags(),
    one.repository.uploadBlob(blobOf(pattern(10, 5))),
    one.repository.readRange(digest, 0, Buffer.alloc(10), { signal: AbortSignal.timeout(100) }),
  ]
  const outcomes = Promise.allSettled(reads)
  await assert.rejects(reads[4] ?? Promise.resolve(), code('ABORTED'))
  await one.client.close()
  const codes = (await outcomes).map((outcome) =>
    outcome.status === 'rejected' ? (outcome.reason as { code: string }).code : 'fulfilled',
  )
  assert.deepEqual(codes, ['CLOSED', 'CLOSED', 'CLOSED', 'CLOSED', 'ABORTED'])
})

test('what the caller throws while bytes arrive is thrown as it is, and asked once', async () => {
  await using registry = await testRegistry()
  await using one = testClient(registry.server.host)
  const digest = await seed(registry.server, content)
  const own = new TypeError('mine')
  const onFilled = (): void => {
    throw own
  }
  await assert.rejects(one.repository.readRange(digest, 0, Buffer.alloc(10), { onFilled }), own)
  assert.equal(registry.server.counters().blob.requests, 1)
})

test('nothing is written into the buffer after the read was given up', async () => {
  await using registry = await testRegistry({ bytesPerSecond: 2_000_000 })
  await using one = testClient(registry.server.host)
  const digest = await seed(registry.server, content.subarray(0, 600_000))
  const into = Buffer.alloc(600_000)
  const given = new AbortController()
  const read = one.repository.readRange(digest, 0, into, { signal: given.signal, onFilled: () => given.abort() })
  await assert.rejects(read, code('ABORTED'))
  const copy = Buffer.from(into)
  await new Promise((resolve) => setTimeout(resolve, 100))
  assert.deepEqual(into, copy)
})
