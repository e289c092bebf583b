/** All that comes over the network, at 200 Mbit/s and 5 ms: starts with and without prefetch, how well prefetch uses the link, and a scan of all files against a plain pull. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { startEagerly } from '../demo/eager-start.ts'
import { prepareCaches } from '../demo/measure-start.ts'
import type { StartResult } from '../demo/result.ts'
import { alternate, contenders, inFolder, medianOf, mountCold, type Place, withPlace } from './cold-start.ts'
import { interleave, median } from './measure.ts'
import type { Tools } from './peers.ts'
import type { Report } from './report.ts'

const ROUNDS = 5
const SCAN_ROUNDS = 3
const NETWORK = { bitsPerSecond: 200e6, roundTripMs: 5 }
const MIB = 2 ** 20
/** How often the link is asked what it carried. */
const POLL_MS = 10
/** A prefetch that brings nothing for so long is over. */
const OVER_MS = 1_000
/** Until then it must have begun. */
const START_MS = 20_000

type Measure = (report: Report, place: Place) => Promise<void>

export async function benchCold(report: Report, signal: AbortSignal): Promise<void> {
  await measureCold(report, signal, [starts, linkUse, scans])
}

/** Starts only: ready, requests, bytes. */
export async function benchColdStarts(report: Report, signal: AbortSignal): Promise<void> {
  await measureCold(report, signal, [starts])
}

/** Only how well prefetch uses the link. */
export async function benchColdLink(report: Report, signal: AbortSignal): Promise<void> {
  await measureCold(report, signal, [linkUse])
}

/** Scans of all files only. */
export async function benchColdScans(report: Report, signal: AbortSignal): Promise<void> {
  await measureCold(report, signal, [scans])
}

async function measureCold(report: Report, signal: AbortSignal, measures: readonly Measure[]): Promise<void> {
  await withPlace(NETWORK, signal, async (place) => {
    report.part('Cold, 200 Mbit/s, 5 ms')
    for (const measure of measures) await measure(report, place)
    report.note(
      `medians of ${ROUNDS} interleaved runs (scans: ${SCAN_ROUNDS}), all caches dropped before each; the registry sends from memory`,
    )
  })
}

async function starts(report: Report, place: Place): Promise<void> {
  const without = await alternate(place, { prefetch: false }, ROUNDS)
  const all = await alternate(place, { prefetch: true }, ROUNDS)
  const ready = (run: StartResult): number => run.ready_s
  const row = (what: string, unit: string, figure: (run: StartResult) => number, ratioAtMost: number): void =>
    report.figure({
      what,
      unit,
      ours: medianOf(without, 'ours', figure) ?? Number.NaN,
      peer: medianOf(without, 'peer', figure),
      target: { ratioAtMost },
    })
  row('ready', 's', ready, 0.8)
  row('requests', 'n', (run) => run.requests, 0.9)
  row('fetched', 'MiB', (run) => run.bytes / MIB, 1.05)
  const prefetching = medianOf(all, 'ours', ready) ?? Number.NaN
  report.figure({ what: 'ready, prefetching all', unit: 's', ours: prefetching, peer: medianOf(all, 'peer', ready) })
  report.figure({
    what: 'ready, prefetching all, of ready',
    unit: 's',
    ours: prefetching,
    bound: { what: 'ours without prefetch', value: medianOf(without, 'ours', ready) ?? Number.NaN },
    target: { ratioAtMost: 1.1 },
  })
}

async function linkUse(report: Report, place: Place): Promise<void> {
  const shares = new Map<Tools['name'], number[]>()
  const probes = contenders().map((tools) => [
    tools.name,
    async () => {
      const share = await prefetchShare(place, tools)
      shares.set(tools.name, [...(shares.get(tools.name) ?? []), share])
      return share
    },
  ])
  await interleave(Object.fromEntries(probes), ROUNDS)
  report.figure({
    what: 'link used by prefetch',
    unit: '%',
    ours: 100 * median(shares.get('ours') ?? []),
    peer: shares.has('peer') ? 100 * median(shares.get('peer') ?? []) : undefined,
    target: { atLeast: 90 },
  })
}

/** Prefetches everything while nobody reads; gives the share of the link that it used from its first bytes to its last. */
async function prefetchShare(place: Place, tools: Tools): Promise<number> {
  const { network, store, signal } = place
  await prepareCaches(store)
  return await inFolder(place, async (directory, undo) => {
    await network.count()
    await mountCold(place, tools, { prefetch: true, directory, undo })
    const nothingSince = performance.now()
    let [bytes, beganAt, endedAt, askedAt] = [0, 0, nothingSince, nothingSince]
    await network.count()
    while (askedAt - endedAt < (bytes === 0 ? START_MS : OVER_MS)) {
      await sleep(POLL_MS, undefined, { signal })
      const came = (await network.count()).bytes
      if (came > 0 && bytes === 0) beganAt = askedAt
      bytes += came
      askedAt = performance.now()
      if (came > 0) endedAt = askedAt
    }
    if (bytes === 0) throw new Error(`${tools.nydusd} does not prefetch`)
    return (bytes * 8000) / (endedAt - beganAt) / NETWORK.bitsPerSecond
  })
}

async function scans(report: Report, place: Place): Promise<void> {
  const pull = 'plain pull'
  const probes: Record<string, () => Promise<number>> = { [pull]: () => scanPulled(place) }
  for (const tools of contenders())
    for (const prefetch of [false, true])
      probes[`${tools.name} ${prefetch}`] = () => scanMounted(place, tools, prefetch)
  const seconds = await interleave(probes, SCAN_ROUNDS)
  for (const prefetch of [false, true]) {
    const what = prefetch ? 'scan, prefetching all' : 'scan'
    const ours = seconds[`ours ${prefetch}`] ?? Number.NaN
    const bound = { what: pull, value: seconds[pull] ?? Number.NaN }
    report.figure({ what, unit: 's', ours, peer: seconds[`peer ${prefetch}`] })
    report.figure({ what: `${what}, of a pull`, unit: 's', ours, bound, target: { ratioAtMost: 1 } })
  }
}

/** Seconds from nothing until every file has been read once. */
async function scanMounted(place: Place, tools: Tools, prefetch: boolean): Promise<number> {
  await prepareCaches(place.store)
  return await inFolder(place, async (directory, undo) => {
    const from = performance.now()
    const { root } = await mountCold(place, tools, { prefetch, directory, undo })
    await readAll(root, place.signal)
    return (performance.now() - from) / 1000
  })
}

async function scanPulled(place: Place): Promise<number> {
  const { network, prepared, store, signal } = place
  await prepareCaches(store)
  return await inFolder(place, async (directory, undo) => {
    const from = performance.now()
    const reference = `127.0.0.1:${network.ports.link}/${prepared.plain}`
    const { root } = await startEagerly({ reference, directory, undo, signal, onProgress: () => undefined })
    await readAll(root, signal)
    return (performance.now() - from) / 1000
  })
}

async function readAll(root: string, signal: AbortSignal): Promise<void> {
  const child = spawn('find', [root, '-xdev', '-type', 'f', '-exec', 'cat', '{}', '+'], {
    stdio: ['ignore', 'ignore', 'inherit'],
    signal,
  })
  const [code] = (await once(child, 'close')) as [number | null]
  if (code !== 0) throw new Error(`reading all files of ${root} ended with ${code}`)
}
