/** For tests: a containerd of this machine with a proxy snapshotter, all of it private in a temporary folder on a tmpfs. */
import { type ChildProcess, execFile, spawn, spawnSync } from 'node:child_process'
import { closeSync, mkdirSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { mountTmpfs, unmount } from '../../src/kernel/index.ts'

const DEADLINE_MS = 60_000
const MiB = 1024 * 1024

/** Why there can be none, or false. */
export function whyNoContainerd(): string | false {
  if (process.getuid?.() !== 0) return 'needs root'
  const missing = ['containerd', 'ctr', 'runc'].find((name) => spawnSync(name, ['--version']).error !== undefined)
  if (missing !== undefined) return `${missing} is not installed`
  return !readFileSync('/proc/self/mountinfo', 'utf8').includes(' - cgroup') && 'no cgroups are mounted'
}

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
    const log = openSync(join(made.path, 'log'), 'a')
    made.#child = spawn('containerd', ['-c', join(made.path, 'c.toml')], {
      stdio: ['ignore', log, log],
      cwd: made.path,
      detached: true,
      env: made.#env,
    })
    closeSync(log)
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
    const until = Date.now() + DEADLINE_MS
    for (;;)
      try {
        await this.ctr('version')
        return
      } catch (error) {
        if (Date.now() > until) throw new Error(this.logs(), { cause: error })
        await sleep(100)
      }
  }

  #processes(): number[] {
    return readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name))
      .filter((pid) => {
        try {
          return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(`${this.path}/`)
        } catch {
          return false // it ended
        }
      })
      .map(Number)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child?.kill('SIGKILL')
    for (let tries = 0; tries < 100 && this.#processes().length > 0; tries += 1) {
      for (const pid of this.#processes())
        try {
          process.kill(pid, 'SIGKILL')
        } catch {
          // it ended
        }
      await sleep(50)
    }
    const points = readFileSync('/proc/self/mounts', 'utf8')
      .split('\n')
      .map((line) => line.split(' ')[1] ?? '')
    for (const at of points.filter((point) => point.startsWith(`${this.path}/`)).reverse()) await unmount(at, true)
    await unmount(this.path, true)
    rmSync(this.path, { recursive: true, force: true })
  }
}
