/** Snapshots: the calls that containerd makes of a snapshotter, compared with its own overlayfs and with the original's snapshotter; long lists; starts with many snapshots. */
import { type ChildProcess, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, writeFileSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ContainerdClient, ContainerdError, Snapshots } from '../src/containerd/index.ts'
import { SnapshotStore } from '../src/snapshotter/store/index.ts'
import { ended, launch, until } from '../test/node/launched.ts'
import { median, memoryOf } from './measure.ts'
import { OURS, peerTools } from './peers.ts'
import type { Report } from './report.ts'

const ROUNDS = 5
const CALLS_A_ROUND = 64
const LAYERS = 5
const LIST = 5000
const FOUND = 500
const CALL_MS = 60_000
const MB = 1e6
const OPERATIONS = ['Prepare', 'Mounts', 'Commit', 'Remove'] as const
type Operation = (typeof OPERATIONS)[number]
type Times = Record<Operation, number[]>
type Calls = ReturnType<typeof callsOf>

const LABELS = {
  // What nobody leads to is collected.
  'containerd.io/gc.root': '2026-01-01T00:00:00Z',
  'containerd.io/snapshot/cri.image-ref': 'docker.io/library/example:latest',
  'containerd.io/snapshot/cri.image-layers': `sha256:${'0'.repeat(64)}`.repeat(3),
}

/** A snapshotter by its socket, or one of containerd's by its name. */
interface Contender {
  readonly name: string
  readonly calls: Calls
  readonly snapshotter: string
}

