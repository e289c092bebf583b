/** A node of a cluster without a cluster: containerd, runc, a snapshotter and nydusd, all of it private in a folder. */
import assert from 'node:assert/strict'
import { type ChildProcess, execFile } from 'node:child_process'
import { chmodSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { promisify } from 'node:util'
import { callApi } from '../../src/daemon/testing.ts'
import { cgroupProcesses, removeCgroups } from './cgroups.ts'
import { type NodeSettings, snapshotterRoot, writeConfigurations } from './configurations.ts'
import { Cri } from './cri.ts'
import { ended, GivenUp, isAlive, killAll, launch, processesOf, until } from './launched.ts'
import { leftOvers, mountsBelow, shimSockets, unmountBelow } from './left-overs.ts'
import { writePodNetwork } from './pod-network.ts'
import { freePort } from './registry.ts'
import type { Runtime } from './runtimes.ts'
import { type ManagedStart, ServiceManager } from './service-manager.ts'

const CALL_MS = 120_000
/** Where the kubelet's images are. */
export const NAMESPACE = 'k8s.io'

/** The programs under test. */
export interface Programs {
  readonly snapshotter: string
  readonly nydusd: string
}

export interface NodeOptions extends NodeSettings {
  readonly runtime: Runtime
  readonly programs: Programs
  readonly pauseImage: string
  readonly registryHost: string
}

/** A daemon, as the snapshotter's system API shows it. */
export interface NodeDaemon {
  readonly id: string
  readonly pid: number
  readonly api_socket: string
  readonly mountpoint: string
  readonly instances: Readonly<Record<string, { readonly mountpoint: string }>>
}

export class TestNode implements AsyncDisposable {
  /** Short: names of sockets have at most 107 bytes. */
  readonly path = mkdtempSync(join(tmpdir(), 'node-'))
  /** The control group of its containers. */
  readonly cgroup = basename(this.path)
  /** The snapshotter's. */
  readonly root = snapshotterRoot(this.path)
  readonly cri: Cri
  readonly #options: NodeOptions
  readonly #shims = new Set<string>()
  #metricsPort = 0
  #containerd: ChildProcess | undefined
  #snapshotter: ChildProcess | undefined
  #manager: ServiceManager | undefined

  private constructor(options: NodeOptions) {
    this.#options = options
    this.cri = new Cri(this.socket, { logs: join(this.path, 'pods'), cgroup: `/${this.cgroup}` })
  }

  static async start(options: NodeOptions): Promise<TestNode> {
    const node = new TestNode(options)
    try {
      chmodSync(node.path, 0o711) // users of containers reach their roots
      node.#metricsPort = await freePort()
      if (options.isManaged === true) node.#manager = new ServiceManager(node.path)
      writeConfigurations({
        ...options,
        path: node.path,
        metricsPort: node.#metricsPort,
        nydusd: options.programs.nydusd,
      })
      writePodNetwork(node.path)
      await node.startSnapshotter()
      await node.startContainerd()
      return node
    } catch (error) {
      const logs = node.logs()
      await node[Symbol.asyncDispose]()
      throw new Error(`${(error as Error).message}\n${logs}`, { cause: error })
    }
  }

  get socket(): string {
    return join(this.path, 'c.sock')
  }

  #launch(program: string, args: readonly string[], log: string, managed?: Partial<ManagedStart>): ChildProcess {
    const at = join(this.path, `${log}.log`)
    const env = { PATH: this.#options.runtime.path, ...managed?.env }
    const descriptors = managed?.descriptors ?? []
    return launch(program, args, { cwd: this.path, log: at, env, mark: this.path, descriptors })
  }

  /** The ends of what the programs have said. */
  logs(): string {
    return ['snapshotter', 'containerd'].map((name) => `--- ${name}\n${this.log(name).slice(-6000)}`).join('\n')
  }

  log(name: string): string {
    const path = join(this.path, `${name}.log`)
    return existsSync(path) ? readFileSync(path, 'utf8') : ''
  }

  /** Another program than the node's takes over what is there. */
  async startSnapshotter(program = this.#options.programs.snapshotter): Promise<void> {
    for (const name of ['s.sock', 'system.sock']) rmSync(join(this.path, name), { force: true })
    const args = ['--config', join(this.path, 'snapshotter.toml')]
    const managed = await this.#manager?.managed(program, args)
    const child = this.#launch(managed?.program ?? program, managed?.args ?? args, 'snapshotter', managed)
    this.#snapshotter = child
    await until('the snapshotter', async () => {
      stillRuns(child, 'the snapshotter')
      return (await this.daemons()) && existsSync(join(this.path, 's.sock')) ? true : undefined
    })
  }

  async stopSnapshotter(signal: NodeJS.Signals): Promise<void> {
    await stop(this.#snapshotter, signal)
  }

  /** Ends it with the signal, and starts another one. Daemons stay. */
  async restartSnapshotter(signal: NodeJS.Signals): Promise<void> {
    await this.stopSnapshotter(signal)
    await this.startSnapshotterAgain()
  }

  /** After one that ended under containerd, which waits up to three seconds before it connects again, and calls fail meanwhile. */
  async startSnapshotterAgain(): Promise<void> {
    await this.startSnapshotter()
    await until('containerd to reach the snapshotter', async () => {
      await this.ctr('snapshots', '--snapshotter', 'nydus', 'ls')
      return true
    })
  }

  /** Sessions that the service manager keeps. */
  async keptSessions(): Promise<readonly string[]> {
    return (await this.#manager?.names()) ?? []
  }

  async startContainerd(): Promise<void> {
    const child = this.#launch('containerd', ['-c', join(this.path, 'containerd.toml')], 'containerd')
    this.#containerd = child
    await until('containerd', async () => {
      stillRuns(child, 'containerd')
      const { status } = await this.cri.runtime.status({}, { timeoutMs: 5000 })
      await this.ctr('version')
      return status?.conditions.some(({ type, status: isReady }) => type === 'RuntimeReady' && isReady) || undefined
    })
  }

  async stopContainerd(signal: NodeJS.Signals): Promise<void> {
    this.#noteShims()
    await stop(this.#containerd, signal)
  }

  async restartContainerd(signal: NodeJS.Signals): Promise<void> {
    await this.stopContainerd(signal)
    await this.startContainerd()
  }

  /** Everything is killed at once and its mounts are gone, as after a power cut; containerd and the snapshotter then start again. */
  async reboot(): Promise<void> {
    await this.#killAll()
    rmSync(join(this.path, 's'), { recursive: true, force: true })
    rmSync(join(this.path, 'runc'), { recursive: true, force: true })
    await this.startSnapshotter()
    await this.startContainerd()
  }

  async ctr(...args: readonly string[]): Promise<string> {
    return await this.ctrOf(NAMESPACE, ...args)
  }

  async ctrOf(namespace: string, ...args: readonly string[]): Promise<string> {
    const given = ['-a', this.socket, '-n', namespace, ...args]
    const env = { ...process.env, PATH: this.#options.runtime.path }
    const { stdout } = await promisify(execFile)('ctr', given, { timeout: CALL_MS, env, maxBuffer: 64 << 20 })
    return stdout
  }

  /** A container without a pod, that sleeps. */
  async run(image: string, id: string, namespace = NAMESPACE): Promise<void> {
    const places = ['--runc-root', join(this.path, 'runc'), '--cgroup', `/${this.cgroup}/${id}`]
    const sleeps = [image, id, '/bin/sleep', '1000']
    await this.ctrOf(namespace, 'run', '-d', ...places, '--snapshotter', 'nydus', ...sleeps)
    this.#noteShims()
  }

  /** A container that was there before a reboot. */
  async startAgain(id: string): Promise<void> {
    await this.ctr('task', 'start', '-d', id)
    this.#noteShims()
  }

  /** The program's output in a container; throws when it fails. */
  async exec(id: string, script: string, namespace = NAMESPACE): Promise<string> {
    const name = `e${process.hrtime.bigint()}`
    return await this.ctrOf(namespace, 'task', 'exec', '--exec-id', name, id, '/bin/sh', '-c', script)
  }

  async remove(id: string, namespace = NAMESPACE): Promise<void> {
    this.#noteShims()
    await this.ctrOf(namespace, 'task', 'rm', '-f', id)
    await this.ctrOf(namespace, 'container', 'rm', id)
  }

  /** All images of a namespace. */
  async removeImages(namespace = NAMESPACE): Promise<void> {
    const names = (await this.ctrOf(namespace, 'images', 'ls', '-q')).trim()
    for (const name of names.split('\n').filter(Boolean)) await this.ctrOf(namespace, 'images', 'rm', '--sync', name)
  }

  async system(method: string, path: string, body?: unknown): ReturnType<typeof callApi> {
    const text = body === undefined ? undefined : JSON.stringify(body)
    return await callApi(join(this.path, 'system.sock'), method, path, text)
  }

  async daemons(): Promise<NodeDaemon[]> {
    const { status, text } = await this.system('GET', '/api/v1/daemons')
    assert.equal(status, 200, text)
    return (JSON.parse(text) ?? []) as NodeDaemon[]
  }

  /** The only daemon there is. */
  async daemon(): Promise<NodeDaemon> {
    const [daemon, ...others] = await this.daemons()
    assert.ok(daemon, 'there is no daemon')
    assert.deepEqual(others, [])
    return daemon
  }

  /** A daemon's answer to its own API; of a socket without one, an error. */
  async state(daemon: NodeDaemon): Promise<string> {
    return (JSON.parse((await callApi(daemon.api_socket, 'GET', '/api/v1/daemon')).text) as { state: string }).state
  }

  /** The only daemon, when it is another process than `pid` and serves. */
  async successor(pid: number): Promise<NodeDaemon> {
    return await until(`a daemon after ${pid}`, async () => {
      const daemon = await this.daemon()
      return daemon.pid !== pid && isAlive(daemon.pid) && (await this.state(daemon)) === 'RUNNING' ? daemon : undefined
    })
  }

  async metrics(): Promise<string> {
    return await (await fetch(`http://127.0.0.1:${this.#metricsPort}/v1/metrics`)).text()
  }

  /** The snapshotter's process. */
  get snapshotterPid(): number {
    return this.#snapshotter?.pid ?? 0
  }

  /** Mount points below the node's folder that have the type. */
  mounts(type: string): string[] {
    return mountsBelow(this.path)
      .filter((mount) => mount.type === type)
      .map(({ at }) => at)
  }

  /** Names in a folder below the snapshotter's root; none when it is absent. */
  namesIn(folder: string): string[] {
    const at = join(this.root, folder)
    return existsSync(at) ? readdirSync(at).sort() : []
  }

  /** What it has on the machine now, a line each. */
  leftOvers(): string[] {
    return leftOvers(this.path, this.cgroup, [...this.#shims])
  }

  #noteShims(): void {
    for (const at of shimSockets(join(this.path, 's'))) this.#shims.add(at)
  }

  async #killAll(): Promise<void> {
    this.#noteShims()
    await killAll(() => [...processesOf(this.path).map(({ pid }) => pid), ...cgroupProcesses(this.cgroup)])
    unmountBelow(this.path)
    for (const at of this.#shims) rmSync(at, { force: true })
    this.#shims.clear()
    removeCgroups(this.cgroup)
  }

  /** Nothing of it is left, however it was. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.cri.close()
    await this.#killAll()
    this.#manager?.[Symbol.dispose]()
    rmSync(this.path, { recursive: true, force: true })
  }
}

function stillRuns(child: ChildProcess, what: string): void {
  if (child.exitCode !== null || child.signalCode !== null)
    throw new GivenUp(`${what} has ended (${child.signalCode ?? child.exitCode})`)
}

async function stop(child: ChildProcess | undefined, signal: NodeJS.Signals): Promise<void> {
  assert.ok(child, 'it was not started')
  child.kill(signal)
  await ended(child)
}
