/** Backends that read through the seed peers of a Dragonfly cluster, which a scheduler names. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type FakePeer, type FakeScheduler, startPeer, startScheduler } from '../dragonfly/testing/index.ts'
import type { ProxyOptions } from '../registry/index.ts'
import type { Backend } from './backend.ts'
import { patience } from './conformance.ts'
import { startObjectStore, unsignedOnly } from './testing/object-store.ts'
import { BLOB, ID, inRegistry, inStore, PLACES, readPart, through } from './testing/proxied-places.ts'
import { type ForwardProxyServer, type Passed, startForwardProxy } from './testing/proxy-server.ts'

interface Cluster extends AsyncDisposable {
  readonly scheduler: FakeScheduler
  readonly peers: readonly FakePeer[]
  /** Of the peers, in their order. */
  readonly proxies: readonly ForwardProxyServer[]
  /** What came to any peer. */
  passed(): Passed[]
  interfere(by: ForwardProxyServer['interfere']): void
}

async function startCluster(size: number): Promise<Cluster> {
  const scheduler = await startScheduler()
  const peers: FakePeer[] = []
  const proxies: ForwardProxyServer[] = []
  for (let index = 0; index < size; index += 1) {
    const [peer, proxy] = [await startPeer(), await startForwardProxy()]
    proxy.errorType = 'backend'
    peers.push(peer)
    proxies.push(proxy)
    scheduler.hosts.push(peer.host(`seed-${index}`, proxy.port))
  }
  return {
    scheduler,
    peers,
    proxies,
    passed: () => proxies.flatMap(({ passed }) => passed),
    interfere: (by) => {
      for (const proxy of proxies) proxy.interfere = by
    },
    async [Symbol.asyncDispose]() {
      for (const one of [scheduler, ...peers, ...proxies]) await one[Symbol.asyncDispose]()
    },
  }
}

function by(proxy: ForwardProxyServer, cluster: Cluster, more: Partial<ProxyOptions> = {}): ProxyOptions {
  return through(proxy.url, { scheduler: () => cluster.scheduler.endpoint, ...more })
}

function marks({ headers }: Passed): readonly unknown[] {
  return ['use-p2p', 'prefetch', 'enable-task-id-based-blob-digest', 'priority'].map(
    (name) => headers[`x-dragonfly-${name}`],
  )
}

for (const [name, make] of PLACES) {
  test(`${name}: reads go to the one peer that they belong to, and to nothing else`, async () => {
    await using place = await make()
    await using proxy = await startForwardProxy()
    await using cluster = await startCluster(5)
    const backend = place.open(by(proxy, cluster))
    await readPart(backend)
    await readPart(backend, 'prefetch')
    assert.equal(proxy.passed.length, 0)
    assert.equal(place.count(), cluster.passed().length, 'the server saw what passed the peers, nothing else')
    assert.deepEqual(marks(cluster.passed()[0] ?? assert.fail()), ['true', 'true', 'true', '6'])
    assert.deepEqual(marks(cluster.passed().at(-1) ?? assert.fail()), ['true', 'true', 'true', '3'])
    for (const { headers } of cluster.passed()) assert.equal(headers['x-own'], 'mine')
    assert.equal(cluster.proxies.filter(({ passed }) => passed.length > 0).length, 1)
    assert.equal(cluster.scheduler.asked.length, 1)
    for (const { server } of [cluster.scheduler, ...cluster.peers]) assert.deepEqual(server.breaches, [])
    // Peers distribute what is fetched; what is only asked about is asked for as if there were none.
    const [before, asked] = [cluster.passed().length, place.count()]
    await (await backend.open(ID)).size(patience().signal)
    if (name !== 'registry') assert.equal(cluster.passed().length, before)
    assert.ok(place.count() > asked)
    await backend.close()
  })
}

