/** Cold start of the demo's container over the simulated network: our nydusd and the original's, in turn. */
import type { StartResult } from '../demo/result.ts'
import { alternate, medianOf, type Place, startOnce, withPlace } from './cold-start.ts'
import { OURS } from './peers.ts'
import type { Report } from './report.ts'

const ROUNDS = 5
const NETWORK = { bitsPerSecond: 100e6, roundTripMs: 20 }
const MIB = 2 ** 20

export async function benchStart(report: Report, signal: AbortSignal): Promise<void> {
  await withPlace(NETWORK, signal, async (place) => {
    report.part('Cold start of the demo image, 100 Mbit/s, 20 ms')
    await withoutPrefetch(report, place)
    await withPrefetch(report, place)
    report.note(`medians of ${ROUNDS} interleaved runs, all caches dropped before each; the registry sends from memory`)
  })
}

async function withoutPrefetch(report: Report, place: Place): Promise<void> {
  const touched = await startOnce(place, OURS, { prefetch: false, amplifyBytes: 0 })
  const runs = await alternate(place, { prefetch: false }, ROUNDS)
  const row = (what: string, unit: string, figure: (run: StartResult) => number, ratioAtMost: number): void =>
    report.figure({
      what,
      unit,
      ours: medianOf(runs, 'ours', figure) ?? Number.NaN,
      peer: medianOf(runs, 'peer', figure),
      target: { ratioAtMost },
    })
  row('ready', 's', (run) => run.ready_s, 0.9)
  row('requests', 'n', (run) => run.requests, 1)
  row('fetched', 'MiB', (run) => run.bytes / MIB, 1)
  report.figure({
    what: 'fetched of touched',
    unit: 'MiB',
    ours: (medianOf(runs, 'ours', (run) => run.bytes) ?? Number.NaN) / MIB,
    bound: { what: 'chunks that were read, as stored', value: touched.bytes / MIB },
    target: { ratioAtMost: 1.3 },
  })
}

async function withPrefetch(report: Report, place: Place): Promise<void> {
  const runs = await alternate(place, { prefetch: true }, ROUNDS)
  const ready = (run: StartResult): number => run.ready_s
  const target = { ratioAtMost: 0.9 }
  report.figure({
    what: 'ready, prefetching all',
    unit: 's',
    ours: medianOf(runs, 'ours', ready) ?? Number.NaN,
    peer: medianOf(runs, 'peer', ready),
    target,
  })
}
