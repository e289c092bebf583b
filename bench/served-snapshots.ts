/** What a benchmark of snapshots asks: snapshotters and containerds that it starts. */
import type { ChildProcess } from 'node:child_process'
import { existsSync, mkdtempSync, writeFileSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { MessageInitShape } from '@bufbuild/protobuf'
import { ContainerdClient, ContainerdError, Snapshots } from '../src/containerd/index.ts'
import { ended, launch, until } from '../test/node/launched.ts'
import { LightClient } from './light-client.ts'
import { OURS } from './peers.ts'

const CALL_MS = 60_000

type Methods = (typeof Snapshots)['method']
/** The calls of a snapshotter; each resolves when its whole answer is there, as bytes. */
export type Calls = {
  readonly [M in keyof Methods]: (message: MessageInitShape<Methods[M]['input']>) => Promise<Buffer>
}

/** Everything of one run, in a folder that goes with it. */
export class ServedSnapshots implements AsyncDisposable {
  readonly path = mkdtempSync(join(tmpdir(), 'snaps-'))
  readonly #children: ChildProcess[] = []
  readonly #clients: LightClient[] = []

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

  /** Starts a containerd that has snapshotters of sockets, by their names, beside its own. */
  async containerd(proxies: ReadonlyMap<string, string>): Promise<Calls> {
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
${[...proxies].map(([name, address]) => `[proxy_plugins.${name}]\ntype = "snapshot"\naddress = "${address}"\n`).join('')}`,
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
    const asking = new ContainerdClient(at.socket, { namespace: 'bench', timeoutMs: CALL_MS })
    await until(`an answer of ${at.name}`, async () => await isAnswering(asking)).finally(() => asking.close())
    const client = new LightClient(at.socket)
    this.#clients.push(client)
    return callsOf(client)
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

function callsOf(client: LightClient): Calls {
  const methods = Object.values(Snapshots.method).map((method) => [
    method.localName,
    async (message: object) => await client.call(method, LightClient.encoded(method, message)),
  ])
  return Object.fromEntries(methods) as Calls
}

/** That there is no such snapshot is an answer; undefined while there is none. */
async function isAnswering(client: ContainerdClient): Promise<true | undefined> {
  try {
    await client.service(Snapshots).stat({ snapshotter: 'nydus', key: 'none' })
  } catch (error) {
    if (error instanceof ContainerdError && error.code === 'UNAVAILABLE') return undefined
  }
  return true
}
