/** The bar for failover. Prints what readers and writers saw, and ends with 1 for a wrong byte or an error; the bar for pauses is for a machine that does nothing else. */
import { join } from 'node:path'
import { runStorm, type StormReport } from '../test/kill/storm.ts'
import { ScriptArguments } from '../test/script-arguments.ts'

const line = new ScriptArguments(
  'kill-test',
  `npm run kill-test -- [KILLS [UPGRADES [READERS [WRITERS]]]]

Kills and upgrades nydusd under readers that check every byte; with writers the image has an overlay, and they change it.

  KILLS     of a daemon that its keeper brings back (default 200)
  UPGRADES  to another process, by a supervisor (default 50)
  READERS   processes (default 8)
  WRITERS   processes (default none)
  --help    this text`,
)
const counts = line.read({}).positionals
if (counts.length > 4) line.refuse(`${JSON.stringify(counts[4])} is one number too many`)
const [kills = 200, upgrades = 50, readers = 8, writers = 0] = counts.map(countOf)
const MOST_MS = 1_000
const MOST_P99_MS = 300
const bin = (tool: string): string[] => [join(import.meta.dirname, '../bin', tool)]

function countOf(text: string): number {
  const count = Number(text)
  if (Number.isInteger(count) && count > 0) return count
  return line.refuse(`${JSON.stringify(text)} is no number above 0`)
}

function percentile(sorted: readonly number[], part: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? 0
}

/** Of all reads of all readers. */
function latencyMs(report: StormReport, part: number): number {
  const counts = report.reports.reduce<number[]>(
    (sum, { latencies }) => latencies.map((count, ms) => count + (sum[ms] ?? 0)),
    [],
  )
  let left = counts.reduce((sum, count) => sum + count, 0) * part
  return counts.findIndex((count) => (left -= count) < 0)
}

function show(report: StormReport): boolean {
  const sum = (of: (one: StormReport['reports'][number]) => number): number =>
    report.reports.reduce((total, one) => total + of(one), 0)
  const pauses = [...report.pausesMs].sort((a, b) => a - b)
  const users = [...report.reports, ...report.writers]
  const wrong = users.flatMap((one) => one.wrong)
  const errors = users.flatMap((one) => one.errors)
  const [longest, p99] = [percentile(pauses, 1), latencyMs(report, 0.99)]
  console.log(`${report.interruptions} ${report.what} under ${report.reports.length} readers`)
  console.log(
    `  ${sum((one) => one.reads)} reads, ${Math.round(sum((one) => one.bytes) / 2 ** 20)} MiB, ${wrong.length} wrong, ${errors.length} failed`,
  )
  for (const { steps } of report.writers)
    console.log(`  a writer: ${Object.values(steps).reduce((total, count) => total + count, 0)} changes and looks`)
  console.log(`  reads: p50 ${latencyMs(report, 0.5)} ms, p99 ${p99} ms, p99.9 ${latencyMs(report, 0.999)} ms`)
  console.log(
    `  pause of one: median ${Math.round(percentile(pauses, 0.5))} ms, p99 ${Math.round(percentile(pauses, 0.99))} ms, longest ${Math.round(longest)} ms`,
  )
  for (const line of [...wrong, ...errors]) console.log(`  ${line}`)
  if (longest > MOST_MS || p99 >= MOST_P99_MS)
    console.log(`  slower than the bar: ${MOST_MS} ms, p99 ${MOST_P99_MS} ms`)
  return wrong.length + errors.length === 0
}

const reports = await runStorm({
  nydusd: bin('nydusd'),
  nydusImage: bin('nydus-image'),
  kills,
  upgrades,
  readers,
  writers,
  megabytes: 32,
  tell: (line) => process.stderr.isTTY && process.stderr.write(`\r${line}   `),
})
process.exitCode = reports.map(show).every(Boolean) ? 0 : 1
