/** Snapshots: the calls that containerd makes of a snapshotter, compared with its own overlayfs and with the original's snapshotter; long lists; starts with many snapshots. */
import { spawnSync } from 'node:child_process'
import { closeSync, existsSync, fdatasync, mkdirSync, openSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { Snapshots } from '../src/containerd/index.ts'
import { SnapshotStore } from '../src/snapshotter/store/index.ts'
import { LightClient } from './light-client.ts'
import { median, memoryOf } from './measure.ts'
import { OURS, peerTools } from './peers.ts'
import type { Report } from './report.ts'
import { type Calls, ServedSnapshots } from './served-snapshots.ts'

const ROUNDS = 5
const CALLS_A_ROUND = 64
const LAYERS = 5
const LIST = 5000
const FOUND = 500
const CLIENTS = [1, 32] as const
/** Of every median, however many clients there are. */
const P50 = { ratioAtMost: 1.5 } as const
const MB = 1e6
/** Of a call that writes, in the log of a database. */
const WRITTEN_BYTES = 16_384
const SYNCS = 200
const OPERATIONS = ['Prepare', 'Mounts', 'Commit', 'Remove'] as const
type Operation = (typeof OPERATIONS)[number] | 'Stat'
type Times = Record<Operation, number[]>

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
  await using bench = new ServedSnapshots()
  const ours = await bench.snapshotter(program, 'ours')
  const folder = peerTools() === undefined ? undefined : join(peerTools()?.nydusd ?? '', '../containerd-nydus-grpc')
  const peer = folder === undefined || !existsSync(folder) ? undefined : await bench.snapshotter(folder, 'peer')
  const proxies = [['ours', ours.socket] as const, ...(peer === undefined ? [] : [['peer', peer.socket] as const])]
  const calls = await bench.containerd(new Map(proxies))
  const through = [...proxies.map(([name]) => name), 'overlayfs'].map((name) => ({ name, calls, snapshotter: name }))
  const direct = [ours, ...(peer === undefined ? [] : [peer])].map(({ calls: own }, i) => ({
    name: i === 0 ? 'ours' : 'peer',
    calls: own,
    snapshotter: 'nydus',
  }))
  for (const clients of CLIENTS) {
    await benchThrough(report, through, clients, signal)
    await benchDirect(report, direct, clients, signal)
    await benchReading(report, direct, clients, signal)
  }
  await benchDisk(report, bench.path)
}

/** As containerd's own clients see it: its database is written too, for each of its snapshotters. */
async function benchThrough(
  report: Report,
  contenders: readonly Contender[],
  clients: number,
  signal: AbortSignal,
): Promise<void> {
  const times = await measured(contenders, signal, async (contender) => await lives(contender, clients))
  for (const operation of ['Prepare', 'Mounts', 'Commit'] as const) {
    const [mine = [], original, overlayfs = []] = ['ours', 'peer', 'overlayfs'].map(
      (name) => times.get(name)?.[operation],
    )
    report.figure({
      what: `${operation} by containerd, ${clients} at once`,
      unit: 'ms',
      ours: median(mine),
      peer: original === undefined ? undefined : median(original),
      target: P50,
    })
    report.figure({
      what: `${operation} by containerd, ${clients}, to overlayfs`,
      unit: 'ms',
      ours: median(mine),
      bound: { what: 'its own overlayfs, without a socket between', value: median(overlayfs) },
    })
  }
}

