/** Starts of the demo's container over a simulated network, as benchmarks measure them: our nydusd and the original's, in turn. */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createOutput } from '../src/cli/output.ts'
import { type LazyRoot, startLazily } from '../demo/lazy-start.ts'
import { measureStart, type StartedRoot } from '../demo/measure-start.ts'
import { type Network, startNetwork } from '../demo/network.ts'
import { type Prepared, prepareImages } from '../demo/prepare.ts'
import type { StartResult } from '../demo/result.ts'
import { Undo } from '../demo/undo.ts'
import { workloadOf } from '../demo/workload.ts'
import { interleave, median } from './measure.ts'
import { OURS, peerTools, type Tools } from './peers.ts'

/** A registry behind a slow link that has the demo's image, plain and converted. */
export interface Place {
  readonly directory: string
  /** The registry's folder. */
  readonly store: string
  readonly network: Network
  readonly prepared: Prepared
  readonly signal: AbortSignal
}

export interface StartOptions {
  readonly prefetch: boolean
  readonly amplifyBytes?: number
}

/** Ours, and the original when it is there. */
export function contenders(): Tools[] {
  return [OURS, peerTools()].filter((tools) => tools !== undefined)
}

export async function withPlace(
  link: { readonly bitsPerSecond: number; readonly roundTripMs: number },
  signal: AbortSignal,
  use: (place: Place) => Promise<void>,
): Promise<void> {
  const undo = new Undo()
  try {
    const directory = mkdtempSync(join(tmpdir(), 'nydus-bench-start-'))
    undo.add(directory, () => rmSync(directory, { recursive: true, force: true }))
    const store = join(directory, 'registry')
    const network = await startNetwork({ root: store, ...link })
    undo.add('the registry', () => network.stop())
    const registry = `127.0.0.1:${network.ports.registry}`
    const output = createOutput('none')
    const prepared = await prepareImages({ image: undefined, registry, directory, output, signal })
    await use({ directory, store, network, prepared, signal })
  } finally {
    await undo.run()
  }
}

/** Every contender starts the container `rounds` times, the rounds of both alternating. */
export async function alternate(
  place: Place,
  options: StartOptions,
  rounds: number,
): Promise<Map<Tools['name'], StartResult[]>> {
  const runs = new Map<Tools['name'], StartResult[]>()
  const probes = contenders().map((tools) => [
    tools.name,
    async () => {
      const result = await startOnce(place, tools, options)
      runs.set(tools.name, [...(runs.get(tools.name) ?? []), result])
      return result.ready_s
    },
  ])
  await interleave(Object.fromEntries(probes), rounds)
  return runs
}

/** The median of a figure of one contender's starts; undefined when it was not there. */
export function medianOf(
  runs: ReadonlyMap<Tools['name'], readonly StartResult[]>,
  name: Tools['name'],
  figure: (run: StartResult) => number,
): number | undefined {
  const list = runs.get(name)
  return list === undefined ? undefined : median(list.map(figure))
}

/** From nothing to a program that answers, the kernel's caches empty, the registry's full. */
export async function startOnce(place: Place, tools: Tools, options: StartOptions): Promise<StartResult> {
  const { network, store, prepared, signal } = place
  return await inFolder(place, async (directory, undo) => {
    const start = async (): Promise<StartedRoot> => {
      const { root, config, timings } = await mountCold(place, tools, { ...options, directory, undo })
      return { root, config, mountedSeconds: timings.mounted, phases: {} }
    }
    const imageBytes = prepared.image.compressed_bytes
    const workload = (config: StartedRoot['config']): ReturnType<typeof workloadOf> => workloadOf(config, [], 'http')
    return (await measureStart({ network, store, imageBytes, start, workload, signal })).result
  })
}

/** Mounts the converted image over the link. */
export async function mountCold(
  { network, prepared, signal }: Place,
  { nydusd, daemonArgs }: Tools,
  options: StartOptions & { readonly directory: string; readonly undo: Undo },
): Promise<LazyRoot> {
  const reference = `127.0.0.1:${network.ports.link}/${prepared.nydus}`
  return await startLazily({ nydusd, daemonArguments: daemonArgs, reference, signal, ...options })
}

/** A folder of one run; it is gone, with what was mounted in it, when the run is over. */
export async function inFolder<T>(place: Place, run: (directory: string, undo: Undo) => Promise<T>): Promise<T> {
  const directory = join(place.directory, 'start')
  mkdirSync(directory)
  const undo = new Undo()
  try {
    return await run(directory, undo)
  } finally {
    await undo.run()
    rmSync(directory, { recursive: true, force: true })
  }
}
