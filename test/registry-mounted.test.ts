/** Images mounted from a registry as configurations have it: logins of every kind, TLS, mirrors, proxies, and what changes while they are used. */
import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { startForwardProxy } from '../src/backend/testing/proxy-server.ts'
import {
  CARRIED_BLOBS,
  type CarriedImage,
  carriedImage,
  contextsIn,
  differencesSeenApart,
  Scratch,
  type TestDaemon,
} from '../src/daemon/testing.ts'
import { whyNoFuse } from '../src/kernel/index.ts'
import {
  digestOf,
  fromPassword,
  parseReference,
  RegistryClient,
  type RegistryServer,
  type RegistryServerOptions,
  startRegistry,
} from '../src/registry/index.ts'

const skip = whyNoFuse() ?? false
const OPENSSL = 'openssl'
const noOpenssl = spawnSync(OPENSSL, ['version']).error === undefined ? false : 'openssl is not installed'
const IMAGE = carriedImage('v6-tar-none-c64k')
const [BLOB = ''] = IMAGE.blobs
const REPO = 'test/image'
const USERS = { ann: 'secret', bob: 'hidden' }

function loginOf(user: keyof typeof USERS): string {
  return Buffer.from(`${user}:${USERS[user]}`).toString('base64')
}

/** A registry that has the image's blob. */
async function registryWith(
  scratch: Scratch,
  name: string,
  options: Partial<RegistryServerOptions> = {},
): Promise<RegistryServer & AsyncDisposable> {
  const server = await startRegistry({ root: scratch.folder(name), host: '127.0.0.1', port: 0, ...options })
  const client = new RegistryClient({
    credentials: fromPassword('ann', 'secret'),
    plainHttp: 'fallback',
    skipVerify: true,
  })
  const bytes = readFileSync(join(CARRIED_BLOBS, BLOB))
  const source = {
    digest: digestOf(bytes),
    size: bytes.length,
    open: async function* () {
      yield bytes
    },
  }
  await client.repository(parseReference(`${server.host}/${REPO}`)).uploadBlob(source)
  await client.close()
  server.resetCounters()
  return Object.assign(server, { [Symbol.asyncDispose]: () => server.close() })
}

interface Given {
  readonly registry?: Record<string, unknown>
  readonly rafs?: Record<string, unknown>
  readonly image?: CarriedImage
}

function args(scratch: Scratch, server: RegistryServer, { registry = {}, rafs = {} }: Given = {}): string[] {
  const path = join(scratch.path, 'config.json')
  const table = { host: server.host, repo: REPO, scheme: 'http', retry_limit: 1, ...registry }
  const cache = { type: 'blobcache', filecache: { work_dir: scratch.cache } }
  writeFileSync(path, JSON.stringify({ version: 2, backend: { type: 'registry', registry: table }, cache, rafs }))
  // Not at the root, where it would hide the other mounts.
  return ['--bootstrap', IMAGE.bootstrap, '--config', path, '--virtual-mountpoint', '/first']
}

/** Everything in one mount is read and compared. */
async function isRight(scratch: Scratch, at = 'first'): Promise<void> {
  assert.deepEqual(await differencesSeenApart(join(scratch.mnt, at), IMAGE.tree), [])
}

/** Another mount of the image in the same daemon, with a cache of its own: what it reads is fetched. */
async function mountAgain(scratch: Scratch, daemon: TestDaemon, at: string, config: string): Promise<void> {
  const document = JSON.parse(readFileSync(config, 'utf8')) as { cache: { filecache: { work_dir: string } } }
  document.cache.filecache.work_dir = scratch.folder(`cache-${at}`)
  const request = { fs_type: 'rafs', source: IMAGE.bootstrap, config: JSON.stringify(document) }
  const { status, text } = await daemon.api('POST', `/api/v1/mount?mountpoint=/${at}`, request)
  assert.equal(status, 204, text)
}

async function set(daemon: TestDaemon, at: string, settings: Record<string, string>): Promise<void> {
  assert.equal((await daemon.api('PUT', `/api/v1/config?id=/${at}`, settings)).status, 204)
}

function noSecrets(text: string): void {
  assert.doesNotMatch(text, new RegExp(`hidden|${loginOf('bob')}|${loginOf('ann')}`))
}

