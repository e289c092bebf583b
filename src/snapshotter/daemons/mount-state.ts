import { statfs } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'

/**
 * What becomes of questions to a FUSE mount: `silent` is one whose server lives and does not answer in time. Asked by `statfs`: the kernel answers `stat` of a dead mount from memory. The question to a
 * silent mount goes on, in a thread of the pool.
 */
export async function mountState(at: string, deadlineMs: number): Promise<'served' | 'dead' | 'silent'> {
  const timer = new AbortController()
  try {
    const asked = statfs(at).then(
      () => 'served' as const,
      (error: NodeJS.ErrnoException) =>
        error.code === 'ENOTCONN' || error.code === 'ECONNABORTED' ? ('dead' as const) : ('served' as const),
    )
    return await Promise.race([asked, sleep(deadlineMs, 'silent' as const, { signal: timer.signal })])
  } finally {
    timer.abort()
  }
}
