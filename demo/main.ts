/** `npm run demo`: a container image starts over a slow network, by a plain pull and lazily. */
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createOutput, type Output } from '../src/cli/output.ts'
import { whyNoFuse } from '../src/kernel/index.ts'
import { startEagerly } from './eager-start.ts'
import { startLazily } from './lazy-start.ts'
import { type MeasuredStart, measureStart, type StartedRoot } from './measure-start.ts'
import { type Network, startNetwork } from './network.ts'
import { type DemoOptions, HELP, parseOptions } from './options.ts'
import { type Prepared, prepareImages, TotalBar } from './prepare.ts'
import { type DemoResult, renderTable } from './result.ts'
import { runWorkload } from './sandbox.ts'
import { Undo } from './undo.ts'
import { workloadOf } from './workload.ts'

const NYDUSD = join(import.meta.dirname, '../bin/nydusd')

/** Everything that one run of the demo shares. */
interface Stage {
  readonly options: DemoOptions
  readonly output: Output
  readonly directory: string
  readonly network: Network
  readonly undo: Undo
  readonly signal: AbortSignal
}

async function demo(options: DemoOptions, output: Output, undo: Undo, signal: AbortSignal): Promise<DemoResult> {
  const directory = await mkdtemp(join(tmpdir(), 'nydus-demo-'))
  undo.add(directory, () => rm(directory, { recursive: true, force: true, maxRetries: 3 }))
  const { bitsPerSecond, roundTripMs } = options
  const network = await startNetwork({ root: storeOf(directory), bitsPerSecond, roundTripMs })
  undo.add('the registry', () => network.stop())
  signal.throwIfAborted()
  const registry = `127.0.0.1:${network.ports.registry}`
  const prepared = await prepareImages({ image: options.image, registry, directory, output, signal })
  const { image, prepare } = prepared
  const known = { image, network: { bandwidth_mbit: bitsPerSecond / 1e6, round_trip_ms: roundTripMs }, prepare }
  const hindrance = whyNoFuse()
  if (hindrance !== undefined)
    return { ...known, skipped: `${hindrance}; run it as root on a machine with /dev/fuse to see the image start` }
  return { ...known, ...(await startBoth({ options, output, directory, network, undo, signal }, prepared)) }
}

function storeOf(directory: string): string {
  return join(directory, 'registry')
}

/** The lazy start first: should anything be warmer for the second, then it is the plain pull that gains. */
async function startBoth(stage: Stage, prepared: Prepared): Promise<Partial<DemoResult>> {
  const { output, options, signal } = stage
  output.note('starting it lazily …')
  const lazyUndo = nested(stage.undo, 'the lazy start')
  const lazy = await measure(stage, prepared, () => lazily(stage, prepared, lazyUndo))
  await lazyUndo.run()
  output.note('starting it by a plain pull …')
  const eagerUndo = nested(stage.undo, 'the plain start')
  const eager = await measure(stage, prepared, () => eagerly(stage, prepared, eagerUndo))
  if (options.image === undefined && lazy.said !== eager.said)
    throw new Error(`the program answered otherwise when it was lazy: ${lazy.said}, not ${eager.said}`)
  const alone = await runWorkload(eager.root, eager.workload, signal)
  await eagerUndo.run()
  return {
    eager: eager.result,
    lazy: { ...lazy.result, prefetch: options.prefetch },
    program_s: alone.readySeconds,
    speedup: eager.result.ready_s / lazy.result.ready_s,
    caches_dropped: lazy.cachesDropped && eager.cachesDropped,
  }
}

function nested(undo: Undo, what: string): Undo {
  const own = new Undo()
  undo.add(what, () => own.run())
  return own
}

function measure(stage: Stage, prepared: Prepared, start: () => Promise<StartedRoot>): Promise<MeasuredStart> {
  const { network, directory, signal, options } = stage
  return measureStart({
    network,
    store: storeOf(directory),
    imageBytes: prepared.image.compressed_bytes,
    start,
    workload: (config) => workloadOf(config, options.command, options.image === undefined ? 'http' : 'line'),
    signal,
  })
}

