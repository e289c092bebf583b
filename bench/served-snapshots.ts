/** What a benchmark of snapshots asks: snapshotters and containerds that it starts. */
import type { ChildProcess } from 'node:child_process'
import { existsSync, mkdtempSync, writeFileSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ContainerdClient, ContainerdError, Snapshots } from '../src/containerd/index.ts'
import { ended, launch, until } from '../test/node/launched.ts'
import { OURS } from './peers.ts'

const CALL_MS = 60_000

export type Calls = ReturnType<typeof callsOf>

/** Everything of one run, in a folder that goes with it. */
export class ServedSnapshots implements AsyncDisposable {
  readonly path = mkdtempSync(join(tmpdir(), 'snaps-'))
  readonly #children: ChildProcess[] = []
  readonly #clients: ContainerdClient[] = []

  /** Starts a snapshotter on a root; gives its calls and its process when it answers. */
  async snapshotter(
    program: string,
    name: string,
  ): Promise<{ calls: Calls; pid: number; socket: string; startMs: number }> {
    const socket = join(this.path, `${name}.sock`)
    const config = join(this.path, `${name}.toml`)
    writeFileSync(
      config,
      `version = 1\nroot = "${join(this.path, name)}"\naddress = "${socket}"\ndaemon_mode = "multiple"\n[daemon]\nnydusd_path = "${OURS.nydusd}"\nnydusimage_path = "${OURS.nydusImage}"\nnydusd_config = "${this.#template()}"\n[log]\nlog_to_stdout = true\n`,
    )
    const from = performance.now()
    const calls = await this.#answering(program, ['--config', config], { name, socket })
    const pid = this.#children.at(-1)?.pid ?? 0
    return { calls, pid, socket, startMs: performance.now() - from }
  }

  /** Starts a containerd that has the snapshotter of a socket beside its own. */
  async containerd(nydus: string): Promise<Calls> {
    const at = (name: string) => join(this.path, name)
    const socket = at('c.sock')
    writeFileSync(
      at('c.toml'),
      `version = 2
root = "${at('c')}"
state = "${at('c-state')}"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "${socket}"
[ttrpc]
address = "${socket}.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
path = "${at('opt')}"
[proxy_plugins.nydus]
type = "snapshot"
address = "${nydus}"
`,
    )
    return await this.#answering('containerd', ['-c', at('c.toml')], { name: 'containerd', socket })
  }

  async #answering(
    program: string,
    args: readonly string[],
    at: { readonly name: string; readonly socket: string },
  ): Promise<Calls> {
    const child = launch(program, args, { cwd: this.path, log: join(this.path, `${at.name}.log`), mark: this.path })
    this.#children.push(child)
    await until(`${at.name} of the benchmark`, () => existsSync(at.socket) || undefined)
    const client = new ContainerdClient(at.socket, { namespace: 'bench', timeoutMs: CALL_MS })
    this.#clients.push(client)
    const calls = callsOf(client)
    await until(`an answer of ${at.name}`, async () => await isAnswering(calls))
    return calls
  }

  #template(): string {
    const path = join(this.path, 'nydusd.json')
    writeFileSync(
      path,
      '{"device":{"backend":{"type":"registry","config":{"scheme":"http"}},"cache":{"type":"blobcache"}},"mode":"direct"}',
    )
    return path
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const client of this.#clients) client.close()
    for (const child of this.#children.reverse()) {
      child.kill('SIGTERM')
      await ended(child)
    }
    await rm(this.path, { recursive: true, force: true })
  }
}

function callsOf(client: ContainerdClient) {
  return client.service(Snapshots)
}

/** That there is no such snapshot is an answer; undefined while there is none. */
async function isAnswering(calls: Calls): Promise<true | undefined> {
  try {
    await calls.stat({ snapshotter: 'nydus', key: 'none' })
  } catch (error) {
    if (error instanceof ContainerdError && error.code === 'UNAVAILABLE') return undefined
  }
  return true
}
