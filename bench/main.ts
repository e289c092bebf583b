/** `npm run bench [-- PART...]`: prints ratios against the original tools, or bounds where these are missing. */
import { spawnSync } from 'node:child_process'
import { createOutput, runTool } from '../src/cli/output.ts'
import { whyNoFuse } from '../src/kernel/index.ts'
import { ScriptArguments } from '../test/script-arguments.ts'
import { benchBuilder } from './builder.ts'
import { benchCold, benchColdLink, benchColdScans, benchColdStarts } from './cold.ts'
import { benchDaemon } from './daemon.ts'
import { benchEngine } from './engine.ts'
import { benchImage } from './image.ts'
import { conditions } from './measure.ts'
import { benchMany } from './many.ts'
import { benchMounted } from './mounted.ts'
import { benchNode } from './node.ts'
import { OURS, peerTools } from './peers.ts'
import { Report } from './report.ts'
import { benchShown } from './shown.ts'
import { benchSnapshots } from './snapshots.ts'
import { benchStart } from './start.ts'

interface Part {
  readonly run: (report: Report, signal: AbortSignal) => Promise<void>
  readonly mounts: boolean
  /** Measures some of what another part does: run only by its name. */
  readonly isExcerpt?: boolean
}

const PARTS: Readonly<Record<string, Part>> = {
  mounted: { run: benchMounted, mounts: true },
  shown: { run: benchShown, mounts: true },
  start: { run: benchStart, mounts: true },
  cold: { run: benchCold, mounts: true },
  'cold-starts': { run: benchColdStarts, mounts: true, isExcerpt: true },
  'cold-link': { run: benchColdLink, mounts: true, isExcerpt: true },
  'cold-scans': { run: benchColdScans, mounts: true, isExcerpt: true },
  daemon: { run: benchDaemon, mounts: true },
  many: { run: benchMany, mounts: true },
  node: { run: benchNode, mounts: true },
  builder: { run: benchBuilder, mounts: false },
  image: { run: benchImage, mounts: false },
  engine: { run: benchEngine, mounts: false },
  snapshots: { run: benchSnapshots, mounts: false },
}

const output = createOutput('none')
const commandLine = new ScriptArguments(
  'bench',
  `npm run bench -- [PART…] [--json]

Prints ratios against the original tools of NYDUS_PEER_DIR, or against bounds where there are none; medians of interleaved runs. See bench/README.md.

  PART      ${namesOf(false).join(', ')} (default: all of these);
            or an excerpt of one: ${namesOf(true).join(', ')}
  --json    prints all figures as one JSON object instead
  --help    this text`,
)

function namesOf(isExcerpt: boolean): string[] {
  return Object.keys(PARTS).filter((name) => (PARTS[name]?.isExcerpt ?? false) === isExcerpt)
}

/** Exits with 2 for a name that is no part. No name means all of them but excerpts. */
function chosenParts(names: readonly string[]): Array<[string, Part]> {
  const unknown = names.find((name) => PARTS[name] === undefined)
  if (unknown !== undefined) commandLine.refuse(`there is no benchmark ${JSON.stringify(unknown)}`)
  return Object.entries(PARTS).filter(([name, { isExcerpt = false }]) =>
    names.length === 0 ? !isExcerpt : names.includes(name),
  )
}

async function bench(chosen: ReadonlyArray<[string, Part]>, isJson: boolean, signal: AbortSignal): Promise<void> {
  const line = (text: string): void => (isJson ? output.note(text) : output.line(text))
  const report = new Report(line)
  const peer = peerTools()
  const before = conditions()
  line(before)
  line(`ours: ${versionOf(OURS.nydusImage)}`)
  line(
    peer === undefined
      ? 'peer: none, so compared with bounds; NYDUS_PEER_DIR names a folder with the original nydusd and nydus-image'
      : `peer: ${versionOf(peer.nydusImage)}`,
  )
  const hindrance = whyNoFuse()
  for (const [name, part] of chosen) {
    signal.throwIfAborted()
    if (part.mounts && hindrance !== undefined) line(`\n${name}: left out, ${hindrance}`)
    else await part.run(report, signal)
  }
  line(`\nafterwards: ${conditions()}`)
  line(report.missed === 0 ? 'no target was missed' : `${report.missed} targets were missed`)
  if (isJson) output.json({ conditions: before, figures: report.figures })
}

function versionOf(tool: string): string {
  const { stdout } = spawnSync(tool, ['--version'], { encoding: 'utf8' })
  return stdout
    .trim()
    .split('\n')
    .slice(0, 3)
    .map((text) => text.trim())
    .join(', ')
}

const { values, positionals } = commandLine.read({ json: { type: 'boolean', default: false } })
const parts = chosenParts(positionals)
await runTool(output, (signal) => bench(parts, values.json, signal))
