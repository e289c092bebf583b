/** A scheduler and its peers as gRPC servers: who is chosen, what is believed, and what a bad answer costs. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { create } from '@bufbuild/protobuf'
import { HashRing } from './hash-ring.ts'
import { HostSchema } from './proto/common_pb.ts'
import { HealthCheckResponse_ServingStatus } from './proto/health_pb.ts'
import { listSeedHosts, seedHosts } from './seed-hosts.ts'
import { SEED_TIMING, SeedPeers } from './seed-peers.ts'
import { sharePeers } from './shared-peers.ts'
import { type HostInit, startPeer, startScheduler } from './testing/cluster.ts'
import { framed } from './testing/grpc-server.ts'
import { MAX_ANSWER_BYTES } from './unary-call.ts'

const SOON = { refreshMs: 40, againMs: 40, timeoutMs: 30_000, restMs: 150 }
const PATIENT = { timeoutMs: 30_000, signal: new AbortController().signal }

function blob(index: number): string {
  return `http://registry.example/v2/a/blobs/sha256:${index.toString(16).padStart(64, '0')}`
}

async function until(what: string, holds: () => boolean): Promise<void> {
  for (let tries = 0; tries < 6000 && !holds(); tries += 1) await sleep(10)
  assert.ok(holds(), what)
}

test('the peers that say they are well are the ring', async () => {
  await using scheduler = await startScheduler()
  await using one = await startPeer()
  await using two = await startPeer()
  await using three = await startPeer()
  three.status = HealthCheckResponse_ServingStatus.NOT_SERVING
  const gone = await startPeer()
  await gone[Symbol.asyncDispose]()
  scheduler.hosts = [one.host('one', 1001), two.host('two', 1002), three.host('three', 1003), gone.host('gone', 1004)]
  const told: string[] = []
  const peers = new SeedPeers(scheduler.endpoint, (text) => told.push(text))
  assert.equal(peers.proxyFor(blob(1)), undefined, 'nobody is known before the scheduler answers')
  await peers.asked
  const ring = new HashRing(['one', 'two'])
  const ports: Readonly<Record<string, number>> = { one: 1001, two: 1002 }
  for (let index = 0; index < 50; index += 1) {
    const name = ring.find(index.toString(16).padStart(64, '0')) ?? ''
    assert.equal(peers.proxyFor(blob(index)), `http://127.0.0.1:${ports[name]}`)
  }
  assert.equal(peers.proxyFor('http://registry.example/v2/a/blobs/latest'), undefined, 'no digest, no task')
  assert.deepEqual(scheduler.asked, [1], 'seed peers were asked for, once')
  assert.deepEqual([one.checks, two.checks, three.checks], [1, 1, 1])
  assert.equal(told[0], `creating new proxy sdk client for ${scheduler.endpoint}`)
  assert.match(told[1] ?? '', /2 of 4 seed peers are well; .*says that it does not serve/)
  assert.equal(told.length, 2)
  for (const { server } of [scheduler, one, two, three]) assert.deepEqual(server.breaches, [])
  peers.close()
})

test('peers are asked for again, and those from before stay while the scheduler does not answer', async () => {
  await using scheduler = await startScheduler()
  await using one = await startPeer()
  await using two = await startPeer()
  scheduler.hosts = [one.host('one', 1001)]
  const told: string[] = []
  const peers = new SeedPeers(scheduler.endpoint, (text) => told.push(text), SOON)
  await peers.asked
  assert.equal(peers.proxyFor(blob(1)), 'http://127.0.0.1:1001')
  scheduler.instead = { status: 14, text: 'out of\nservice' }
  await until('the failure is told', () => told.some((text) => text.includes('gRPC status 14')))
  const asked = scheduler.asked.length
  await until('it is asked again and again', () => scheduler.asked.length > asked + 3)
  assert.equal(peers.proxyFor(blob(1)), 'http://127.0.0.1:1001')
  assert.equal(told.filter((text) => text.includes('status 14')).length, 1, 'the same is told once')
  assert.ok(told.every((text) => !text.includes('\n')))
  scheduler.hosts = [two.host('two', 1002)]
  scheduler.instead = undefined
  await until('the new peer is used', () => peers.proxyFor(blob(1)) === 'http://127.0.0.1:1002')
  scheduler.hosts = []
  await until('no peer is no peer', () => peers.proxyFor(blob(1)) === undefined)
  peers.close()
  await sleep(500) // what was on its way when they were closed has come
  const after = scheduler.asked.length
  await sleep(SOON.refreshMs * 4)
  assert.equal(scheduler.asked.length, after, 'nobody asks any more')
})

test('a peer that failed rests, and is asked again', async () => {
  await using scheduler = await startScheduler()
  await using one = await startPeer()
  scheduler.hosts = [one.host('one', 1001)]
  const peers = new SeedPeers(scheduler.endpoint, () => undefined, { ...SOON, refreshMs: 60_000 })
  await peers.asked
  peers.failed('http://127.0.0.1:1001')
  assert.equal(peers.proxyFor(blob(1)), undefined)
  await until('it has rested', () => peers.proxyFor(blob(1)) !== undefined)
  peers.close()
})

test('a scheduler is asked once for all who share it, and no more when the last has gone', async () => {
  await using scheduler = await startScheduler()
  const told: string[] = []
  const first = sharePeers(scheduler.endpoint, (text) => told.push(`first: ${text}`))
  const second = sharePeers(scheduler.endpoint, (text) => told.push(`second: ${text}`))
  assert.equal(first.peers, second.peers)
  first.close()
  first.close()
  await second.peers.asked
  assert.equal(scheduler.asked.length, 1)
  assert.ok(told.at(-1)?.startsWith('second: '), 'who is left gets the lines')
  second.close()
  const third = sharePeers(scheduler.endpoint, () => undefined)
  assert.notEqual(third.peers, second.peers)
  await third.peers.asked
  assert.equal(scheduler.asked.length, 2)
  third.close()
})

test('a scheduler that is not there, says nothing, or speaks something else costs its deadline at most', async () => {
  const silent = createServer(() => undefined).listen(0, '127.0.0.1')
  const other = createServer((socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n')).listen(0, '127.0.0.1')
  await Promise.all([once(silent, 'listening'), once(other, 'listening')])
  const at = (server: typeof silent): string => `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  await assert.rejects(listSeedHosts(at(silent), { ...PATIENT, timeoutMs: 200 }), { code: 'TIMEOUT' })
  await assert.rejects(listSeedHosts(at(other), PATIENT), { code: 'UNREACHABLE' })
  const gone = at(other)
  other.close()
  await assert.rejects(listSeedHosts(gone, PATIENT), { code: 'UNREACHABLE' })
  silent.close()
  const stop = new AbortController()
  stop.abort()
  await assert.rejects(listSeedHosts('http://127.0.0.1:9', { ...PATIENT, signal: stop.signal }), { code: 'CLOSED' })
  for (const endpoint of ['scheduler:8002', 'https://scheduler:8002', 'http://me:x@scheduler', 'nonsense', 'http://'])
    await assert.rejects(listSeedHosts(endpoint, PATIENT), { code: 'BAD_ENDPOINT' }, endpoint)
})

test('answers that gRPC does not allow, or that nobody wants to keep, are refused', async () => {
  await using scheduler = await startScheduler()
  const cases = [
    [{ status: 5 }, 'REFUSED'],
    ['reset', 'UNREACHABLE'],
    [{ raw: Buffer.alloc(0) }, 'BAD_RESPONSE'],
    [{ raw: Buffer.of(0, 0, 0, 0, 9, 1) }, 'BAD_RESPONSE'],
    [{ raw: Buffer.of(1, 0, 0, 0, 0) }, 'BAD_RESPONSE'],
    [{ raw: Buffer.concat([framed(Buffer.alloc(0)), framed(Buffer.alloc(0))]) }, 'BAD_RESPONSE'],
    [{ raw: framed(Buffer.from('no message')) }, 'BAD_RESPONSE'],
    [{ raw: framed(Buffer.alloc(0)), headers: { ':status': 404 } }, 'BAD_RESPONSE'],
    [{ raw: framed(Buffer.alloc(0)), headers: { 'content-type': 'text/html' } }, 'BAD_RESPONSE'],
    [{ raw: Buffer.alloc(MAX_ANSWER_BYTES + 6) }, 'BAD_RESPONSE'],
  ] as const
  for (const [reply, code] of cases) {
    scheduler.instead = reply
    await assert.rejects(listSeedHosts(scheduler.endpoint, PATIENT), { name: 'DragonflyError', code })
  }
  scheduler.instead = undefined
  scheduler.hosts = Array.from({ length: 513 }, (_, index) => ({ name: `peer-${index}`, ip: '10.0.0.1', port: 1 }))
  await assert.rejects(listSeedHosts(scheduler.endpoint, PATIENT), { code: 'BAD_RESPONSE', message: /513 seed peers/ })
})

test('hosts that nobody can ask are left out, each with its reason', () => {
  const good: HostInit = { name: 'good', ip: '10.0.0.1', port: 65_000, proxyPort: 65_001 }
  const six: HostInit = { ...good, name: 'six', ip: '2001:db8::1' }
  const bad: ReadonlyArray<readonly [HostInit, RegExp]> = [
    [{ ...good }, /name of another/],
    [{ ...good, name: 'n'.repeat(1025) }, /name of more/],
    [{ ...good, name: 'a\nb\u001b[2J' }, /^seed peer "a\?b\?\[2J" \(nowhere\) has no IP/],
    [{ ...good, name: '1', ip: 'fe80::1%eth0' }, /no IP/],
    [{ ...good, name: '2', ip: '10.0.0.1:80@evil' }, /no IP/],
    [{ ...good, name: '3', ip: '0.0.0.0' }, /nobody/],
    [{ ...good, name: '4', ip: '::' }, /nobody/],
    [{ ...good, name: '5', ip: '239.1.1.1' }, /nobody/],
    [{ ...good, name: '6', ip: '127.0.0.2' }, /this machine/],
    [{ ...good, name: '7', ip: '::ffff:127.0.0.1' }, /this machine/],
    [{ ...good, name: '8', port: 0 }, /no port, but 0/],
    [{ ...good, name: '9', port: 65_536 + 80 }, /no port, but 65616/],
    [{ ...good, name: '10', proxyPort: -1 }, /no port of a proxy, but -1/],
  ]
  const hosts = [good, six, ...bad.map(([host]) => (host.name === 'a\nb\u001b[2J' ? { ...host, ip: 'nowhere' } : host))]
  const found = seedHosts(
    hosts.map((host) => create(HostSchema, host)),
    false,
  )
  assert.deepEqual(found.peers, [
    { name: 'good', server: 'http://10.0.0.1:65000', proxy: 'http://10.0.0.1:65001' },
    { name: 'six', server: 'http://[2001:db8::1]:65000', proxy: 'http://[2001:db8::1]:65001' },
  ])
  assert.equal(found.refused.length, bad.length)
  bad.forEach(([, reason], index) => assert.match(found.refused[index] ?? '', reason))
  const near = seedHosts([create(HostSchema, { ...good, ip: '127.0.0.2' })], true)
  assert.equal(near.peers.length, 1, 'a scheduler on this machine may name it')
})

test('hundreds of silent peers are asked side by side', async () => {
  await using scheduler = await startScheduler()
  await using silent = await startPeer()
  await using one = await startPeer()
  silent.instead = 'silence'
  scheduler.hosts = [
    one.host('one', 1001),
    ...Array.from({ length: 60 }, (_, index) => silent.host(`silent-${index}`, 1)),
  ]
  const peers = new SeedPeers(scheduler.endpoint, () => undefined, { ...SEED_TIMING, timeoutMs: 5_000 })
  await peers.asked
  assert.equal(silent.checks, 60)
  assert.equal(peers.proxyFor(blob(1)), 'http://127.0.0.1:1001')
  peers.close()
})

test('who has no scheduler does not load what speaks to one', () => {
  const door = new URL('index.ts', import.meta.url).href
  const program = `
    import { registerHooks } from 'node:module'
    const loaded = []
    registerHooks({ resolve(name, context, next) { loaded.push(name); return next(name, context) } })
    await import(${JSON.stringify(door)})
    console.log(JSON.stringify(loaded))`
  const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '--eval', program], {
    encoding: 'utf8',
  })
  const loaded = JSON.parse(stdout || JSON.stringify([stderr])) as string[]
  assert.ok(loaded.includes('./seed-peers.ts'), 'the room was loaded')
  assert.deepEqual(
    loaded.filter((name) => /@bufbuild|http2|_pb|unary-call/.test(name)),
    [],
  )
})