// Those that retry in their own way, and one of those that share the wrapper.
for (const [name, make] of PLACES.slice(0, 2)) {
  test(`${name}: what a peer answers decides who is asked next`, async () => {
    await using place = await make()
    await using proxy = await startForwardProxy()
    await using cluster = await startCluster(3)
    const asked = async (
      backend: Backend,
      purpose: 'demand' | 'prefetch',
      refused?: object,
    ): Promise<{ peers: number; proxy: number; direct: number }> => {
      const before = [cluster.passed().length, proxy.passed.length, place.count()] as const
      if (refused === undefined) await readPart(backend, purpose)
      else await assert.rejects(readPart(backend, purpose), refused)
      const [peers, proxied] = [cluster.passed().length - before[0], proxy.passed.length - before[1]]
      return { peers, proxy: proxied, direct: place.count() - before[2] - proxied }
    }
    // A registry's challenge makes one request two, for whoever comes to it first.
    const warm = place.open(by(proxy, cluster))
    await readPart(warm)
    const strict = place.open(by(proxy, cluster, { fallback: false }))
    await readPart(strict)
    const answers = [
      { status: 429, type: 'proxy', past: true },
      { status: 500, type: 'proxy', past: true },
      { status: 404, type: 'backend', past: true },
      { status: 403, type: 'backend', past: true },
      { status: 503, type: 'dfdaemon', past: true },
      { status: 418, type: 'unknown', past: true },
      { status: 502, type: undefined, past: true },
      { status: 403, type: 'proxy', past: false },
      { status: 403, type: undefined, past: false },
    ] as const
    for (const { status, type, past } of answers) {
      cluster.interfere(() => ({
        status,
        ...(type === undefined ? {} : { headers: { 'x-dragonfly-error-type': type } }),
      }))
      const what = `${status} of ${type}`
      const forbidden = { code: 'FORBIDDEN', status: 403 }
      // A reader gets one more try, past the peers; nobody waits for what is fetched ahead.
      assert.deepEqual(
        await asked(warm, 'demand', past ? undefined : forbidden),
        { peers: 1, proxy: 0, direct: past ? 1 : 0 },
        what,
      )
      assert.deepEqual(
        await asked(strict, 'demand', past ? undefined : forbidden),
        { peers: 1, proxy: past ? 1 : 0, direct: 0 },
        `${what}, nothing may be asked directly`,
      )
      assert.deepEqual((await asked(warm, 'prefetch', { name: 'BackendError' })).peers, 1, what)
    }
    assert.ok(proxy.passed.every(({ headers }) => headers['x-dragonfly-use-p2p'] === undefined))
    // A source that fails too ends the read.
    cluster.interfere(() => ({ status: 500, headers: { 'x-dragonfly-error-type': 'backend' } }))
    proxy.interfere = () => ({ status: 500 })
    assert.deepEqual(await asked(strict, 'demand', { code: 'SERVER', status: 500 }), { peers: 1, proxy: 1, direct: -1 })
    await Promise.all([warm.close(), strict.close()])
  })
}

test('a peer that cuts its answer is gone past, and what came is kept', async () => {
  await using place = await inStore('s3')
  await using proxy = await startForwardProxy()
  await using cluster = await startCluster(1)
  const backend = place.open(by(proxy, cluster))
  cluster.interfere(() => ({ cutAfter: 20_000 }))
  await readPart(backend)
  assert.deepEqual([cluster.passed().length, proxy.passed.length, place.count()], [1, 0, 2])
  // One that brings much before it breaks is asked for the rest.
  let cuts = 0
  cluster.interfere(() => (cuts++ === 0 ? { cutAfter: 200_000 } : undefined))
  await readPart(backend)
  assert.deepEqual([cluster.passed().length, proxy.passed.length, place.count()], [3, 0, 4])
  await backend.close()
})

