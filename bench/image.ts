import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { interleave, median, timed } from './measure.ts'
import { OURS, peerTools, type Tools } from './peers.ts'
import type { Report } from './report.ts'
import { runTool } from './tool-run.ts'
import { writeLargeFile, writeRealTree, writeSmallFiles } from './tree.ts'

const ROUNDS = 3
const MIB = 2 ** 20
const LARGE_FILE_BYTES = 4 * 2 ** 30
const MERGED_LAYERS = 20
const VERSION_ROUNDS = 15
/** What a build may take: of the original's wall time on two processors, of its processor time, and of memory. */
const WALL = { ratioAtMost: 0.67 }
const CPU = { ratioAtMost: 1.2 }
const MEMORY = { atMost: 250 }

/** A folder for this part's files, and what is measured. */
interface Bench {
  readonly report: Report
  readonly work: string
  readonly signal: AbortSignal
}

/** One command of both tools; `args` may name files below `out`, which is new each time. */
interface Command {
  /** Of nydus-image. */
  readonly command?: string
  readonly what: string
  readonly args: (out: string) => readonly string[]
  readonly wall: { readonly ratioAtMost: number }
  readonly cpu?: { readonly ratioAtMost: number }
  readonly memory?: { readonly atMost: number }
  readonly rounds?: number
}

