import { releaseProgramPages } from '../kernel/index.ts'

/** A thread that works for more than this share of its time is in the middle of a start. */
const BUSY = 0.2
const MOST_TURNS = 20

/**
 * Lets go of the pages that only the start needed, `ms` milliseconds from now, or later while this thread is busy: looking for them takes 15 ms, which whoever waits for a container does not
 * have. Who is busy for ever is asked 20 times. Keeps no process.
 */
export function releaseWhenIdle(ms: number, release: () => void = releaseProgramPages, turns = MOST_TURNS): void {
  const before = performance.eventLoopUtilization()
  const look = (): void => {
    if (turns > 1 && performance.eventLoopUtilization(before).utilization > BUSY)
      releaseWhenIdle(ms, release, turns - 1)
    else release()
  }
  setTimeout(look, ms).unref()
}
