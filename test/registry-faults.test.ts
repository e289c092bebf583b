/** Every way in which a registry can be ill: a reader gets the right bytes or EIO by the deadline, things are well again by themselves, and nothing is left over. */
import assert from 'node:assert/strict'
import { type ChildProcess, execFile, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { Worker } from 'node:worker_threads'
import { whyNoFuse } from '../src/kernel/index.ts'
import { FAULT_KINDS, type FaultKind } from './registry-faults/fault-kinds.ts'
import { type Elsewhere, RawRegistry, response } from './registry-faults/raw-registry.ts'
import { CARRIED_BLOBS, carriedImage, Scratch, type TestDaemon } from '../src/daemon/testing.ts'

const noOpenssl = spawnSync('openssl', ['version']).error !== undefined
const skip = whyNoFuse() ?? (noOpenssl ? 'openssl is not installed' : false)
const IMAGE = carriedImage('v6-tar-none-c64k')
const BLOB = readFileSync(join(CARRIED_BLOBS, IMAGE.blobs[0] ?? ''))
const FILE = 'sizes/65536'
const RIGHT = JSON.parse(
  readFileSync(IMAGE.tree, 'utf8')
    .split('\n')
    .find((line) => line.includes(`"/${FILE}"`)) ?? '{}',
) as { readonly sha256: string }
/** (1 s to connect + 1 s of silence) × 2 tries + 10 s: the least that a configuration can ask for. */
const DEADLINE_MS = 14_000
/** A machine that is busy with other things. */
const SLACK_MS = 30_000
const RECOVERY_MS = 40_000
const AT_ONCE = 24

/** What a reader in another process comes to: this one stays free to serve. */
async function read(path: string): Promise<string> {
  const child: ChildProcess = execFile('cat', [path], { encoding: 'buffer', maxBuffer: 1 << 20 })
  const hash = createHash('sha256')
  let [size, message] = [0, '']
  child.stdout?.on('data', (part: Buffer) => {
    size += part.length
    hash.update(part)
  })
  child.stderr?.on('data', (part: Buffer) => (message += part.toString()))
  const [code] = (await once(child, 'close')) as [number]
  if (code !== 0) return /Input\/output error/.test(message) ? 'EIO' : message
  return hash.digest('hex') === RIGHT.sha256 ? 'bytes' : `${size} wrong bytes`
}

/** Connections that a queue of one takes. */
const QUEUED = 2

/** A port whose queue of connections is full. */
class HungPort implements AsyncDisposable {
  readonly #worker: Worker
  readonly #sockets: Socket[] = []
  port = 0

  private constructor(worker: Worker) {
    this.#worker = worker
  }

  static async open(): Promise<HungPort> {
    const program = `const { parentPort } = require('node:worker_threads')
      const server = require('node:net').createServer().listen({ port: 0, host: '127.0.0.1', backlog: 1 }, () => {
        parentPort.postMessage(server.address().port)
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0) // it takes no connection, for ever
      })`
    const hung = new HungPort(new Worker(program, { eval: true }))
    ;[hung.port] = (await once(hung.#worker, 'message')) as [number]
    for (let count = 0; count < 8; count += 1) hung.#sockets.push(connect(hung.port, '127.0.0.1').on('error', () => {}))
    while (hung.#sockets.filter((socket) => !socket.connecting).length < QUEUED) await sleep(10)
    return hung
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy()
    await this.#worker.terminate()
  }
}

/** A key and a certificate that nobody knows. */
function strangerIn(folder: string): { key: string; cert: string } {
  const [key, cert] = [join(folder, 'key.pem'), join(folder, 'cert.pem')]
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-subj', '/CN=127.0.0.1']
  const made = spawnSync('openssl', ['req', '-x509', ...newKey, '-keyout', key, '-out', cert], { encoding: 'utf8' })
  assert.equal(made.status, 0, made.stderr)
  return { key: readFileSync(key, 'utf8'), cert: readFileSync(cert, 'utf8') }
}

/** A daemon, registries that it mounts from, and the places beside them. */
class Ward extends Scratch {
  daemon!: TestDaemon // these are set by `open`, the only maker
  elsewhere!: Elsewhere
  store!: RawRegistry
  readonly #registries: RawRegistry[] = []
  #hung: HungPort | undefined
  #mounts = 0

  static async open(): Promise<Ward> {
    const ward = new Ward()
    try {
      await ward.#fill()
      return ward
    } catch (error) {
      await ward[Symbol.asyncDispose]()
      throw error
    }
  }

  async #fill(): Promise<void> {
    this.#hung = await HungPort.open()
    this.store = await this.registry()
    const stranger = await this.registry(new RawRegistry(BLOB, strangerIn(this.path)))
    const dead = await this.registry()
    this.elsewhere = {
      store: `http://127.0.0.1:${this.store.port}/x`,
      dead: `http://127.0.0.1:${dead.port}/x`,
      hung: `http://127.0.0.1:${this.#hung.port}/x`,
      noTls: `https://127.0.0.1:${this.store.port}/x`,
      untrusted: `https://127.0.0.1:${stranger.port}/x`,
    }
    await dead.close()
    this.daemon = await this.nydusd(['--log-level', 'error'])
  }

  async registry(made = new RawRegistry(BLOB)): Promise<RawRegistry> {
    await made.listen()
    this.#registries.push(made)
    if (this.elsewhere !== undefined) made.elsewhere = this.elsewhere
    return made
  }

  /** Mounts the image from a registry, with an empty cache; where the file is, and how to unmount. */
  async mount({ port }: RawRegistry, more: Record<string, unknown> = {}): Promise<[string, () => Promise<void>]> {
    const name = `m${++this.#mounts}`
    const network = { timeout: 1, connect_timeout: 1, retry_limit: 1 }
    const registry = { host: `127.0.0.1:${port}`, repo: 'test/image', scheme: 'http', ...network, ...more }
    const device = {
      backend: { type: 'registry', config: registry },
      cache: { type: 'blobcache', config: { work_dir: this.folder(name) } },
    }
    const config = JSON.stringify({ device, mode: 'direct', amplify_io: 0 })
    const at = `/api/v1/mount?mountpoint=/${name}`
    const answer = await this.daemon.api('POST', at, { source: IMAGE.bootstrap, fs_type: 'rafs', config })
    assert.equal(answer.status, 204, answer.text)
    const unmount = async (): Promise<void> => assert.equal((await this.daemon.api('DELETE', at)).status, 204)
    return [join(this.mnt, name, FILE), unmount]
  }

  /** Descriptors of the daemon that are no files: sockets, those of its threads, and so on. */
  sockets(): number {
    const folder = `/proc/${this.daemon.child.pid}/fd`
    return readdirSync(folder).filter((fd) => linkOf(join(folder, fd)).startsWith('socket:')).length
  }

  override async [Symbol.asyncDispose](): Promise<void> {
    await super[Symbol.asyncDispose]()
    for (const registry of this.#registries) await registry.close()
    await this.#hung?.[Symbol.asyncDispose]()
  }
}

function linkOf(path: string): string {
  try {
    return readlinkSync(path)
  } catch {
    return '' // closed meanwhile
  }
}

/** Reads until the bytes come: nobody remounts or restarts anything. */
async function recovered(path: string): Promise<string> {
  const until = performance.now() + RECOVERY_MS
  for (;;) {
    const end = await read(path)
    if (end !== 'EIO' || performance.now() > until) return end
    await sleep(200)
  }
}

async function suffer(ward: Ward, { fault, end, wantsToken }: FaultKind): Promise<void> {
  const registry = await ward.registry()
  registry.wantsToken = wantsToken
  const [path, unmount] = await ward.mount(registry)
  registry.begin(fault)
  const from = performance.now()
  assert.equal(await read(path), end)
  const took = performance.now() - from
  assert.ok(took < DEADLINE_MS + SLACK_MS, `the reader waited ${Math.round(took)} ms`)
  registry.fault = undefined
  assert.equal(await recovered(path), 'bytes')
  await unmount()
}

test('a registry that is ill', { skip, timeout: 180_000, concurrency: AT_ONCE }, async (t) => {
  await using ward = await Ward.open()
  const before = ward.sockets()
  await Promise.all(FAULT_KINDS.map((kind) => t.test(`it ${kind.name}`, () => suffer(ward, kind))))
  await t.test('leaves nothing behind', async () => {
    assert.equal((await ward.daemon.api('GET', '/api/v1/metrics/inflight')).status, 204, 'a read still waits')
    for (let tries = 0; ward.sockets() > before && tries < 600; tries += 1) await sleep(100)
    assert.ok(ward.sockets() <= before, `${ward.sockets()} sockets, ${before} before`)
  })
})

test('a registry that nobody listens at, and later somebody does', { skip, timeout: 180_000 }, async () => {
  await using ward = await Ward.open()
  const registry = await ward.registry()
  const { port } = registry
  const [path] = await ward.mount(registry)
  await registry.close()
  assert.equal(await read(path), 'EIO')
  await registry.listen(port)
  assert.equal(await recovered(path), 'bytes')
})

test('a login goes to the registry, never to where it redirects', { skip, timeout: 180_000 }, async () => {
  await using ward = await Ward.open()
  const registry = await ward.registry()
  registry.begin(({ socket, authorization }) => {
    const isLoggedIn = authorization === `Basic ${btoa('me:secret')}`
    const login = response(401, '', ['WWW-Authenticate: Basic realm="x"'])
    socket.write(isLoggedIn ? response(307, '', [`Location: ${ward.elsewhere.store}`]) : login)
  })
  const [path] = await ward.mount(registry, { auth: btoa('me:secret') })
  assert.equal(await read(path), 'bytes')
  assert.ok(ward.store.authorizations.length > 0)
  assert.deepEqual(new Set(ward.store.authorizations), new Set([undefined]))
})
