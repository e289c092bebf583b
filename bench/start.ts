/** Cold start of the demo's container over the simulated network: our nydusd and the original's, in turn. */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createOutput } from '../src/cli/output.ts'
import { startLazily } from '../demo/lazy-start.ts'
import { measureStart, type StartedRoot } from '../demo/measure-start.ts'
import { type Network, startNetwork } from '../demo/network.ts'
import { type Prepared, prepareImages } from '../demo/prepare.ts'
import type { StartResult } from '../demo/result.ts'
import { Undo } from '../demo/undo.ts'
import { workloadOf } from '../demo/workload.ts'
import { interleave, median } from './measure.ts'
import { OURS, peerTools, type Tools } from './peers.ts'
import type { Report } from './report.ts'

const ROUNDS = 5
const NETWORK = { bitsPerSecond: 100e6, roundTripMs: 20 }
const MIB = 2 ** 20

interface Place {
  readonly directory: string
  readonly store: string
  readonly network: Network
  readonly prepared: Prepared
  readonly signal: AbortSignal
}

export async function benchStart(report: Report, signal: AbortSignal): Promise<void> {
  const undo = new Undo()
  try {
    const directory = mkdtempSync(join(tmpdir(), 'nydus-bench-start-'))
    undo.add(directory, () => rmSync(directory, { recursive: true, force: true }))
    const store = join(directory, 'registry')
    const network = await startNetwork({ root: store, ...NETWORK })
    undo.add('the registry', () => network.stop())
    const registry = `127.0.0.1:${network.ports.registry}`
    const prepared = await prepareImages({
      image: undefined,
      registry,
      directory,
      output: createOutput('none'),
      signal,
    })
    const place = { directory, store, network, prepared, signal }
    report.part('Cold start of the demo image, 100 Mbit/s, 20 ms')
    await withoutPrefetch(report, place)
    await withPrefetch(report, place)
    report.note(`medians of ${ROUNDS} interleaved runs, all caches dropped before each; the registry sends from memory`)
  } finally {
    await undo.run()
  }
}

async function withoutPrefetch(report: Report, place: Place): Promise<void> {
  const touched = await startOnce(place, OURS, { prefetch: false, amplifyBytes: 0 })
  const runs = await alternate(place, { prefetch: false })
  const [ours, peer] = [runs.get('ours') ?? [], runs.get('peer')]
  const of = (list: readonly StartResult[] | undefined, figure: (run: StartResult) => number): number | undefined =>
    list === undefined ? undefined : median(list.map(figure))
  const row = (what: string, unit: string, figure: (run: StartResult) => number, ratioAtMost: number): void =>
    report.figure({ what, unit, ours: of(ours, figure) ?? Number.NaN, peer: of(peer, figure), target: { ratioAtMost } })
  row('ready', 's', (run) => run.ready_s, 0.9)
  row('requests', 'n', (run) => run.requests, 1)
  row('fetched', 'MiB', (run) => run.bytes / MIB, 1)
  report.figure({
    what: 'fetched of touched',
    unit: 'MiB',
    ours: (of(ours, (run) => run.bytes) ?? Number.NaN) / MIB,
    bound: { what: 'chunks that were read, as stored', value: touched.bytes / MIB },
    target: { ratioAtMost: 1.3 },
  })
}

async function withPrefetch(report: Report, place: Place): Promise<void> {
  const runs = await alternate(place, { prefetch: true })
  const ready = (name: Tools['name']): number | undefined => {
    const list = runs.get(name)
    return list === undefined ? undefined : median(list.map((run) => run.ready_s))
  }
  const target = { ratioAtMost: 0.9 }
  report.figure({
    what: 'ready, prefetching all',
    unit: 's',
    ours: ready('ours') ?? Number.NaN,
    peer: ready('peer'),
    target,
  })
}

interface StartOptions {
  readonly prefetch: boolean
  readonly amplifyBytes?: number
}

async function alternate(place: Place, options: StartOptions): Promise<Map<Tools['name'], StartResult[]>> {
  const runs = new Map<Tools['name'], StartResult[]>()
  const contenders = [OURS, peerTools()].filter((tools) => tools !== undefined)
  const probes = contenders.map((tools) => [
    tools.name,
    async () => {
      const result = await startOnce(place, tools, options)
      runs.set(tools.name, [...(runs.get(tools.name) ?? []), result])
      return result.ready_s
    },
  ])
  await interleave(Object.fromEntries(probes), ROUNDS)
  return runs
}

async function startOnce(place: Place, tools: Tools, options: StartOptions): Promise<StartResult> {
  const { network, store, prepared, signal } = place
  const directory = join(place.directory, 'start')
  mkdirSync(directory)
  const undo = new Undo()
  const start = async (): Promise<StartedRoot> => {
    const reference = `127.0.0.1:${network.ports.link}/${prepared.nydus}`
    const daemon = { nydusd: tools.nydusd, daemonArguments: tools.daemonArgs }
    const { root, config, timings } = await startLazily({ ...daemon, reference, directory, undo, signal, ...options })
    return { root, config, mountedSeconds: timings.mounted, phases: {} }
  }
  try {
    const imageBytes = prepared.image.compressed_bytes
    const workload = (config: StartedRoot['config']): ReturnType<typeof workloadOf> => workloadOf(config, [], 'http')
    return (await measureStart({ network, store, imageBytes, start, workload, signal })).result
  } finally {
    await undo.run()
    rmSync(directory, { recursive: true, force: true })
  }
}
