/** Backends behind a forward proxy, Dragonfly's among them: what passes through it, and what its failures mean. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Backend } from './backend.ts'
import { patience } from './conformance.ts'
import { ossBackend } from './oss.ts'
import { ossVerifier, startObjectStore, unsignedOnly } from './testing/object-store.ts'
import { BLOB, ID, inRegistry, inStore, KEYS, NETWORK, PLACES, readPart, through } from './testing/proxied-places.ts'
import { type Passed, startForwardProxy } from './testing/proxy-server.ts'

function marks({ headers }: Passed): readonly unknown[] {
  return ['prefetch', 'priority', 'use-p2p'].map((name) => headers[`x-dragonfly-${name}`])
}

function isDistributed({ headers }: Passed): boolean {
  return headers['x-dragonfly-use-p2p'] === 'true'
}

for (const [name, make] of PLACES) {
  test(`${name}: reads pass through the proxy and say who waits; logins do not`, async () => {
    await using place = await make()
    await using proxy = await startForwardProxy()
    const backend = place.open(through(proxy.url))
    await readPart(backend)
    await readPart(backend, 'prefetch')
    await (await backend.open(ID)).size(patience().signal)
    assert.ok(proxy.passed.length >= 3)
    assert.equal(place.count(), proxy.passed.length, 'the server saw what passed, nothing else')
    assert.deepEqual(marks(proxy.passed[0] ?? assert.fail()), ['true', '6', 'true'])
    assert.equal(proxy.passed.filter((one) => marks(one)[1] === '3').length, 1)
    for (const { url, headers } of proxy.passed) {
      assert.match(url, /^http:\/\/127\.0\.0\.1:\d+\//)
      assert.doesNotMatch(url, /token/)
      assert.equal(headers['x-own'], 'mine')
    }
    await backend.close()
  })

  test(`${name}: a proxy that is not there, or fails, is gone round only where that is allowed`, async () => {
    await using place = await make()
    const gone = await startForwardProxy()
    await gone[Symbol.asyncDispose]()
    await using ill = await startForwardProxy()
    ill.interfere = () => ({ status: 502 })
    for (const url of [gone.url, ill.url]) {
      const lenient = place.open(through(url))
      await readPart(lenient)
      await lenient.close()
    }
    const direct = place.count()
    assert.ok(direct >= 2)
    const strict = place.open(through(gone.url, { fallback: false }))
    await assert.rejects(readPart(strict, 'prefetch'), { code: 'UNREACHABLE' })
    await strict.close()
    assert.equal(place.count(), direct, 'nothing was asked past the proxy')
  })

  test(`${name}: the proxy's own refusals`, async () => {
    await using place = await make()
    await using proxy = await startForwardProxy()
    const refuse = (status: number) => (request: Passed) =>
      isDistributed(request) ? { status, headers: { 'x-dragonfly-error-type': 'proxy' } } : undefined
    const counted = async (backend: Backend, purpose: 'demand' | 'prefetch', refused?: object): Promise<Passed[]> => {
      proxy.passed.length = 0
      if (refused === undefined) await readPart(backend, purpose)
      else await assert.rejects(readPart(backend, purpose), refused)
      return proxy.passed
    }
    const lenient = place.open(through(proxy.url))
    const strict = place.open(through(proxy.url, { fallback: false }))
    // Too many requests: a reader goes round, or past the distribution; nobody waits for a prefetch.
    proxy.interfere = refuse(429)
    const [before, round] = [place.count(), await counted(lenient, 'demand')]
    assert.deepEqual([round.length, round.every(isDistributed)], [1, true])
    assert.equal(
      place.count(),
      before + (name === 'registry' ? 2 : 1),
      'asked directly, with the challenge of a registry',
    )
    const past = await counted(strict, 'demand')
    assert.deepEqual(past.map(isDistributed).slice(0, 2), [true, false])
    assert.equal((await counted(lenient, 'prefetch', { code: 'RATE_LIMITED', status: 429 })).length, 1)
    // Forbidden is final.
    proxy.interfere = refuse(403)
    for (const backend of [lenient, strict])
      assert.equal((await counted(backend, 'demand', { code: 'FORBIDDEN', status: 403 })).length, 1)
    // Anything else is tried again, at last past the distribution.
    proxy.interfere = refuse(500)
    assert.deepEqual((await counted(strict, 'demand')).map(isDistributed).slice(0, 4), [true, true, true, false])
    const ahead = await counted(strict, 'prefetch', { code: 'SERVER', status: 500 })
    assert.deepEqual(
      ahead.map(isDistributed),
      [true, true],
      'what is fetched ahead is tried twice, and never goes past',
    )
    await Promise.all([lenient.close(), strict.close()])
  })
}

test('where a registry redirects to gets the headers that are for the proxy, and none that may be a login', async () => {
  await using place = await inRegistry()
  await using store = await startObjectStore(unsignedOnly)
  store.objects.set('/elsewhere', BLOB)
  await using proxy = await startForwardProxy()
  place.redirect(`http://127.0.0.1:${store.port}/elsewhere`)
  const backend = place.open(through(proxy.url), { ...NETWORK.headers, 'x-api-key': 's3cret' })
  await readPart(backend)
  await readPart(backend)
  const there = proxy.passed.filter(({ url }) => url.endsWith('/elsewhere'))
  assert.equal(there.length, 2)
  for (const { headers } of there)
    assert.deepEqual([headers['x-own'], headers['x-api-key'], headers.authorization], ['mine', undefined, undefined])
  assert.ok(
    proxy.passed.some(({ headers }) => headers['x-api-key'] === 's3cret'),
    'the registry gets them all',
  )
  await backend.close()
})

test('a body that the proxy cuts is gone on with where it stopped', async () => {
  await using place = await inStore('s3')
  await using proxy = await startForwardProxy()
  proxy.interfere = () => (proxy.passed.length === 1 ? { cutAfter: 200_000 } : undefined)
  const backend = place.open(through(proxy.url))
  await readPart(backend)
  assert.equal(proxy.passed.length, 2)
  const from = Number(/bytes=(\d+)-/.exec(proxy.passed[1]?.headers.range ?? '')?.[1])
  assert.ok(from > 50_000, `went on at ${from}`)
  await backend.close()
})

test('a proxy that says nothing ends by the time-out, also when it is asked for a tunnel', async () => {
  await using proxy = await startForwardProxy()
  proxy.interfere = () => 'silence'
  const strict = through(proxy.url, { fallback: false })
  for (const scheme of ['http', 'https']) {
    const bucket = { scheme, endpoint: 'oss.invalid', bucket: 'images', prefix: '', ...KEYS }
    const backend = ossBackend({ ...bucket, ...NETWORK, timeoutMs: 300, proxy: strict })
    await assert.rejects((await backend.open(ID)).size(patience().signal), {
      code: 'TIMEOUT',
      message: /no answer from .* in time/,
    })
    await backend.close()
  }
})

test('a bucket’s own host name is what the proxy is asked for', async () => {
  await using store = await startObjectStore(ossVerifier(KEYS, ({ url }) => `/images${url ?? ''}`))
  store.objects.set(`/${ID}`, BLOB)
  await using proxy = await startForwardProxy({ 'images.oss.invalid': `127.0.0.1:${store.port}` })
  const bucket = { scheme: 'https', endpoint: 'oss.invalid', bucket: 'images', prefix: '', ...KEYS }
  // What is at https:// is asked for by plain HTTP where the configuration says so.
  const backend = ossBackend({ ...bucket, ...NETWORK, proxy: through(proxy.url, { useHttp: true }) })
  await readPart(backend)
  assert.equal(proxy.passed[0]?.url, `http://images.oss.invalid/${ID}`)
  await backend.close()
})

test('what is at https:// goes through a tunnel', async () => {
  await using proxy = await startForwardProxy()
  proxy.interfere = () => ({ status: 403 })
  const bucket = { scheme: 'https', endpoint: '127.0.0.1:9', bucket: 'images', prefix: '', ...KEYS }
  const backend = ossBackend({ ...bucket, ...NETWORK, proxy: through(proxy.url, { fallback: false }) })
  await assert.rejects(readPart(backend), { code: 'UNREACHABLE' })
  assert.deepEqual([proxy.passed[0]?.method, proxy.passed[0]?.url], ['CONNECT', '127.0.0.1:9'])
  await backend.close()
})

test('a login in the address is the proxy’s, and another address counts from the next request on', async () => {
  await using place = await inStore('http-proxy')
  await using one = await startForwardProxy()
  await using other = await startForwardProxy()
  let url = one.url.replace('//', '//me:p%40ss@')
  const backend = place.open(through(() => url))
  await readPart(backend)
  assert.equal(one.passed[0]?.headers['proxy-authorization'], `Basic ${Buffer.from('me:p@ss').toString('base64')}`)
  url = other.url
  await readPart(backend)
  url = ''
  await readPart(backend)
  assert.deepEqual([one.passed.length, other.passed.length, place.count()], [1, 1, 3])
  await backend.close()
})

test('an address that is none is refused, and the one before it can be set again', async () => {
  await using place = await inStore('http-proxy')
  await using proxy = await startForwardProxy()
  let { url } = proxy
  const backend = place.open(through(() => url, { fallback: false }))
  await readPart(backend)
  url = 'proxy:1'
  await assert.rejects(readPart(backend), { code: 'BAD_OPTION', message: /"url" is no http/ })
  ;({ url } = proxy)
  await readPart(backend)
  assert.equal(proxy.passed.length, 2)
  await backend.close()
})

test('a proxy that wants a login is no server that refuses', async () => {
  await using place = await inStore('s3')
  await using proxy = await startForwardProxy()
  proxy.interfere = () => ({ status: 407 })
  const strict = place.open(through(proxy.url, { fallback: false }))
  await assert.rejects(readPart(strict), { code: 'FORBIDDEN', message: /the proxy .* wants a login/ })
  assert.equal(proxy.passed.length, 1)
  const lenient = place.open(through(proxy.url))
  await readPart(lenient)
  await Promise.all([strict.close(), lenient.close()])
})

async function until(what: string, holds: () => boolean): Promise<void> {
  for (let tries = 0; tries < 2400 && !holds(); tries += 1) await sleep(25)
  assert.ok(holds(), what)
}

test('pings tell when to go round the proxy and when to come back, and stop when nobody reads', async () => {
  await using place = await inStore('http-proxy')
  await using proxy = await startForwardProxy()
  const notices: string[] = []
  const ping = {
    pingUrl: `${proxy.url}/ping`,
    checkIntervalMs: 100,
    checkPauseMs: 400,
    onNotice: (text: string) => notices.push(text),
  }
  const backend = place.open(through(proxy.url, ping))
  assert.equal(proxy.pings, 0, 'nobody asks before the first request')
  await readPart(backend)
  await until('a ping', () => proxy.pings > 0)
  proxy.pingStatus = 500
  await until('it is found ill', () => notices.length === 1)
  const before = proxy.passed.length
  await readPart(backend)
  assert.equal(proxy.passed.length, before, 'gone round')
  // Idle: the pings end. The next request waits for a fresh one, since the last said that the proxy is ill.
  let last = -1
  let idleChecks = 0
  await until('pings end', () => {
    const isSame = last === proxy.pings && idleChecks++ > 20
    if (last !== proxy.pings) idleChecks = 0
    last = proxy.pings
    return isSame
  })
  proxy.pingStatus = 200
  await readPart(backend)
  assert.equal(proxy.passed.length, before + 1, 'through the proxy again')
  assert.match(
    notices.join('\n'),
    /^Detected proxy unhealthy when pinging proxy, response status 500\nProxy server is not healthy, fallback to original server\nBackend proxy recovered$/,
  )
  await backend.close()
  const strict = place.open(through(proxy.url, { ...ping, fallback: false }))
  proxy.pingStatus = 503
  await readPart(strict)
  await until('it is found ill', () => notices.length === 4)
  await assert.rejects(readPart(strict, 'prefetch'), {
    code: 'UNREACHABLE',
    message: /proxy is not healthy and fallback is disabled/,
  })
  await strict.close()
})
