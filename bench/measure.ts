import { spawnSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { cpus, totalmem } from 'node:os'

/** Median of some figures; NaN of none. */
export function median(figures: readonly number[]): number {
  const sorted = [...figures].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  if (sorted.length === 0) return Number.NaN
  return sorted.length % 2 === 1
    ? (sorted[middle] ?? Number.NaN)
    : ((sorted[middle - 1] ?? 0) + (sorted[middle] ?? 0)) / 2
}

/** One thing to measure for each contender: gives its figure (the lower the better). */
export type Probe = () => Promise<number> | number

/**
 * Runs all contenders in turn, `rounds` times (so that noise hits all of them alike), and gives the median of each. The order alternates.
 */
export async function interleave(
  contenders: Readonly<Record<string, Probe>>,
  rounds: number,
): Promise<Record<string, number>> {
  const figures: Record<string, number[]> = {}
  for (let round = 0; round < rounds; round++) {
    const entries = Object.entries(contenders)
    if (round % 2 === 1) entries.reverse()
    for (const [name, probe] of entries) (figures[name] ??= []).push(await probe())
  }
  return Object.fromEntries(Object.entries(figures).map(([name, list]) => [name, median(list)]))
}

/** Runs a command and gives the seconds that it took; throws with its stderr when it fails. */
export function timed(command: string, args: readonly string[], options: { readonly input?: string } = {}): number {
  const from = performance.now()
  const { status, stderr, error } = spawnSync(command, args, {
    stdio: [options.input === undefined ? 'ignore' : 'pipe', 'ignore', 'pipe'],
    encoding: 'utf8',
    ...options,
  })
  if (error) throw error
  if (status !== 0) throw new Error(`${command} ${args.join(' ')} ended with ${status}: ${stderr}`)
  return (performance.now() - from) / 1000
}

/** Empties the kernel's page, inode and dentry caches. Root only. */
export function dropCaches(): void {
  spawnSync('sync')
  writeFileSync('/proc/sys/vm/drop_caches', '3')
}

/** Resident and proportional memory of a process, bytes; 0 when it is gone. */
export function memoryOf(pid: number): { rss: number; pss: number } {
  try {
    const text = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8')
    const field = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(text)?.[1] ?? 0) * 1024
    return { rss: field('Rss'), pss: field('Pss') }
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT' || (cause as NodeJS.ErrnoException).code === 'ESRCH')
      return { rss: 0, pss: 0 }
    throw cause
  }
}

/** One line that says on what the figures were measured. */
export function conditions(): string {
  const cpu = cpus()[0]?.model ?? 'unknown CPU'
  const load = readFileSync('/proc/loadavg', 'utf8').split(' ')[0]
  const kernel = readFileSync('/proc/sys/kernel/osrelease', 'utf8').trim()
  return `${cpus().length} × ${cpu}, ${Math.round(totalmem() / 2 ** 30)} GiB, Linux ${kernel}, Node ${process.version}, load ${load}`
}