/** Everything of one run, in a folder that goes with it. */
class Bench implements AsyncDisposable {
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

/** Leaves out, with the reason, what cannot be measured here. */
export async function benchSnapshots(report: Report, signal: AbortSignal): Promise<void> {
  report.part('snapshots')
  const program = join(OURS.nydusd, '../containerd-nydus-grpc')
  if (spawnSync('containerd', ['--version']).error !== undefined)
    return report.note('left out: no containerd in the PATH')
  await benchCalls(report, program, signal)
  await benchMany(report, program)
}

async function benchCalls(report: Report, program: string, signal: AbortSignal): Promise<void> {
  await using bench = new Bench()
  const ours = await bench.snapshotter(program, 'ours')
  const containerd = await bench.containerd(ours.socket)
  const folder = peerTools() === undefined ? undefined : join(peerTools()?.nydusd ?? '', '../containerd-nydus-grpc')
  const peer = folder === undefined || !existsSync(folder) ? undefined : await bench.snapshotter(folder, 'peer')
  const through = [
    { name: 'ours', calls: containerd, snapshotter: 'nydus' },
    { name: 'overlayfs', calls: containerd, snapshotter: 'overlayfs' },
  ]
  const direct = [{ name: 'ours', calls: ours.calls, snapshotter: 'nydus' }]
  if (peer !== undefined) direct.push({ name: 'peer', calls: peer.calls, snapshotter: 'nydus' })
  for (const clients of [1, 32]) {
    const byContainerd = await measured(through, clients, signal)
    for (const operation of ['Prepare', 'Mounts', 'Commit'] as const) {
      const [mine = [], overlayfs = []] = ['ours', 'overlayfs'].map((name) => byContainerd.get(name)?.[operation])
      report.figure({
        what: `${operation} by containerd, ${clients} at once`,
        unit: 'ms',
        ours: median(mine),
        bound: { what: 'its own overlayfs, without a socket between', value: median(overlayfs) },
      })
    }
    const alone = await measured(direct, clients, signal)
    for (const operation of OPERATIONS) {
      const [mine = [], original] = ['ours', 'peer'].map((name) => alone.get(name)?.[operation])
      const peerFigure = (of: (list: readonly number[]) => number) =>
        original === undefined ? {} : { peer: of(original) }
      report.figure({
        what: `${operation}, ${clients} at once`,
        unit: 'ms',
        ours: median(mine),
        ...peerFigure(median),
        ...(clients === 1 ? { target: { ratioAtMost: 1.5 } } : {}),
      })
      report.figure({
        what: `${operation}, ${clients} at once, p99`,
        unit: 'ms',
        ours: p99(mine),
        ...peerFigure(p99),
        ...(clients > 1 ? { target: { atMost: 10 } } : {}),
      })
    }
  }
}

/** A store with so many snapshots, which a snapshotter then starts with. */
async function benchMany(report: Report, program: string): Promise<void> {
  for (const count of [FOUND, LIST]) {
    await using bench = new Bench()
    const root = join(bench.path, 'ours')
    mkdirSync(root)
    fill(root, count)
    const { calls, pid, startMs } = await bench.snapshotter(program, 'ours')
    const lists: number[] = []
    for (let i = 0; i < ROUNDS * 3; i += 1) {
      const from = performance.now()
      if ((await countOf(calls, 'nydus')) !== count)
        throw new Error(`a list has not the ${count} snapshots that there are`)
      lists.push(performance.now() - from)
    }
    if (count === LIST)
      report.figure({ what: `List of ${count} snapshots`, unit: 'ms', ours: median(lists), target: { atMost: 50 } })
    else {
      report.figure({ what: `start with ${count} snapshots`, unit: 'ms', ours: startMs, target: { atMost: 2000 } })
      report.figure({
        what: `memory with ${count} snapshots`,
        unit: 'MB',
        ours: memoryOf(pid).rss / MB,
        target: { atMost: 120 },
      })
    }
  }
}

/** Images of ten layers. */
function fill(root: string, count: number): void {
  const store = SnapshotStore.open(root)
  const labels = new Map(Object.entries(LABELS))
  for (let i = 0; i < count; i += 1) {
    const parent = i % 10 === 0 ? '' : `layer ${i - 1}`
    store.create('active', `extract ${i}`, parent, labels)
    store.commit(`layer ${i}`, `extract ${i}`, labels, { bytes: 4096, inodes: 1 })
  }
  store.close()
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

async function countOf(calls: Calls, snapshotter: string): Promise<number> {
  let count = 0
  for await (const { info } of calls.list({ snapshotter })) count += info.length
  return count
}

/** Times of every contender, in turn, so that noise hits all alike. */
async function measured(
  contenders: readonly Contender[],
  clients: number,
  signal: AbortSignal,
): Promise<Map<string, Times>> {
  const times = new Map(contenders.map(({ name }) => [name, emptyTimes()]))
  for (let round = -1; round < ROUNDS; round += 1)
    for (const contender of round % 2 === 0 ? contenders : contenders.toReversed()) {
      signal.throwIfAborted()
      const found = await lives(contender, clients)
      // The first round warms up.
      if (round >= 0)
        for (const operation of OPERATIONS) times.get(contender.name)?.[operation].push(...found[operation])
    }
  return times
}

function emptyTimes(): Times {
  return { Prepare: [], Mounts: [], Commit: [], Remove: [] }
}

let serial = 0

/** Layers that are made and removed on an image, by so many clients at once. */
async function lives({ calls, snapshotter }: Contender, clients: number): Promise<Times> {
  const times = emptyTimes()
  const timed = async (operation: Operation, call: Promise<unknown>): Promise<void> => {
    const from = performance.now()
    await call
    times[operation].push(performance.now() - from)
  }
  serial += 1
  const mark = `${process.pid}-${serial}`
  let parent = ''
  for (let i = 0; i < LAYERS; i += 1) {
    await calls.prepare({ snapshotter, key: `${mark} layer ${i}`, parent, labels: LABELS })
    parent = `${mark} committed ${i}`
    await calls.commit({ snapshotter, key: `${mark} layer ${i}`, name: parent, labels: LABELS })
  }
  const client = async (number: number): Promise<void> => {
    for (let i = 0; i < CALLS_A_ROUND / clients; i += 1) {
      const [key, name] = [`${mark} ${number} ${i}`, `${mark} ${number} ${i} done`]
      await timed('Prepare', calls.prepare({ snapshotter, key, parent, labels: LABELS }))
      await timed('Mounts', calls.mounts({ snapshotter, key }))
      await timed('Commit', calls.commit({ snapshotter, key, name, labels: LABELS }))
      await timed('Remove', calls.remove({ snapshotter, key: name }))
    }
  }
  await Promise.all(Array.from({ length: clients }, (_unused, number) => client(number)))
  return times
}

function p99(list: readonly number[]): number {
  return [...list].sort((a, b) => a - b)[Math.ceil(list.length * 0.99) - 1] ?? Number.NaN
}
