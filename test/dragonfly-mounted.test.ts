/** Images read through the seed peers of a Dragonfly cluster, whose scheduler and peers are fakes that speak the real protocols; and the original's nydusd beside ours in the same cluster. */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { type ForwardProxyServer, startForwardProxy } from '../src/backend/testing/proxy-server.ts'
import { contextsIn, Scratch, type TestDaemon } from '../src/daemon/testing.ts'
import { type FakePeer, type FakeScheduler, startPeer, startScheduler } from '../src/dragonfly/testing/index.ts'
import { whyNoFuse } from '../src/kernel/index.ts'
import {
  digestOf,
  fromPassword,
  parseReference,
  RegistryClient,
  type RegistryServer,
  startRegistry,
} from '../src/registry/index.ts'
import { nydusImage } from './nydus-image.ts'
import { noPeer, PeerDaemon } from './peer-daemon.ts'

const skip = whyNoFuse() ?? false
const REPO = 'test/image'
const LAYERS = 8

/** An image with a blob for each of its files. */
class LayeredImage implements AsyncDisposable {
  readonly #scratch = new Scratch()
  readonly tree = this.#scratch.folder('tree')
  readonly blobs = this.#scratch.folder('blobs')
  readonly bootstrap = join(this.#scratch.path, 'merged.boot')

  constructor() {
    const layers = this.#scratch.folder('layers')
    const parts = Array.from({ length: LAYERS }, (_, index) => {
      const layer = this.#scratch.folder(`layer-${index}`)
      for (const folder of [layer, this.tree])
        writeFileSync(join(folder, `file-${index}`), Buffer.alloc(50_000 + index, `layer ${index} `))
      const part = join(layers, `${index}.boot`)
      const before = new Set(readdirSync(this.blobs))
      nydusImage(['create', '-l', 'error', '-D', this.blobs, '-B', part, layer], this.#scratch.path)
      // What is merged is named for its blob.
      const named = join(layers, readdirSync(this.blobs).find((name) => !before.has(name)) ?? 'no blob')
      renameSync(part, named)
      return named
    })
    nydusImage(['merge', '-l', 'error', '-B', this.bootstrap, ...parts], this.#scratch.path)
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#scratch[Symbol.asyncDispose]()
  }
}

let built: LayeredImage | undefined
/** Built once for all tests. */
function image(): LayeredImage {
  built ??= new LayeredImage()
  return built
}
after(() => built?.[Symbol.asyncDispose]())

/** The image in a registry that wants a login; and a cluster whose peers fetch from there. */
class Site implements AsyncDisposable {
  readonly tree = image().tree
  readonly bootstrap = image().bootstrap
  readonly #stack = new AsyncDisposableStack()
  registry!: RegistryServer // started before anybody gets the site
  proxy!: ForwardProxyServer
  scheduler!: FakeScheduler
  readonly peers: FakePeer[] = []
  readonly proxies: ForwardProxyServer[] = []

  static async start(scratch: Scratch, size: number): Promise<Site> {
    const site = new Site()
    const auth = { kind: 'bearer', tokenLifeMs: 600_000, users: { ann: 'secret' } } as const
    site.registry = await startRegistry({ root: scratch.folder('registry'), host: '127.0.0.1', port: 0, auth })
    site.#stack.defer(() => site.registry.close())
    await upload(site.registry, image().blobs)
    site.proxy = site.#stack.use(await startForwardProxy())
    site.scheduler = site.#stack.use(await startScheduler())
    for (let index = 0; index < size; index += 1) {
      const [peer, proxy] = [site.#stack.use(await startPeer()), site.#stack.use(await startForwardProxy())]
      proxy.errorType = 'backend'
      site.peers.push(peer)
      site.proxies.push(proxy)
      site.scheduler.hosts.push(peer.host(`dragonfly-seed-client-${index}`, proxy.port))
    }
    return site
  }

  /** The options of a daemon, with a cache of its own. */
  options(scratch: Scratch, name: string, proxy: Record<string, unknown> = {}): string[] {
    const path = join(scratch.path, `${name}.json`)
    const registry = {
      host: this.registry.host,
      repo: REPO,
      scheme: 'http',
      auth: Buffer.from('ann:secret').toString('base64'),
      retry_limit: 3,
      proxy: { url: this.proxy.url, dragonfly_scheduler_endpoint: this.scheduler.endpoint, ...proxy },
    }
    const cache = { type: 'blobcache', filecache: { work_dir: scratch.folder(`cache-${name}`) } }
    writeFileSync(path, JSON.stringify({ version: 2, backend: { type: 'registry', registry }, cache, rafs: {} }))
    return ['--bootstrap', this.bootstrap, '--config', path]
  }

  /** Who was asked for which blob since the last time, and how: without order and number, which are the readers' own. */
  asked(): string[] {
    const seen = new Set<string>()
    const servers = [
      ['proxy', this.proxy] as const,
      ...this.proxies.map((peer, index) => [`peer ${index}`, peer] as const),
    ]
    for (const [name, server] of servers) {
      for (const { method, url, headers } of server.passed) {
        const ours = Object.entries(headers).filter(([key]) => key.startsWith('x-dragonfly-'))
        const marks = ours.map(([key, value]) => `${key.slice('x-dragonfly-'.length)}=${String(value)}`).sort()
        seen.add(`${name}: ${method} ${url} ${marks.join(' ')}`)
      }
      server.passed.length = 0
    }
    return [...seen].sort()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#stack.disposeAsync()
  }
}

async function upload(registry: RegistryServer, folder: string): Promise<void> {
  const client = new RegistryClient({ credentials: fromPassword('ann', 'secret'), plainHttp: 'always' })
  for (const name of readdirSync(folder)) {
    const bytes = readFileSync(join(folder, name))
    const open = async function* (): AsyncGenerator<Uint8Array> {
      yield bytes
    }
    await client
      .repository(parseReference(`${registry.host}/${REPO}`))
      .uploadBlob({ digest: digestOf(bytes), size: bytes.length, open })
  }
  await client.close()
  registry.resetCounters()
}

async function isRight(site: Site, mnt: string): Promise<void> {
  assert.equal(readdirSync(mnt).length, LAYERS)
  for (const name of readdirSync(site.tree))
    assert.ok((await readFile(join(mnt, name))).equals(readFileSync(join(site.tree, name))), name)
}

async function set(daemon: TestDaemon, endpoint: string): Promise<void> {
  const body = { dragonfly_scheduler_endpoint: endpoint }
  assert.equal((await daemon.api('PUT', '/api/v1/config?id=/', body)).status, 204)
}

test('blobs come from the peers that they belong to; the API changes where from', { skip }, async () => {
  await using scratch = new Scratch()
  await using site = await Site.start(scratch, 4)
  const daemon = await scratch.nydusd(site.options(scratch, 'ours'))
  await isRight(site, scratch.mnt)
  await contextsIn(join(scratch.path, 'cache-ours'), LAYERS)
  assert.match(daemon.log, new RegExp(`creating new proxy sdk client for ${site.scheduler.endpoint}`))
  assert.match(daemon.log, /4 of 4 seed peers are well/)
  assert.equal(site.proxy.passed.length, 0)
  const asked = site.proxies.reduce((sum, { passed }) => sum + passed.length, 0)
  assert.equal(site.registry.counters().blob.requests, asked, 'the registry saw what passed the peers, nothing else')
  assert.ok(new Set(site.asked().map((line) => line.slice(0, 6))).size > 1, 'several peers')
  const metrics = JSON.parse((await daemon.api('GET', '/api/v1/metrics/backend')).text) as Record<string, number>
  assert.equal(metrics['read_errors'], 0)
  assert.ok((metrics['read_count'] ?? 0) >= LAYERS)
  await set(daemon, '')
  await again(daemon, site, scratch, 'off')
  assert.ok(site.asked().every((line) => line.startsWith('proxy: GET')))
  await set(daemon, site.scheduler.endpoint)
  site.scheduler.hosts.length = 1
  await again(daemon, site, scratch, 'on')
  assert.ok(
    site.asked().every((line) => line.startsWith('peer 0: GET')),
    'peers were asked for anew',
  )
})

/** Mounts the image anew in the place of the first, so that its blobs are fetched again with what the API has set for it. */
async function again(daemon: TestDaemon, site: Site, scratch: Scratch, name: string): Promise<void> {
  const [, , , config = ''] = site.options(scratch, name)
  const unmounted = await daemon.api('DELETE', '/api/v1/mount?mountpoint=/')
  assert.equal(unmounted.status, 204, unmounted.text)
  const request = { fs_type: 'rafs', source: site.bootstrap, config: readFileSync(config, 'utf8') }
  const mounted = await daemon.api('POST', '/api/v1/mount?mountpoint=/', request)
  assert.equal(mounted.status, 204, mounted.text)
  await isRight(site, scratch.mnt)
  await contextsIn(join(scratch.path, `cache-${name}`), LAYERS)
}

test('a scheduler that is not there, or says nothing, costs its deadline once, and the proxy is used', {
  skip,
}, async () => {
  await using scratch = new Scratch()
  await using site = await Site.start(scratch, 1)
  site.scheduler.instead = 'silence'
  const daemon = await scratch.nydusd(site.options(scratch, 'ours', { fallback: false }))
  await isRight(site, scratch.mnt)
  assert.equal(site.scheduler.asked.length, 1, 'all readers waited for one question')
  assert.match(daemon.log, /cannot ask http:\S+ for ListHosts: no answer in 5000 ms/)
  assert.ok(site.asked().every((line) => line.startsWith('proxy: GET')))
})

test('the original asks the same peers for the same, in the same words', {
  skip: skip === false ? noPeer : skip,
  timeout: 180_000,
}, async () => {
  await using scratch = new Scratch()
  await using theirs = new Scratch()
  await using site = await Site.start(scratch, 6)
  {
    await using peer = await PeerDaemon.start(theirs, site.options(scratch, 'theirs'))
    await isRight(site, theirs.mnt)
    assert.match(peer.log, /creating new proxy sdk client/)
  }
  const original = site.asked()
  assert.ok(original.length >= LAYERS, original.join('\n'))
  await scratch.nydusd(site.options(scratch, 'ours'))
  await isRight(site, scratch.mnt)
  assert.deepEqual(site.asked(), original)
  for (const { server } of [site.scheduler, ...site.peers]) assert.deepEqual(server.breaches, [])
})

/** What peers answer instead of a blob. */
const ANSWERS: ReadonlyArray<readonly [status: number, type: string | undefined]> = [
  [429, 'proxy'],
  [403, 'proxy'],
  [500, 'proxy'],
  [404, 'backend'],
  [500, 'backend'],
  [503, 'dfdaemon'],
  [418, 'unknown'],
  [403, undefined],
  [502, undefined],
]

test('the original takes what peers answer for the same, and turns to the same others', {
  skip: skip === false ? noPeer : skip,
  timeout: 400_000,
}, async () => {
  await using scratch = new Scratch()
  await using site = await Site.start(scratch, 2)
  for (const [status, type] of ANSWERS) {
    const what = `${status} of ${type}`
    const refuse = (): void => {
      const headers = type === undefined ? {} : { headers: { 'x-dragonfly-error-type': type } }
      for (const proxy of site.proxies) proxy.interfere = () => ({ status, ...headers })
    }
    const given = (whose: string): string[] => site.options(scratch, `${whose}-${status}-${type}`, { fallback: false })
    const original = await outcome(site, refuse, (theirs) => PeerDaemon.start(theirs, given('theirs')))
    const ours = await outcome(site, refuse, async (mine) => {
      await mine.nydusd(given('ours'))
      return undefined
    })
    assert.deepEqual(ours, original, what)
    assert.ok(ours.asked[0]?.startsWith('peer '), what)
    assert.equal(ours.readable, status !== 403, what)
  }
})

/** Whether one file of a mounted image can be read when peers begin to refuse, and who is asked for it. */
async function outcome(
  site: Site,
  refuse: () => void,
  start: (scratch: Scratch) => Promise<AsyncDisposable | undefined>,
): Promise<{ readonly readable: boolean; readonly asked: readonly string[] }> {
  await using scratch = new Scratch()
  for (const proxy of site.proxies) proxy.interfere = () => undefined
  await using _daemon = await start(scratch)
  // What belongs to the mount, something of each blob, is fetched until nothing comes any more.
  const blobs = new Set<string | undefined>()
  for (let isQuiet = false; !isQuiet || blobs.size < LAYERS; ) {
    await sleep(QUIET_MS)
    const asked = site.asked()
    isQuiet = asked.length === 0
    for (const line of asked) blobs.add(/sha256:\w+/.exec(line)?.[0])
  }
  refuse()
  const readable = await readFile(join(scratch.mnt, 'file-3')).then(
    (bytes) => bytes.equals(readFileSync(join(site.tree, 'file-3'))) || assert.fail('wrong bytes'),
    () => false,
  )
  return { readable, asked: site.asked() }
}

const QUIET_MS = 300
