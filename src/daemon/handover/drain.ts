import { writeFile } from 'node:fs/promises'
import { resendRequests } from '../../kernel/index.ts'
import { messageOf } from '../errors.ts'
import type { Log } from '../log.ts'

export const FAILOVER_POLICIES = ['none', 'resend', 'flush'] as const
/** What becomes of requests that the daemon before had read and not answered: handed out again, failed (kernels of Anolis only), or left, so that their askers wait until they are interrupted. */
export type FailoverPolicy = (typeof FAILOVER_POLICIES)[number]

/** Does that. What the kernel cannot do is logged, not thrown: all other requests are served. */
export async function drainRequests(
  device: number,
  connection: bigint,
  policy: FailoverPolicy,
  log: Log,
): Promise<void> {
  try {
    switch (policy) {
      case 'none':
        return
      case 'flush':
        return await tellConnection(connection, 'flush')
      case 'resend':
        return await resendRequests(device).catch(() => tellConnection(connection, 'resend')) // before Linux 6.9
      default:
        return policy satisfies never
    }
  } catch (error) {
    log.warn(
      `the kernel does not ${policy} the requests of the daemon before: those who wait for them wait until they are interrupted: ${messageOf(error)}`,
    )
  }
}

/** Kernels of Anolis have these files. */
async function tellConnection(connection: bigint, event: 'flush' | 'resend'): Promise<void> {
  const write = (root: string): Promise<void> =>
    writeFile(`${root}/fs/fuse/connections/${connection}/${event}`, '1', { flag: 'r+' })
  await write('/proc/sys').catch(() => write('/sys'))
}