/** All that nydus-image does often, with ours and, where it is, the original: wall time, processor time, memory. */
export async function benchImage(report: Report, signal: AbortSignal): Promise<void> {
  const work = mkdtempSync(join(tmpdir(), 'nydus-bench-image-'))
  const bench = { report, work, signal }
  try {
    await benchCreate(bench, 'real image', writeRealTree)
    await benchCreate(bench, '65,536 small files', writeSmallFiles)
    await benchLargeFile(bench)
    await benchOthers(bench)
    report.note(`medians of ${ROUNDS} interleaved runs of whole processes; sources in the page cache`)
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
}

async function benchCreate(bench: Bench, name: string, write: (folder: string) => void): Promise<void> {
  const folder = join(bench.work, 'tree')
  const tar = join(bench.work, 'tree.tar')
  mkdirSync(folder)
  write(folder)
  timed('tar', ['-C', folder, '-cf', tar, '.'])
  bench.report.part(`nydus-image create: ${name}`)
  for (const compressor of ['zstd', 'lz4_block', 'none'])
    for (const [from, type, source] of [
      ['tar', 'tar-rafs', tar],
      ['directory', 'dir-rafs', folder],
    ] as const)
      await measure(bench, {
        what: `${from}, ${compressor}`,
        args: (out) => ['-t', type, '--compressor', compressor, '-D', out, '-B', join(out, 'bootstrap'), source],
        wall: WALL,
        cpu: CPU,
      })
  await measureBound(bench, tar)
  timed('gzip', ['-1', '-k', tar])
  await measure(bench, {
    what: 'reference to the tar.gz',
    args: (out) => ['-t', 'targz-ref', '-D', out, '-B', join(out, 'bootstrap'), `${tar}.gz`],
    wall: { ratioAtMost: 1 },
  })
  rmSync(folder, { recursive: true })
  rmSync(tar)
  rmSync(`${tar}.gz`)
}

async function benchLargeFile(bench: Bench): Promise<void> {
  const folder = join(bench.work, 'large')
  mkdirSync(folder)
  writeLargeFile(join(folder, 'file'), LARGE_FILE_BYTES)
  bench.report.part('nydus-image create: one file of 4 GiB (a single run)')
  await measure(bench, {
    what: 'directory, zstd',
    args: (out) => ['-t', 'dir-rafs', '--compressor', 'zstd', '-D', out, '-B', join(out, 'bootstrap'), folder],
    wall: WALL,
    cpu: CPU,
    memory: MEMORY,
    rounds: 1,
  })
  rmSync(folder, { recursive: true })
}

async function benchOthers(bench: Bench): Promise<void> {
  const layers = await buildLayers(bench)
  const image = join(bench.work, 'merged')
  timed(OURS.nydusImage, ['merge', '--log-level', 'error', '-B', image, ...layers])
  bench.report.part('nydus-image: other commands')
  const wall = { ratioAtMost: 1.5 }
  await measure(bench, {
    what: `merge of ${MERGED_LAYERS} layers`,
    command: 'merge',
    args: (out) => ['-B', join(out, 'bootstrap'), ...layers],
    wall,
  })
  await measure(bench, { what: 'check of the result', command: 'check', args: () => [image], wall })
  const cpu = await interleave(
    Object.fromEntries(
      tools().map((tool) => [tool.name, async () => (await runTool(tool.nydusImage, ['--version'])).cpuSeconds * 1000]),
    ),
    VERSION_ROUNDS,
  )
  bench.report.figure({
    what: '--version, processor time',
    unit: 'ms',
    ours: cpu['ours'] ?? Number.NaN,
    peer: cpu['peer'],
    target: { atMost: 60 },
  })
}

/** Layers of 3,277 small files each, which have few chunks in common. */
async function buildLayers({ work, signal }: Bench): Promise<string[]> {
  const source = join(work, 'small')
  mkdirSync(source)
  writeSmallFiles(source)
  const layers: string[] = []
  for (let layer = 0; layer < MERGED_LAYERS; layer += 1) {
    signal.throwIfAborted()
    const folder = join(work, `layer-${layer}`)
    mkdirSync(folder)
    // Every 20th of the 256 folders, and one that all layers have.
    const names = Array.from({ length: 256 }, (_unused, at) => `d${at}`).filter(
      (_name, at) => at === 0 || at % 20 === layer,
    )
    timed('cp', ['-a', ...names.map((name) => join(source, name)), folder])
    const bootstrap = join(work, `layer-${layer}.boot`)
    await runTool(OURS.nydusImage, ['create', '--log-level', 'error', '-D', work, '-B', bootstrap, folder])
    rmSync(folder, { recursive: true })
    layers.push(bootstrap)
  }
  rmSync(source, { recursive: true })
  return layers
}

/** Reading, digesting and writing a tar by one thread: what is stored as it is takes no less processor time, and half of it on two processors. */
async function measureBound({ report, work }: Bench, tar: string): Promise<void> {
  const script = join(import.meta.dirname, 'copy-bound.ts')
  const runs = []
  for (let round = 0; round < ROUNDS; round += 1)
    runs.push(await runTool(process.execPath, [script, tar, join(work, 'copy')]))
  rmSync(join(work, 'copy'))
  const ours = median(runs.map(({ cpuSeconds }) => cpuSeconds))
  report.figure({ what: 'its bytes read, digested, written', unit: 's CPU', ours })
}

function tools(): Tools[] {
  return [OURS, peerTools()].filter((tool) => tool !== undefined)
}

async function measure(
  { report, work, signal }: Bench,
  { what, command = 'create', args, wall, cpu, memory, rounds = ROUNDS }: Command,
): Promise<void> {
  const runs: Record<string, { cpu: number[]; peak: number }> = {}
  const probes = tools().map(({ name, nydusImage }) => [
    name,
    async () => {
      signal.throwIfAborted()
      const out = join(work, 'out')
      mkdirSync(out)
      try {
        const run = await runTool(nydusImage, [command, '--log-level', 'error', ...args(out)])
        const all = (runs[name] ??= { cpu: [], peak: 0 })
        all.cpu.push(run.cpuSeconds)
        all.peak = Math.max(all.peak, run.peakBytes)
        return run.seconds
      } finally {
        rmSync(out, { recursive: true })
      }
    },
  ])
  const seconds = await interleave(Object.fromEntries(probes), rounds)
  report.figure({ what, unit: 's', ours: seconds['ours'] ?? Number.NaN, peer: seconds['peer'], target: wall })
  const [ours, peer] = [runs['ours'], runs['peer']]
  report.figure({
    what: '  processor time',
    unit: 's',
    ours: median(ours?.cpu ?? []),
    peer: peer === undefined ? undefined : median(peer.cpu),
    ...(cpu === undefined ? {} : { target: cpu }),
  })
  report.figure({
    what: '  memory',
    unit: 'MiB',
    ours: (ours?.peak ?? Number.NaN) / MIB,
    peer: peer === undefined ? undefined : peer.peak / MIB,
    ...(memory === undefined ? {} : { target: memory }),
  })
}
