import { statfs } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'

const STAT_DEADLINE_MS = 2_000

/**
 * Is what is mounted there of a daemon that is gone? A mount whose server hangs does not answer either, but is alive. The question is one that the kernel never answers by itself: it remembers the attributes of a dead mount's root, so
 * `stat` would say that all is well.
 */
export async function isDead(at: string): Promise<boolean> {
  const timer = new AbortController()
  try {
    const asked = statfs(at).then(
      () => false,
      (error: NodeJS.ErrnoException) => error.code === 'ENOTCONN' || error.code === 'ECONNABORTED',
    )
    return await Promise.race([asked, sleep(STAT_DEADLINE_MS, false, { signal: timer.signal })])
  } finally {
    timer.abort()
  }
}
