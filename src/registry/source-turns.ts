import type { Clock } from './retry.ts'

/** Requests that go past a distributing proxy: so seldom, in the whole process, that a crowd of machines does not fall upon the server. */
const PAUSE_MS = 1_000

let nextAt = 0
let queued = 0

/** Waits for the turn of a request that goes past the proxy. Rejects when the signal is aborted. */
export async function sourceTurn(clock: Clock, signal: AbortSignal): Promise<void> {
  const now = clock.now()
  // A clock that was set back must not mean a wait until then: nobody waits longer than for those before.
  const at = Math.max(now, Math.min(nextAt, now + PAUSE_MS * (queued + 1)))
  nextAt = at + PAUSE_MS
  queued += 1
  try {
    if (at > now) await clock.sleep(at - now, signal)
  } finally {
    queued -= 1
  }
}
