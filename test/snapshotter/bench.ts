/** For tests: containerd, runc and the original's snapshotter over our nydusd, all of it private in a temporary folder. */
import assert from 'node:assert/strict'
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, existsSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { testWorld, type TestWorld } from '../../src/convert/testing.ts'
import { callApi } from '../../src/daemon/testing.ts'
import { type BenchOptions, writeConfigurations } from './configurations.ts'
import { pushTestImage } from './image.ts'
import { pullImage } from './pull-image.ts'

const DEADLINE_MS = 30_000
/** Where the kubelet's images are. */
const NAMESPACE = 'k8s.io'

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

export class Bench implements AsyncDisposable {
  readonly path = mkdtempSync(join(tmpdir(), 'snap-'))
  readonly image: string
  /** What `sha256sum /data/*` prints in a container of the image. */
  readonly sums: string
  /** Of the snapshotter; no other bench has it while this one runs. */
  readonly metricsPort = 20_000 + (process.pid % 10_000)
  readonly #world: TestWorld
  readonly #peers: string
  #containerd: ChildProcess | undefined
  #snapshotter: ChildProcess | undefined

  private constructor(world: TestWorld, peers: string, sums: string) {
    this.#world = world
    this.#peers = peers
    this.image = `${world.server.host}/app:nydus`
    this.sums = sums
  }

  /** `peers` has `containerd-nydus-grpc`. The image is in a registry, and nothing of it was pulled. */
  static async start(peers: string, options: BenchOptions): Promise<Bench> {
    const world = await testWorld()
    const bench = new Bench(world, peers, await pushTestImage(world))
    try {
      writeConfigurations({ path: bench.path, metricsPort: bench.metricsPort, ...options })
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

  #launch(program: string, args: readonly string[]): ChildProcess {
    const log = openSync(join(this.path, 'log'), 'a')
    const child = spawn(program, args, { stdio: ['ignore', log, log], cwd: this.path, detached: true })
    closeSync(log)
    return child
  }

  logs(): string {
    const path = join(this.path, 'log')
    return existsSync(path) ? readFileSync(path, 'utf8') : ''
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
    await pullImage(join(this.path, 'c.sock'), this.image)
  }

  async removeImage(): Promise<void> {
    for (const name of (await this.ctr('images', 'ls', '-q')).trim().split('\n'))
      await this.ctr('images', 'rm', '--sync', name)
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