async function lazily(
  { network, directory, options, signal }: Stage,
  { nydus }: Prepared,
  undo: Undo,
): Promise<StartedRoot> {
  const reference = `127.0.0.1:${network.ports.link}/${nydus}`
  const own = join(directory, 'lazy')
  await mkdir(own)
  const { prefetch } = options
  const wanted = { nydusd: NYDUSD, daemonArguments: [], reference, directory: own, prefetch, undo, signal }
  const { root, config, timings } = await startLazily(wanted)
  const ready = Math.max(timings.bootstrap, timings.daemon)
  return {
    root,
    config,
    mountedSeconds: timings.mounted,
    phases: {
      'manifest and bootstrap': timings.bootstrap,
      'waiting for nydusd': ready - timings.bootstrap,
      mount: timings.mounted - ready,
    },
  }
}

async function eagerly(
  { network, directory, output, signal }: Stage,
  { plain }: Prepared,
  undo: Undo,
): Promise<StartedRoot> {
  const reference = `127.0.0.1:${network.ports.link}/${plain}`
  const own = join(directory, 'eager')
  await mkdir(own)
  const bar = new TotalBar(output, 'pulling')
  try {
    const { root, config, timings } = await startEagerly({
      reference,
      directory: own,
      undo,
      signal,
      onProgress: bar.show,
    })
    const { download, unpack, mounted } = timings
    return {
      root,
      config,
      mountedSeconds: mounted,
      phases: {
        'download (unpacking meanwhile)': download,
        'rest of unpacking': unpack - download,
        mount: mounted - unpack,
      },
    }
  } finally {
    bar.done()
  }
}

/** The first signal, or an error that nobody expected, ends the work; what was made is undone before the process ends. */
function interruptions(): { readonly signal: AbortSignal; exitCode: number } {
  const stop = new AbortController()
  const interrupted = { signal: stop.signal, exitCode: 0 }
  // Further ones change nothing: npm passes on what the terminal has sent already, and cleaning up ends by itself.
  for (const [name, number] of [
    ['SIGINT', 2],
    ['SIGTERM', 15],
    ['SIGHUP', 1],
  ] as const)
    process.on(name, () => {
      if (stop.signal.aborted) return
      interrupted.exitCode = 128 + number
      process.stderr.write(`\n${name}: cleaning up\n`)
      stop.abort(new Error(`interrupted by ${name}`))
    })
  process.on('uncaughtException', (error) => stop.abort(error))
  // A terminal that has gone away, or `| head`: nobody reads any more, and what was made must go all the same.
  for (const stream of [process.stdout, process.stderr]) stream.on('error', (error) => stop.abort(error))
  return interrupted
}

/** Undefined when nothing is to be run: the usage was asked for, or is told with what cannot be meant. */
function chosenOptions(output: Output): DemoOptions | undefined {
  try {
    const options = parseOptions(process.argv.slice(2))
    if (options !== 'help') return options
    output.line(HELP)
  } catch (error) {
    console.error(`demo: ${(error as Error).message}; --help tells how it is used`)
    process.exitCode = 2
  }
  return undefined
}

async function main(): Promise<void> {
  const output = createOutput('auto')
  const options = chosenOptions(output)
  if (options === undefined) return
  const interrupted = interruptions()
  const undo = new Undo()
  try {
    const result = await demo(options, output, undo, interrupted.signal)
    await undo.run()
    if (options.json) output.json(result)
    else output.line(renderTable(result))
  } catch (error) {
    await undo.run()
    if (interrupted.exitCode !== 0) process.exitCode = interrupted.exitCode
    else output.fail(interrupted.signal.aborted ? interrupted.signal.reason : error)
  }
}

await main()
