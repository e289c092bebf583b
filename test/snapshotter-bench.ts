/** For tests: containerd, runc and the original's snapshotter over our nydusd, all of it private in a temporary folder. */
import assert from 'node:assert/strict'
import { type ChildProcess, execFile, execFileSync, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import {
  mkdirSync,
  mkdtempSync,
  openSync,
  closeSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { connect as connectHttp2 } from 'node:http2'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { convert, type EntryText, pushImage, tarOf, testWorld, type TestWorld } from '../src/convert/testing.ts'
import { callApi } from '../src/daemon/testing.ts'

const root = join(import.meta.dirname, '..')
const DEADLINE_MS = 30_000
const PROGRAMS = ['sh', 'cat', 'dd', 'sha256sum', 'sleep']
/** Where the kubelet's images are. */
const NAMESPACE = 'k8s.io'

/** What the configurations of the snapshotter differ in. */
export interface BenchOptions {
  readonly mode: 'shared' | 'dedicated'
  readonly recover: 'none' | 'restart' | 'failover'
}

/** A daemon, as the snapshotter's system API shows it. */
export interface BenchDaemon {
  readonly id: string
  readonly pid: number
  readonly api_socket: string
  readonly mountpoint: string
  readonly instances: Readonly<Record<string, { readonly mountpoint: string }>>
}

/** Asks until there is an answer; throws with `what` after the deadline. */
export async function until<T>(what: string, ask: () => Promise<T | undefined> | T | undefined): Promise<T> {
  const deadline = Date.now() + DEADLINE_MS
  let last: unknown
  while (Date.now() < deadline) {
    try {
      const answer = await ask()
      if (answer !== undefined) return answer
    } catch (error) {
      last = error // not yet
    }
    await sleep(100)
  }
  throw new Error(`${what} did not come to be`, { cause: last })
}

/** Files of the host as entries of an image: programs, and the libraries that they load. */
function programs(): EntryText[] {
  const files = new Map<string, string>()
  for (const name of PROGRAMS) {
    const path = execFileSync('sh', ['-c', `command -v ${name}`], { encoding: 'utf8' }).trim()
    files.set(`bin/${name}`, path)
    for (const [, library = ''] of execFileSync('ldd', [path], { encoding: 'utf8' }).matchAll(/(\/\S+) \(0x/g))
      files.set(library.slice(1), library)
  }
  return [...files].map(([path, from]) => ({
    path,
    type: 'file',
    mode: 0o755,
    content: readFileSync(realpathSync(from)),
  }))
}

/** Files of many sizes whose bytes look random. */
function data(): EntryText[] {
  return Array.from({ length: 24 }, (_, index) => {
    const words = new Uint32Array(1 + ((index * index * index * 25) | 0))
    let word = index + 1
    for (let at = 0; at < words.length; at += 1) words[at] = word = Math.imul(word, 0x9e37_79b1) ^ (word >>> 13)
    return { path: `data/${String(index).padStart(2, '0')}`, type: 'file', content: new Uint8Array(words.buffer) }
  })
}

function digest(content: string | Uint8Array): string {
  return createHash('sha256').update(content).digest('hex')
}

export class Bench implements AsyncDisposable {
  readonly path = mkdtempSync(join(tmpdir(), 'snap-'))
  readonly image: string
  /** What `sha256sum /data/*` prints in a container of the image. */
  readonly sums: string
  readonly #world: TestWorld
  readonly #options: BenchOptions
  readonly #peers: string
  #containerd: ChildProcess | undefined
  #snapshotter: ChildProcess | undefined

  private constructor(world: TestWorld, peers: string, options: BenchOptions, files: readonly EntryText[]) {
    this.#world = world
    this.#peers = peers
    this.#options = options
    this.image = `${world.server.host}/app:nydus`
    this.sums = files.map(({ path, content = '' }) => `${digest(content)}  /${path}\n`).join('')
  }

  /** `peers` has `containerd-nydus-grpc`. The image is in a registry, and nothing of it was pulled. */
  static async start(peers: string, options: BenchOptions): Promise<Bench> {
    const world = await testWorld()
    const files = data()
    const directories = ['data', 'dev', 'etc', 'proc', 'run', 'sys', 'tmp'].map(
      (path): EntryText => ({ path: `${path}/`, type: 'directory' }),
    )
    const layers = [await tarOf([...directories, ...programs()]), await tarOf(files)]
    await pushImage(world.repository('app:plain'), layers)
    await convert(world, 'app', { prefetchPaths: [] })
    const bench = new Bench(world, peers, options, files)
    try {
      bench.#configure()
      await bench.startSnapshotter()
      bench.#containerd = bench.#launch('containerd', ['-c', join(bench.path, 'containerd.toml')])
      await until('containerd', async () => (await bench.ctr('version')) && true)
      return bench
    } catch (error) {
      const logs = bench.logs()
      await bench[Symbol.asyncDispose]()
      throw new Error(logs, { cause: error })
    }
  }

  #configure(): void {
    const { path } = this
    for (const name of ['cni', 'certs', 'nydus']) mkdirSync(join(path, name))
    for (const name of ['nydusd', 'nydusd-new']) symlinkSync(join(root, 'bin/nydusd'), join(path, name))
    const cri = 'plugins."io.containerd.grpc.v1.cri"'
    const { snapshotter, nydusd, containerd } = this.#shown()
    const document = JSON.parse(nydusd) as { device: { backend: { config: Record<string, unknown> } } }
    document.device.backend.config['scheme'] = 'http'
    writeFileSync(join(path, 'nydusd.json'), JSON.stringify(document))
    const more = '[log]\nlog_to_stdout = true\nlevel = "debug"\n[snapshot]\nsync_remove = true\n'
    const metrics = 'collect_interval = "1s"\nhung_io_interval = "1s"\n'
    writeFileSync(join(path, 'snapshotter.toml'), `${snapshotter}${metrics}${more}`)
    writeFileSync(
      join(path, 'containerd.toml'),
      `root = "${path}/root"
state = "${path}/state"
${containerd}
[grpc]
  address = "${path}/c.sock"
[ttrpc]
  address = "${path}/c.sock.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "${path}/opt"
[${cri}]
  disable_apparmor = true
  restrict_oom_score_adj = true
  [${cri}.registry]
    config_path = "${path}/certs"
  [${cri}.cni]
    bin_dir = "${path}/cni"
    conf_dir = "${path}/cni"
`,
    )
  }

  /** The configurations of the handbook, with the names of this bench. */
  #shown(): { snapshotter: string; nydusd: string; containerd: string } {
    const { path } = this
    const page = readFileSync(join(root, 'docs/running-containers.md'), 'utf8')
    const section = page.slice(page.indexOf("## With upstream's snapshotter"))
    const blocks = [...section.matchAll(/^```(?:toml|json)\n(.*?)^```$/gms)].map(([, text = '']) =>
      text
        .replaceAll('/var/lib/containerd/io.containerd.snapshotter.v1.nydus', `${path}/nydus`)
        .replaceAll('/run/containerd-nydus/containerd-nydus-grpc.sock', `${path}/s.sock`)
        .replaceAll('/run/containerd-nydus/system.sock', `${path}/system.sock`)
        .replaceAll('/opt/nydus-node/bin/nydusd', `${path}/nydusd`)
        .replaceAll('/etc/nydus/nydusd-config.json', `${path}/nydusd.json`)
        .replaceAll('127.0.0.1:9110', `127.0.0.1:${this.metricsPort}`)
        .replaceAll('daemon_mode = "shared"', `daemon_mode = "${this.#options.mode}"`)
        .replaceAll('recover_policy = "failover"', `recover_policy = "${this.#options.recover}"`),
    )
    assert.equal(blocks.length, 3)
    const [snapshotter = '', nydusd = '', containerd = ''] = blocks
    return { snapshotter, nydusd, containerd }
  }

  /** Of the snapshotter; no other bench has it while this one runs. */
  readonly metricsPort = 20_000 + (process.pid % 10_000)

  #launch(program: string, args: readonly string[]): ChildProcess {
    const log = openSync(join(this.path, 'log'), 'a')
    const child = spawn(program, args, { stdio: ['ignore', log, log], cwd: this.path, detached: true })
    closeSync(log)
    return child
  }

  logs(): string {
    return readFileSync(join(this.path, 'log'), 'utf8')
  }

  async startSnapshotter(): Promise<void> {
    this.#snapshotter = this.#launch(join(this.#peers, 'containerd-nydus-grpc'), [
      '--config',
      join(this.path, 'snapshotter.toml'),
    ])
    await until('the snapshotter', async () => {
      assert.equal(this.#snapshotter?.exitCode, null)
      return await this.daemons()
    })
  }

  /** Ends it with the signal, and starts another one. Daemons stay. */
  async restartSnapshotter(signal: NodeJS.Signals): Promise<void> {
    const child = this.#snapshotter
    assert.ok(child)
    child.kill(signal)
    await once(child, 'exit')
    for (const name of ['s.sock', 'system.sock']) rmSync(join(this.path, name), { force: true })
    await this.startSnapshotter()
  }

  async ctr(...args: readonly string[]): Promise<string> {
    const given = ['-a', join(this.path, 'c.sock'), '-n', NAMESPACE, ...args]
    return (await promisify(execFile)('ctr', given, { timeout: DEADLINE_MS })).stdout
  }

  /** As the kubelet pulls. */
  async pull(): Promise<void> {
    await this.#cri('PullImage')
  }

  async removeImage(): Promise<void> {
    for (const name of (await this.ctr('images', 'ls', '-q')).trim().split('\n'))
      await this.ctr('images', 'rm', '--sync', name)
  }

  /** A call of CRI's image service whose request is an image's name. */
  async #cri(method: string): Promise<void> {
    const name = Buffer.from(this.image)
    const spec = Buffer.concat([Buffer.of(0x0a, name.length), name])
    const message = Buffer.concat([Buffer.of(0x0a, spec.length), spec])
    const head = Buffer.alloc(5)
    head.writeUInt32BE(message.length, 1)
    const session = connectHttp2('http://localhost', { createConnection: () => connect(join(this.path, 'c.sock')) })
    try {
      const call = session.request({
        ':method': 'POST',
        ':path': `/runtime.v1.ImageService/${method}`,
        'content-type': 'application/grpc',
        te: 'trailers',
      })
      const outcome = new Promise<Record<string, unknown>>((resolve, reject) => {
        call.on('response', (headers) => 'grpc-status' in headers && resolve(headers))
        call.on('trailers', resolve)
        call.on('error', reject)
        call.setTimeout(DEADLINE_MS, () => reject(new Error(`${method}: no answer`)))
      })
      call.end(Buffer.concat([head, message]))
      call.resume()
      const { 'grpc-status': status, 'grpc-message': text } = await outcome
      assert.equal(String(status), '0', `${method}: ${String(text)}`)
    } finally {
      session.destroy()
    }
  }

  /** A container that sleeps, with its root file system from our nydusd. */
  async run(id: string): Promise<void> {
    await this.ctr(
      'run',
      '-d',
      '--runc-root',
      join(this.path, 'runc'),
      '--snapshotter',
      'nydus',
      this.image,
      id,
      '/bin/sleep',
      '1000',
    )
  }

  /** The program's output in a container; throws when it fails. */
  async exec(id: string, script: string): Promise<string> {
    const name = `e${process.hrtime.bigint()}`
    return await this.ctr('task', 'exec', '--exec-id', name, id, '/bin/sh', '-c', script)
  }

  async remove(id: string): Promise<void> {
    await this.ctr('task', 'rm', '-f', id)
    await this.ctr('container', 'rm', id)
  }

  async daemons(): Promise<BenchDaemon[]> {
    return JSON.parse((await this.system('GET', '/api/v1/daemons')).text) as BenchDaemon[]
  }

  /** The only daemon there is. */
  async daemon(): Promise<BenchDaemon> {
    const [daemon, ...others] = await this.daemons()
    assert.ok(daemon)
    assert.deepEqual(others, [])
    return daemon
  }

  async system(method: string, path: string, body?: unknown): ReturnType<typeof callApi> {
    return await callApi(
      join(this.path, 'system.sock'),
      method,
      path,
      body === undefined ? undefined : JSON.stringify(body),
    )
  }

  /** A daemon's answer to its own API; of a socket without one, an error. */
  async state(daemon: BenchDaemon): Promise<string> {
    return (JSON.parse((await callApi(daemon.api_socket, 'GET', '/api/v1/daemon')).text) as { state: string }).state
  }

  /** The only daemon, when it is another process than `pid` and serves. */
  async successor(pid: number): Promise<BenchDaemon> {
    return await until(`a daemon after ${pid}`, async () => {
      const daemon = await this.daemon()
      return daemon.pid !== pid && (await this.state(daemon)) === 'RUNNING' ? daemon : undefined
    })
  }

  /** How often the snapshotter got the state of a daemon. A message that it waits for crosses one that it sends, if it is asked for both. */
  statesKept(): number {
    return this.logs().split(' receives states.').length - 1
  }

  /** Mounts below the bench's folder that have the type. */
  mounts(type: string): string[] {
    return readFileSync('/proc/self/mounts', 'utf8')
      .split('\n')
      .map((line) => line.split(' '))
      .filter(([, at = '', kind]) => at.startsWith(`${this.path}/`) && kind === type)
      .map(([, at = '']) => at)
  }

  /** Processes whose command line names the bench's folder. */
  processes(program: string): number[] {
    return readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name))
      .filter((pid) => {
        try {
          const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8')
          return words.includes(`${this.path}/`) && words.includes(program)
        } catch {
          return false // it ended
        }
      })
      .map(Number)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      for (const line of (await this.ctr('task', 'ls', '-q')).split('\n').filter(Boolean))
        await this.ctr('task', 'rm', '-f', line)
    } catch {
      // containerd does not answer: what is left is ended below
    }
    for (const child of [this.#containerd, this.#snapshotter]) child?.kill('SIGKILL')
    for (let tries = 0; tries < 20 && this.processes('').length > 0; tries += 1) {
      for (const pid of this.processes('')) {
        try {
          process.kill(pid, 'SIGKILL')
        } catch {
          // it ended
        }
      }
      await sleep(50)
    }
    const points = readFileSync('/proc/self/mounts', 'utf8')
      .split('\n')
      .map((line) => line.split(' ')[1] ?? '')
    for (const at of points.filter((point) => point.startsWith(`${this.path}/`)).reverse())
      await promisify(execFile)('umount', ['-l', at])
    rmSync(this.path, { recursive: true, force: true })
    await this.#world[Symbol.asyncDispose]()
  }
}
