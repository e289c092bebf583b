/** For tests: a daemon that is held in the middle of a change, to be killed there. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { whyNoFuse } from '../../kernel/index.ts'

/** Why that cannot be done here, or false. */
export function whyNoHolding(): string | false {
  const hasTracer = spawnSync('strace', ['-V']).error === undefined
  return (
    whyNoFuse() ??
    (process.getuid?.() !== 0 ? 'needs root to find files by their handles' : hasTracer ? false : 'needs strace')
  )
}

/** Holds a process before the write to its journal that follows so many others. */
export async function hold(pid: number, journal: string, notes: number): Promise<ChildProcess> {
  const how = [`--inject=write:delay_enter=60s:when=${notes + 1}`, `--trace-path=${journal}`]
  const tracer = spawn('strace', ['-f', '-p', String(pid), '-e', 'trace=write', ...how], {
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  await once(tracer.stderr, 'data') // it has begun
  return tracer
}
