import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'

/** How often memory is looked at; the kernel keeps the highest mark itself. */
const POLL_MS = 20
/** Of the times in /proc: the same on all Linux machines. */
const TICKS_PER_SECOND = 100

/** What one run of a tool cost. */
export interface ToolRun {
  readonly seconds: number
  /** User and system time of all its threads, to a hundredth of a second. */
  readonly cpuSeconds: number
  /** The most memory that it had. */
  readonly peakBytes: number
}

/** Runs a tool as a process of its own, and nothing beside it. Throws when it fails. */
export async function runTool(command: string, args: readonly string[]): Promise<ToolRun> {
  const cpuBefore = cpuOfChildren()
  const from = performance.now()
  const child = spawn(command, args, { stdio: ['ignore', 'ignore', 'inherit'] })
  let peakBytes = 0
  const poll = setInterval(() => {
    peakBytes = Math.max(peakBytes, highWaterMark(child.pid ?? 0))
  }, POLL_MS)
  try {
    const [code] = (await once(child, 'exit')) as [number | null]
    if (code !== 0) throw new Error(`${command} ${args.join(' ')} ended with ${code}`)
  } finally {
    clearInterval(poll)
  }
  return { seconds: (performance.now() - from) / 1000, cpuSeconds: cpuOfChildren() - cpuBefore, peakBytes }
}

/** Time of all children that have ended. Source: proc(5), `cutime` and `cstime` of /proc/self/stat. */
function cpuOfChildren(): number {
  // The name, in parentheses, may hold anything; what follows it starts with the third field.
  const fields = readFileSync('/proc/self/stat', 'utf8').split(') ').at(-1)?.split(' ') ?? []
  return (Number(fields[13]) + Number(fields[14])) / TICKS_PER_SECOND
}

function highWaterMark(pid: number): number {
  try {
    return Number(/^VmHWM:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0) * 1024
  } catch (error) {
    // It has just ended.
    if ((error as NodeJS.ErrnoException).code === 'ENOENT' || (error as NodeJS.ErrnoException).code === 'ESRCH')
      return 0
    throw error
  }
}
