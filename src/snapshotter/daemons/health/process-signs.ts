/** What /proc tells of a process that does not answer: whether it hangs, or is kept from working by others. Source: proc(5), `/proc/[pid]/stat` and `schedstat`. */
import { readdirSync, readFileSync } from 'node:fs'

/** Fields of `stat` after the name, counted from the state, which is the third of all. */
const STAT = { state: 0, majorFaults: 12 - 3, userTicks: 14 - 3, systemTicks: 15 - 3 } as const
/** Of the kernel's clock that counts processor time; the same on all Linux machines. */
const MS_A_TICK = 10
const NS_A_MS = 1e6

/** A process at one moment; what it has used is counted from its start. */
export interface ProcessSigns {
  /** Processor time of all threads. */
  readonly usedMs: number
  /** By thread: how long it waited for a processor. Empty where the kernel does not count it. */
  readonly queuedMs: ReadonlyMap<string, number>
  /** Pages that were fetched from a disk. */
  readonly pagedIn: number
  /** What its threads do now: `R` run or wait for a processor, `S` sleep, `D` wait for a disk, `T` stopped, `t` held by a debugger. */
  readonly states: ReadonlySet<string>
}

/** Undefined when the process is gone. */
export function signsOf(pid: number): ProcessSigns | undefined {
  const whole = statOf(`/proc/${pid}`)
  if (whole === undefined) return undefined
  const states = new Set<string>()
  const queuedMs = new Map<string, number>()
  for (const thread of threadsOf(pid)) {
    const [state] = statOf(`/proc/${pid}/task/${thread}`) ?? []
    if (state === undefined) continue // it ended
    states.add(state)
    const [, queued] = textOf(`/proc/${pid}/task/${thread}/schedstat`).split(' ')
    if (queued !== undefined) queuedMs.set(thread, Number(queued) / NS_A_MS)
  }
  const ticks = Number(whole[STAT.userTicks]) + Number(whole[STAT.systemTicks])
  return { usedMs: ticks * MS_A_TICK, queuedMs, pagedIn: Number(whole[STAT.majorFaults]), states }
}

/**
 * Why a process could not answer between two moments, when it is not its own fault: another would not have answered either. Undefined = nothing kept it from
 * working. A process whose threads all sleep and that waited for no processor hangs; so does one that had processors all the time.
 */
export function excuseFor(before: ProcessSigns, after: ProcessSigns, elapsedMs: number): string | undefined {
  if (after.states.has('t')) return 'a debugger holds it'
  if (before.states.has('D') || after.states.has('D')) return 'it waits for a disk'
  if (after.pagedIn > before.pagedIn) return 'its memory is fetched from a disk'
  const longestMs = Math.max(0, ...[...after.queuedMs].map(([thread, ms]) => ms - (before.queuedMs.get(thread) ?? ms)))
  const isQueued = after.states.has('R') && after.usedMs - before.usedMs < elapsedMs / 2
  return longestMs >= elapsedMs / 4 || isQueued ? 'it waits for a processor' : undefined
}

function threadsOf(pid: number): string[] {
  try {
    return readdirSync(`/proc/${pid}/task`)
  } catch {
    return [] // it ended
  }
}

function statOf(directory: string): string[] | undefined {
  const text = textOf(`${directory}/stat`)
  // after the name, which may have blanks and brackets in it
  return text === '' ? undefined : text.slice(text.lastIndexOf(')') + 2).split(' ')
}

function textOf(path: string): string {
  try {
    return readFileSync(path, 'latin1')
  } catch {
    return '' // it ended, or the kernel does not tell
  }
}