test('tokens that expire all the time, and logins of docker login', { skip }, async () => {
  await using scratch = new Scratch()
  await using server = await registryWith(scratch, 'registry', {
    auth: { kind: 'bearer', tokenLifeMs: 60_000, users: USERS },
  })
  const docker = scratch.folder('docker')
  writeFileSync(join(docker, 'config.json'), JSON.stringify({ auths: { [server.host]: { auth: loginOf('bob') } } }))
  await using proxy = await startForwardProxy()
  const given = args(scratch, server, { registry: { proxy: { url: proxy.url } }, rafs: { batch_size: 0 } })
  const daemon = await scratch.nydusd(given, { DOCKER_CONFIG: docker })
  const ranges = new Set<string | undefined>()
  // Each range that is asked for meets a token that has just expired.
  proxy.interfere = ({ headers }) => {
    if (headers.authorization !== undefined && !ranges.has(headers.range)) server.expireTokens()
    ranges.add(headers.range)
    return undefined
  }
  await isRight(scratch)
  assert.ok(ranges.size > 1)
  assert.ok(server.counters().token.requests >= ranges.size - 1, 'a new token each time')
  noSecrets(daemon.log)
})

test('IMAGE_PULL_AUTH takes the place of the configured login; the API changes it while the image is mounted', {
  skip,
}, async () => {
  await using scratch = new Scratch()
  await using server = await registryWith(scratch, 'registry', { auth: { kind: 'basic', users: USERS } })
  const docker = { DOCKER_CONFIG: scratch.folder('docker') }
  const wrong = Buffer.from('ann:wrong').toString('base64')
  const given = args(scratch, server, { registry: { auth: wrong } })
  const daemon = await scratch.nydusd(given, { ...docker, IMAGE_PULL_AUTH: loginOf('bob') })
  await isRight(scratch)
  const config = join(scratch.path, 'config.json')
  await mountAgain(scratch, daemon, 'late', config)
  const file = join(scratch.mnt, 'late')
  const { tree } = IMAGE
  const differences = async (): Promise<unknown> => differencesSeenApart(file, tree).catch(() => 'unreadable')
  assert.equal(await differences(), 'unreadable')
  await set(daemon, 'late', { registry_auth: loginOf('ann') })
  assert.deepEqual(await differences(), [])
  noSecrets(daemon.log)
})

test('a login that changes counts from the next request on, though the registry would still take the old one', {
  skip,
}, async () => {
  await using scratch = new Scratch()
  await using server = await registryWith(scratch, 'registry', { auth: { kind: 'basic', users: USERS } })
  await using proxy = await startForwardProxy()
  const daemon = await scratch.nydusd(
    args(scratch, server, { registry: { auth: loginOf('ann'), proxy: { url: proxy.url } }, rafs: { batch_size: 0 } }),
    {
      DOCKER_CONFIG: scratch.folder('docker'),
    },
  )
  const { path = '' } = treeOf(IMAGE).find(({ type, size = 0 }) => type === 'file' && size > 0) ?? {}
  assert.equal(await run('cat', join(scratch.mnt, 'first', path)), 0)
  await contextsIn(scratch.cache)
  await set(daemon, 'first', { registry_auth: loginOf('bob') })
  server.resetCounters()
  proxy.passed.length = 0
  await isRight(scratch)
  const used = new Set(
    proxy.passed.map(({ headers }) => headers.authorization).filter((header) => header !== undefined),
  )
  assert.deepEqual([...used], [`Basic ${loginOf('bob')}`])
})

interface Entry {
  readonly path: string
  readonly type: string
  readonly size?: number
}

function treeOf({ tree }: CarriedImage): Entry[] {
  const lines = readFileSync(tree, 'utf8').trim().split('\n')
  return lines.map((line) => JSON.parse(line) as Entry)
}

/** Without holding up this process, which serves what is read. */
async function run(program: string, ...given: readonly string[]): Promise<number> {
  const [code] = (await once(spawn(program, given, { stdio: 'ignore' }), 'close')) as [number]
  return code
}

test('own certificates, directly and through a tunnel', { skip: skip === false ? noOpenssl : skip }, async () => {
  await using scratch = new Scratch()
  const [key, cert] = [join(scratch.path, 'key.pem'), join(scratch.path, 'cert.pem')]
  const line = 'req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost'
  const names = ['-keyout', key, '-out', cert, '-addext', 'subjectAltName=IP:127.0.0.1']
  const made = spawnSync(OPENSSL, [...line.split(' '), ...names])
  assert.equal(made.status, 0, String(made.stderr))
  const tls = { key: readFileSync(key, 'utf8'), cert: readFileSync(cert, 'utf8') }
  await using server = await registryWith(scratch, 'registry', { tls })
  await using proxy = await startForwardProxy()
  const trusted = { scheme: 'https', ca_cert_files: [cert], proxy: { url: proxy.url, fallback: false } }
  const daemon = await scratch.nydusd(args(scratch, server, { registry: trusted }))
  await isRight(scratch)
  await contextsIn(scratch.cache)
  assert.ok(proxy.passed.length > 0)
  assert.deepEqual(
    new Set(proxy.passed.map(({ method, url }) => `${method} ${url}`)),
    new Set([`CONNECT ${server.host}`]),
  )
  const passed = proxy.passed.length
  const config = join(scratch.path, 'config.json')
  args(scratch, server, { registry: { scheme: 'https', ca_cert_files: [cert] } })
  await mountAgain(scratch, daemon, 'direct', config)
  await isRight(scratch, 'direct')
  assert.equal(proxy.passed.length, passed)
  args(scratch, server, { registry: { scheme: 'https' } })
  await mountAgain(scratch, daemon, 'strange', config)
  await assert.rejects(isRight(scratch, 'strange'))
  assert.match(daemon.log, /cannot trust the certificate/)
})