async function benchDirect(
  report: Report,
  contenders: readonly Contender[],
  clients: number,
  signal: AbortSignal,
): Promise<void> {
  const times = await measured(contenders, signal, async (contender) => await lives(contender, clients))
  for (const operation of OPERATIONS) {
    const [mine = [], original] = ['ours', 'peer'].map((name) => times.get(name)?.[operation])
    const peerFigure = (of: (list: readonly number[]) => number) =>
      original === undefined ? {} : { peer: of(original) }
    report.figure({
      what: `${operation}, ${clients} at once`,
      unit: 'ms',
      ours: median(mine),
      ...peerFigure(median),
      target: P50,
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

/** Between calls that write, what `Mounts` takes is the wait for these; here there are none. `Stat` is what any call takes, and the processor's time is what of it is the benchmark's own. */
async function benchReading(
  report: Report,
  contenders: readonly Contender[],
  clients: number,
  signal: AbortSignal,
): Promise<void> {
  const from = process.cpuUsage()
  const times = await measured(contenders, signal, async (contender) => await asks(contender, clients))
  const { user, system } = process.cpuUsage(from)
  let count = 0
  for (const operation of ['Mounts', 'Stat'] as const) {
    const [mine = [], original] = ['ours', 'peer'].map((name) => times.get(name)?.[operation])
    count += mine.length + (original?.length ?? 0)
    report.figure({
      what: `${operation}, ${clients} at once, no other call`,
      unit: 'ms',
      ours: median(mine),
      peer: original === undefined ? undefined : median(original),
      ...(operation === 'Mounts' ? { target: P50 } : {}),
    })
  }
  // The round that warms up counts too.
  const share = (user + system) / 1000 / ((count * (ROUNDS + 1)) / ROUNDS)
  report.note(`of each call the client's processor takes ${share.toFixed(3)} ms`)
}

/** The least that calls which write have to wait for. */
async function benchDisk(report: Report, folder: string): Promise<void> {
  const fd = openSync(join(folder, 'synced'), 'w')
  const times: number[] = []
  const written = Buffer.alloc(Math.max(...CLIENTS) * WRITTEN_BYTES, 1)
  for (let i = 0; i < SYNCS; i += 1) {
    writeSync(fd, written)
    await timed(times, promisify(fdatasync)(fd))
  }
  closeSync(fd)
  report.note(
    `one fdatasync of this disk after ${written.length / 1024} KiB: median ${median(times).toFixed(2)} ms, p99 ${p99(times).toFixed(2)} ms`,
  )
}

/** A store with so many snapshots, which a snapshotter then starts with. */
async function benchMany(report: Report, program: string): Promise<void> {
  for (const count of [FOUND, LIST]) {
    await using bench = new ServedSnapshots()
    const root = join(bench.path, 'ours')
    mkdirSync(root)
    fill(root, count)
    const { calls, pid, startMs } = await bench.snapshotter(program, 'ours')
    const lists: number[] = []
    for (let i = 0; i < ROUNDS * 3; i += 1) {
      const from = performance.now()
      const answer = await calls.list({ snapshotter: 'nydus' })
      lists.push(performance.now() - from)
      if (countOf(answer) !== count) throw new Error(`a list has not the ${count} snapshots that there are`)
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

/** Snapshots in the answer to a `List`. */
function countOf(answer: Buffer): number {
  let count = 0
  for (const { info } of LightClient.decoded(Snapshots.method.list, answer)) count += info.length
  return count
}

/** Times of every contender, in turn, so that noise hits all alike. */
async function measured(
  contenders: readonly Contender[],
  signal: AbortSignal,
  measure: (contender: Contender) => Promise<Times>,
): Promise<Map<string, Times>> {
  const times = new Map(contenders.map(({ name }) => [name, emptyTimes()]))
  for (let round = -1; round < ROUNDS; round += 1)
    for (const contender of round % 2 === 0 ? contenders : contenders.toReversed()) {
      signal.throwIfAborted()
      const found = await measure(contender)
      // The first round warms up.
      if (round >= 0)
        for (const operation of [...OPERATIONS, 'Stat'] as const)
          times.get(contender.name)?.[operation].push(...found[operation])
    }
  return times
}

function emptyTimes(): Times {
  return { Prepare: [], Mounts: [], Commit: [], Remove: [], Stat: [] }
}

let serial = 0

/** Layers that are made and removed on an image, by so many clients at once. */
async function lives(contender: Contender, clients: number): Promise<Times> {
  const { calls, snapshotter } = contender
  const times = emptyTimes()
  const { mark, parent } = await imageOf(contender)
  const client = async (number: number): Promise<void> => {
    for (let i = 0; i < CALLS_A_ROUND / clients; i += 1) {
      const [key, name] = [`${mark} ${number} ${i}`, `${mark} ${number} ${i} done`]
      await timed(times.Prepare, calls.prepare({ snapshotter, key, parent, labels: LABELS }))
      await timed(times.Mounts, calls.mounts({ snapshotter, key }))
      await timed(times.Commit, calls.commit({ snapshotter, key, name, labels: LABELS }))
      await timed(times.Remove, calls.remove({ snapshotter, key: name }))
    }
  }
  await Promise.all(Array.from({ length: clients }, (_unused, number) => client(number)))
  return times
}

/** One snapshot, asked for by so many clients at once. */
async function asks(contender: Contender, clients: number): Promise<Times> {
  const { calls, snapshotter } = contender
  const times = emptyTimes()
  const { mark, parent } = await imageOf(contender)
  const key = `${mark} asked`
  await calls.prepare({ snapshotter, key, parent, labels: LABELS })
  const client = async (operation: 'Mounts' | 'Stat'): Promise<void> => {
    const call = operation === 'Mounts' ? calls.mounts : calls.stat
    for (let i = 0; i < CALLS_A_ROUND; i += 1) await timed(times[operation], call({ snapshotter, key }))
  }
  for (const operation of ['Mounts', 'Stat'] as const)
    await Promise.all(Array.from({ length: clients }, async () => await client(operation)))
  await calls.remove({ snapshotter, key })
  return times
}

/** An image to stand on, and a word that no other snapshot's key begins with. */
async function imageOf({ calls, snapshotter }: Contender): Promise<{ mark: string; parent: string }> {
  serial += 1
  const mark = `${process.pid}-${serial}`
  let parent = ''
  for (let i = 0; i < LAYERS; i += 1) {
    await calls.prepare({ snapshotter, key: `${mark} layer ${i}`, parent, labels: LABELS })
    parent = `${mark} committed ${i}`
    await calls.commit({ snapshotter, key: `${mark} layer ${i}`, name: parent, labels: LABELS })
  }
  return { mark, parent }
}

async function timed(times: number[], call: Promise<unknown>): Promise<void> {
  const from = performance.now()
  await call
  times.push(performance.now() - from)
}

function p99(list: readonly number[]): number {
  return [...list].sort((a, b) => a - b)[Math.ceil(list.length * 0.99) - 1] ?? Number.NaN
}
