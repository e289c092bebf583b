/** For tests: a containerd of this machine with a proxy snapshotter, all of it private in a temporary folder on a tmpfs. */
import { type ChildProcess, execFile } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { mountTmpfs } from '../../src/kernel/index.ts'
import { GivenUp, killAll, launch, processesOf, until } from '../node/launched.ts'
import { unmountBelow } from '../node/left-overs.ts'

const DEADLINE_MS = 60_000
const MiB = 1024 * 1024

export class PrivateContainerd implements AsyncDisposable {
  /** Short: sockets lie in it. */
  readonly path = mkdtempSync(join(tmpdir(), 'bes-'))
  readonly address = join(this.path, 'c.sock')
  /** Where the proxy snapshotter named `nydus` is expected. */
  readonly snapshotterSocket = join(this.path, 's.sock')
  readonly namespace = 'test'
  readonly #env: NodeJS.ProcessEnv
  #child: ChildProcess | undefined

  private constructor(path: readonly string[]) {
    this.#env = { ...process.env, PATH: [...path, process.env['PATH']].join(':'), TMPDIR: join(this.path, 'tmp') }
  }

  /** `path` is put before PATH of containerd, ctr and what they start. */
  static async start(path: readonly string[] = []): Promise<PrivateContainerd> {
    const made = new PrivateContainerd(path)
    await mountTmpfs(made.path, 512 * MiB)
    mkdirSync(join(made.path, 'tmp'))
    writeFileSync(
      join(made.path, 'c.toml'),
      `version = 2
root = "${made.path}/root"
state = "${made.path}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "${made.address}"
[ttrpc]
  address = "${made.address}.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "${made.path}/opt"
[proxy_plugins.nydus]
  type = "snapshot"
  address = "${made.snapshotterSocket}"
`,
    )
    made.#child = launch('containerd', ['-c', join(made.path, 'c.toml')], {
      cwd: made.path,
      log: join(made.path, 'log'),
      env: made.#env,
      mark: made.path,
    })
    try {
      await made.#answers()
      return made
    } catch (error) {
      await made[Symbol.asyncDispose]()
      throw error
    }
  }

  async ctr(...args: readonly string[]): Promise<string> {
    const given = ['-a', this.address, '-n', this.namespace, ...args]
    return (await promisify(execFile)('ctr', given, { timeout: DEADLINE_MS, env: this.#env })).stdout
  }

  /** Runs a program in a container of an image and gives what it prints. */
  async run(image: string, id: string, snapshotter: string, ...program: readonly string[]): Promise<string> {
    const runc = ['--runc-root', join(this.path, 'runc')]
    return await this.ctr('run', '--rm', ...runc, '--snapshotter', snapshotter, image, id, ...program)
  }

  /** Digests in the content store of the namespace. */
  async content(): Promise<string[]> {
    return (await this.ctr('content', 'ls', '-q')).trim().split('\n').filter(Boolean).sort()
  }

  logs(): string {
    return readFileSync(join(this.path, 'log'), 'utf8')
  }

  async #answers(): Promise<void> {
    const child = this.#child
    try {
      await until('containerd', async () => {
        if (child?.exitCode !== null) throw new GivenUp('containerd has ended')
        return await this.ctr('version')
      })
    } catch (error) {
      throw new Error(`${(error as Error).message}\n${this.logs()}`, { cause: error })
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await killAll(() => processesOf(this.path).map(({ pid }) => pid))
    unmountBelow(this.path)
    rmSync(this.path, { recursive: true, force: true })
  }
}