test('where no peer can be asked the proxy is, in the same try', async () => {
  await using place = await inStore('http-proxy')
  await using proxy = await startForwardProxy()
  const gone = await startScheduler()
  await gone[Symbol.asyncDispose]()
  await using none = await startCluster(0)
  await using dead = await startCluster(1)
  await dead.proxies[0]?.[Symbol.asyncDispose]()
  await using ill = await startCluster(1)
  await ill.peers[0]?.[Symbol.asyncDispose]()
  await using lying = await startCluster(1)
  lying.scheduler.hosts = [{ ...lying.scheduler.hosts[0], proxyPort: 70_000 }]
  const notices: string[] = []
  const endpoints = [gone, none.scheduler, dead.scheduler, ill.scheduler, lying.scheduler].map(
    ({ endpoint }) => endpoint,
  )
  for (const endpoint of [...endpoints, 'scheduler:8002']) {
    const backend = place.open(
      through(proxy.url, { scheduler: () => endpoint, fallback: false, onNotice: (text) => notices.push(text) }),
    )
    const before = proxy.passed.length
    await readPart(backend)
    await readPart(backend, 'prefetch')
    assert.equal(proxy.passed.length, before + 2, endpoint)
    await backend.close()
  }
  assert.ok(proxy.passed.every(({ headers }) => headers['x-dragonfly-use-p2p'] === 'true'))
  assert.equal(dead.scheduler.asked.length, 1)
  const told = notices.join('\n')
  assert.match(told, /cannot ask http:\S+ for ListHosts: .*ECONNREFUSED/)
  assert.match(told, /0 of 0 seed peers are well/)
  assert.match(told, /0 of 1 seed peers are well; cannot ask http:\S+ for Check/)
  assert.match(told, /has no port of a proxy, but 70000/)
  assert.match(told, /no http:\/\/HOST:PORT/)
})

test('a peer that says nothing costs one reader five seconds, and the next ones nothing', async () => {
  await using place = await inStore('http-proxy')
  await using proxy = await startForwardProxy()
  await using cluster = await startCluster(1)
  cluster.interfere(() => 'silence')
  const backend = place.open(by(proxy, cluster))
  await readPart(backend)
  for (let reads = 0; reads < 5; reads += 1) await readPart(backend)
  assert.deepEqual([cluster.passed().length, proxy.passed.length], [1, 6])
  await backend.close()
})

test('peers are asked as long as there is a scheduler, and anew when it is another', async () => {
  await using place = await inStore('http-proxy')
  await using proxy = await startForwardProxy()
  await using one = await startCluster(1)
  await using other = await startCluster(1)
  let endpoint = ''
  const counts = (): number[] => [proxy, one.proxies[0], other.proxies[0]].map((to) => to?.passed.length ?? -1)
  const backend = place.open(through(proxy.url, { scheduler: () => endpoint }))
  await readPart(backend)
  assert.deepEqual(counts(), [1, 0, 0])
  endpoint = one.scheduler.endpoint
  await readPart(backend)
  assert.deepEqual(counts(), [1, 1, 0])
  endpoint = other.scheduler.endpoint
  await readPart(backend)
  assert.deepEqual(counts(), [1, 1, 1])
  endpoint = ''
  await readPart(backend)
  endpoint = one.scheduler.endpoint
  await readPart(backend)
  assert.deepEqual(counts(), [2, 2, 1])
  assert.deepEqual([one.scheduler.asked.length, other.scheduler.asked.length], [2, 1])
  await backend.close()
})

test('redirects are followed at the peer that was asked first, without logins', async () => {
  await using place = await inRegistry()
  await using store = await startObjectStore(unsignedOnly)
  store.objects.set('/elsewhere', BLOB)
  await using proxy = await startForwardProxy()
  await using cluster = await startCluster(4)
  place.redirect(`http://127.0.0.1:${store.port}/elsewhere`)
  const backend = place.open(by(proxy, cluster), { 'x-own': 'mine', 'x-api-key': 's3cret' })
  await readPart(backend)
  await readPart(backend)
  const asked = cluster.passed().map(({ url }) => new URL(url).pathname.replace(/.*\//, ''))
  assert.deepEqual(
    asked.slice(-4),
    [`sha256:${ID}`, 'elsewhere', `sha256:${ID}`, 'elsewhere'],
    'always by the first address',
  )
  assert.equal(cluster.proxies.filter(({ passed }) => passed.length > 0).length, 1)
  for (const { url, headers } of cluster.passed()) {
    const isHome = !url.endsWith('/elsewhere')
    assert.equal(headers['x-api-key'], isHome ? 's3cret' : undefined)
    assert.equal(headers['x-own'], 'mine')
    if (!isHome) assert.equal(headers.authorization, undefined)
    assert.deepEqual(marks({ url, headers, method: 'GET' }), ['true', 'true', 'true', '6'])
  }
  await backend.close()
})