test('a mirror is read from, and the registry when the mirror is ill', { skip }, async () => {
  await using scratch = new Scratch()
  await using server = await registryWith(scratch, 'registry')
  await using mirror = await registryWith(scratch, 'mirror')
  const mirrors = [{ host: mirror.url, failure_limit: 1, health_check_interval: 60 }]
  const daemon = await scratch.nydusd(args(scratch, server, { registry: { mirrors } }))
  await isRight(scratch)
  assert.equal(server.counters().blob.requests, 0)
  assert.ok(mirror.counters().blob.requests > 0)
  mirror.fail({ times: 1000, fault: { kind: 'status', status: 503 } })
  mirror.resetCounters()
  await mountAgain(scratch, daemon, 'second', join(scratch.path, 'config.json'))
  await isRight(scratch, 'second')
  assert.ok(server.counters().blob.requests > 0)
})

test('the proxy is told who waits, and gets the headers of the environment; the API changes it', { skip }, async () => {
  await using scratch = new Scratch()
  await using server = await registryWith(scratch, 'registry')
  await using proxy = await startForwardProxy()
  await using other = await startForwardProxy()
  const proxied = { proxy: { url: proxy.url, dragonfly_scheduler_endpoint: 'scheduler:8002' } }
  const rafs = { prefetch: { enable: true, prefetch_all: true } }
  const env = {
    'NYDUS_HEADER_X-Tag': 'nodes of one rack',
    'NYDUS_HEADER_User-Agent': 'rack/1',
    'NYDUS_HEADER_a b': 'no',
  }
  const daemon = await scratch.nydusd(args(scratch, server, { registry: proxied, rafs }), env)
  for (let tries = 0; tries < 2400 && !proxy.passed.some(isPrefetch); tries += 1) await sleep(25)
  assert.ok(proxy.passed.some(isPrefetch), 'what is fetched ahead has priority 3')
  await isRight(scratch)
  await contextsIn(scratch.cache)
  assert.equal(server.counters().blob.requests, proxy.passed.length)
  for (const { headers } of proxy.passed)
    assert.deepEqual(
      [headers['x-tag'], headers['user-agent'], headers['x-dragonfly-use-p2p'], headers['x-dragonfly-prefetch']],
      ['nodes of one rack', 'rack/1', 'true', 'true'],
    )
  assert.equal(daemon.log.match(/dragonfly_scheduler_endpoint is no address of a scheduler/g)?.length, 1)
  const config = join(scratch.path, 'config.json')
  args(scratch, server, { registry: proxied })
  await set(daemon, 'moved', { proxy_url: other.url })
  await mountAgain(scratch, daemon, 'moved', config)
  const passed = proxy.passed.length
  await isRight(scratch, 'moved')
  assert.equal(proxy.passed.length, passed)
  assert.ok(other.passed.length > 0)
  assert.ok(other.passed.every(({ headers }) => headers['x-dragonfly-priority'] === '6'))
})

/** What failed slowly, as on a busy machine it may, fails at once for so long. */
const FAILURES_COUNT_MS = 1_100

function isPrefetch({ headers }: { readonly headers: Readonly<Record<string, unknown>> }): boolean {
  return headers['x-dragonfly-priority'] === '3'
}

test('without fallback an image is unreadable while its proxy is away, and readable when it is back', {
  skip,
}, async () => {
  await using scratch = new Scratch()
  await using server = await registryWith(scratch, 'registry')
  await using proxy = await startForwardProxy()
  proxy.interfere = () => 'reset'
  const strict = { retry_limit: 1, proxy: { url: proxy.url, fallback: false } }
  await scratch.nydusd(args(scratch, server, { registry: strict }))
  await assert.rejects(isRight(scratch))
  assert.equal(server.counters().blob.requests, 0)
  proxy.interfere = () => undefined
  await sleep(FAILURES_COUNT_MS)
  await isRight(scratch)
})
