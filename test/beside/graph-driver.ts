/** For tests: the graph driver as a process, and a client of the protocol that takes nothing that the protocol does not say. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { mountTmpfs, readMountInfo, unmount } from '../../src/kernel/index.ts'
import { killAll, processesOf } from '../node/launched.ts'

const SOURCE = join(import.meta.dirname, '../../src/cli/nydus-docker-graphdriver/index.ts')
const MiB = 1024 * 1024
const DEADLINE_MS = 120_000

/** Fields of each answer beside `Err`. */
const ANSWERS: Readonly<Record<string, readonly string[]>> = {
  'Plugin.Activate': ['Implements'],
  'GraphDriver.Capabilities': ['Capabilities', 'ReproducesExactDiffs'],
  'GraphDriver.Get': ['Dir'],
  'GraphDriver.Exists': ['Exists'],
  'GraphDriver.Status': ['Status'],
  'GraphDriver.GetMetadata': ['Metadata'],
  'GraphDriver.Changes': ['Changes'],
  'GraphDriver.ApplyDiff': ['Size'],
  'GraphDriver.DiffSize': ['Size'],
}

export class PluginError extends Error {}

export class DriverUnderTest implements AsyncDisposable {
  readonly path = mkdtempSync(join(tmpdir(), 'gd-'))
  readonly socket = join(this.path, 'nydus.sock')
  /** As dockerd has it: the data root, and the driver's home in it. */
  readonly home = join(this.path, 'data/nydus')
  #child: ChildProcess | undefined
  log = ''

  static async start(...flags: readonly string[]): Promise<DriverUnderTest> {
    const driver = new DriverUnderTest()
    await mountTmpfs(driver.path, 256 * MiB)
    mkdirSync(driver.home, { recursive: true })
    await driver.run(...flags)
    return driver
  }

  async run(...flags: readonly string[]): Promise<void> {
    const own = ['--socket', this.socket, '--state', join(this.path, 'state/init.json')]
    const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', SOURCE, ...own, ...flags], {
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    this.#child = child
    child.stderr.on('data', (part: Buffer) => (this.log += part.toString()))
    const ready = `listens on ${this.socket}`
    const before = this.log.length
    for (const until = Date.now() + DEADLINE_MS; !this.log.slice(before).includes(ready); await sleep(20))
      if (child.exitCode !== null || Date.now() > until) throw new Error(`the driver does not run: ${this.log}`)
  }

  async end(signal: NodeJS.Signals): Promise<void> {
    const child = this.#child
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    const ended = once(child, 'exit')
    child.kill(signal)
    await ended
  }

  async init(options: readonly string[] = []): Promise<void> {
    await this.call('GraphDriver.Init', { Home: this.home, Opts: options, UIDMaps: null, GIDMaps: null })
  }

  /** A call with JSON both ways. Throws PluginError with the driver's own text. */
  async call(name: string, given: object | Buffer = {}, query = ''): Promise<Record<string, unknown>> {
    const sent = Buffer.isBuffer(given) ? given : Buffer.from(JSON.stringify(given))
    const { status, type, bytes } = await this.#post(`/${name}${query}`, sent)
    assert.equal(type, 'application/vnd.docker.plugins.v1.2+json', name)
    const answer = JSON.parse(bytes.toString()) as Record<string, unknown>
    if (status !== 200) {
      assert.deepEqual(Object.keys(answer), ['Err'], name)
      throw new PluginError(String(answer['Err']))
    }
    assert.deepEqual(Object.keys(answer).sort(), [...(ANSWERS[name] ?? []), 'Err'].sort(), name)
    assert.equal(answer['Err'], '')
    return answer
  }

  async get(id: string): Promise<string> {
    return (await this.call('GraphDriver.Get', { ID: id, MountLabel: '' }))['Dir'] as string
  }

  async put(id: string): Promise<void> {
    await this.call('GraphDriver.Put', { ID: id })
  }

  async apply(id: string, parent: string, tar: Buffer): Promise<number> {
    return (await this.call('GraphDriver.ApplyDiff', tar, `?id=${id}&parent=${parent}`))['Size'] as number
  }

  /** A new layer with this content. */
  async layer(id: string, parent: string, tar: Buffer): Promise<void> {
    await this.call('GraphDriver.Create', { ID: id, Parent: parent, MountLabel: '', StorageOpt: null })
    await this.apply(id, parent, tar)
  }

  async writable(id: string, parent: string): Promise<void> {
    await this.call('GraphDriver.CreateReadWrite', { ID: id, Parent: parent, MountLabel: '', StorageOpt: {} })
  }

  /** The layer as a tar. */
  async diff(id: string, parent: string): Promise<Buffer> {
    const { status, bytes } = await this.#post(
      '/GraphDriver.Diff',
      Buffer.from(JSON.stringify({ ID: id, Parent: parent })),
    )
    if (status !== 200) throw new PluginError((JSON.parse(bytes.toString()) as { Err: string }).Err)
    return bytes
  }

  async mounts(): Promise<string[]> {
    return (await readMountInfo()).map(({ at }) => at).filter((at) => at.startsWith(`${this.home}/`))
  }

  /** Processes whose command line names what the driver keeps. */
  processes(): number[] {
    return processesOf(`${this.path}/data/`).map(({ pid }) => pid)
  }

  async #post(path: string, sent: Buffer): Promise<{ status: number; type: string | undefined; bytes: Buffer }> {
    const headers = { 'content-length': sent.length, accept: 'application/vnd.docker.plugins.v1.2+json' }
    const call = request({ socketPath: this.socket, method: 'POST', path, headers, agent: false })
    call.end(sent)
    const [response] = (await once(call, 'response')) as [import('node:http').IncomingMessage]
    const parts: Buffer[] = []
    for await (const part of response as AsyncIterable<Buffer>) parts.push(part)
    return { status: response.statusCode ?? 0, type: response.headers['content-type'], bytes: Buffer.concat(parts) }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      if (existsSync(this.socket)) await this.call('GraphDriver.Cleanup')
    } catch {
      // it was not initialised, or is gone: what is left is ended below
    }
    await this.end('SIGKILL')
    await killAll(() => this.processes())
    for (const at of (await this.mounts()).reverse()) await unmount(at, true)
    await unmount(this.path, true)
    rmSync(this.path, { recursive: true, force: true })
  }
}
