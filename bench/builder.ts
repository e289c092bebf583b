import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { interleave, timed } from './measure.ts'
import { OURS, peerTools, type Tools } from './peers.ts'
import type { Report } from './report.ts'
import { runTool, type ToolRun } from './tool-run.ts'
import { writeLargeFile, writeManyFiles, writeRealTree, writeSmallFiles } from './tree.ts'

const ROUNDS = 5
const MIB = 2 ** 20
const LARGE_FILES = 64
const LARGE_FILE_BYTES = 32 * MIB

/** The layer whose memory is bounded: a build's memory grows with the number of files only, not with their size. */
const LARGE = '2 GiB in 64 files'
const MAX_LARGE_MIB = 250
const MILLION = 1_000_000
const MAX_BYTES_A_FILE = 300

/** Source trees, by what a reader of the report calls them. */
const SOURCES: Readonly<Record<string, (folder: string) => void>> = {
  'real image': writeRealTree,
  '65,536 small files': writeSmallFiles,
  [LARGE]: (folder) => {
    for (let at = 0; at < LARGE_FILES; at += 1)
      writeLargeFile(join(folder, `large-${at}`), LARGE_FILE_BYTES - at, 1 + at * 7919)
  },
}

/** Builds layers from tars with our nydus-image and, where it is, the original: seconds, and the memory of the largest. */
export async function benchBuilder(report: Report): Promise<void> {
  const work = mkdtempSync(join(tmpdir(), 'nydus-bench-builder-'))
  try {
    report.part('Builder: tar → RAFS v6, zstd')
    for (const [name, write] of Object.entries(SOURCES)) await benchSource(report, name, tarOf(work, name, write), work)
    await benchMillion(report, work)
    report.note(
      `medians of ${ROUNDS} interleaved runs of whole processes; sources in the page cache; memory is the highest of all runs`,
    )
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
}

/** A layer of a million small files, built once by each tool, and unpacked by ours: what counts is the memory, a fixed amount and so much a file. */
async function benchMillion(report: Report, work: string): Promise<void> {
  const tar = join(work, 'million.tar')
  const out = join(work, 'out')
  await writeManyFiles(tar, MILLION)
  const peer = peerTools()
  const theirs = peer === undefined ? undefined : await build(peer, tar, out)
  try {
    const ours = await buildInto(OURS, tar, out)
    rmSync(tar)
    reportMillion(report, '1,000,000 files', ours, theirs)
    const unpack = ['unpack', '--log-level', 'error', '-D', out, '--output', tar, join(out, 'bootstrap')]
    reportMillion(report, '1,000,000 files, unpack', await runTool(OURS.nydusImage, unpack), undefined)
  } finally {
    rmSync(out, { recursive: true, force: true })
    rmSync(tar, { force: true })
  }
}

function reportMillion(report: Report, what: string, ours: ToolRun, theirs: ToolRun | undefined): void {
  report.figure({ what, unit: 's', ours: ours.seconds, peer: theirs?.seconds })
  report.figure({
    what: `${what}, memory`,
    unit: 'MiB',
    ours: ours.peakBytes / MIB,
    peer: theirs === undefined ? undefined : theirs.peakBytes / MIB,
    target: { atMost: MAX_LARGE_MIB + (MILLION * MAX_BYTES_A_FILE) / MIB },
  })
}

function tarOf(work: string, name: string, write: (folder: string) => void): string {
  const folder = join(work, 'tree')
  mkdirSync(folder)
  write(folder)
  const tar = join(work, `${name.replaceAll(/\W+/g, '-')}.tar`)
  timed('tar', ['-C', folder, '-cf', tar, '.'])
  rmSync(folder, { recursive: true })
  return tar
}

async function benchSource(report: Report, name: string, tar: string, work: string): Promise<void> {
  const tools = [OURS, peerTools()].filter((tool) => tool !== undefined)
  const memory = new Map<string, number>()
  const probes = tools.map((tool) => [
    tool.name,
    async () => {
      const { seconds, peakBytes } = await build(tool, tar, join(work, 'out'))
      memory.set(tool.name, Math.max(memory.get(tool.name) ?? 0, peakBytes))
      return seconds
    },
  ])
  const seconds = await interleave(Object.fromEntries(probes), ROUNDS)
  rmSync(tar)
  report.figure({
    what: name,
    unit: 's',
    ours: seconds['ours'] ?? Number.NaN,
    peer: seconds['peer'],
    target: { ratioAtMost: 0.8 },
  })
  const peak = (tool: Tools['name']): number | undefined => {
    const bytes = memory.get(tool)
    return bytes === undefined ? undefined : bytes / MIB
  }
  report.figure({
    what: `${name}, memory`,
    unit: 'MiB',
    ours: peak('ours') ?? Number.NaN,
    peer: peak('peer'),
    ...(name === LARGE ? { target: { atMost: MAX_LARGE_MIB } } : {}),
  })
}

/** One build by a process of its own; nothing of it stays. */
async function build(tool: Tools, tar: string, out: string): Promise<ToolRun> {
  try {
    return await buildInto(tool, tar, out)
  } finally {
    rmSync(out, { recursive: true, force: true })
  }
}

async function buildInto(tool: Tools, tar: string, out: string): Promise<ToolRun> {
  mkdirSync(out)
  const place = ['-D', out, '-B', join(out, 'bootstrap')]
  return await runTool(tool.nydusImage, ['create', '--log-level', 'error', '-t', 'tar-rafs', ...place, tar])
}
