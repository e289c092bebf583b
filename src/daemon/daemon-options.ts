import type { ChunkDedup } from '../cache/index.ts'
import { type FuseWishes, UNCHANGING } from '../kernel/index.ts'
import type { FailoverPolicy } from './handover/drain.ts'
import type { InitialMount } from './image-requests.ts'
import type { Log } from './log.ts'
import type { Session, FuseSessionOptions } from './transports/session.ts'

/** What a daemon with a session is started with. */
export interface DaemonOptions {
  /** The host's directory; must be free: `prepareMountPoint`. */
  readonly at: string
  readonly id: string | undefined
  readonly supervisor: string | undefined
  readonly failover: FailoverPolicy
  readonly threads: number
  /** Makes the session; without it one of /dev/fuse. */
  readonly openSession?: (of: FuseSessionOptions) => Session
  readonly initial: InitialMount | undefined
  /** A directory of the host that is shown from the start, in the place of an image. */
  readonly share: { readonly path: string; readonly directory: string } | undefined
  /** The session may be written to, as far as what is mounted in it can be. */
  readonly writable: boolean
  /** The node's deduplication database; closed with the daemon. */
  readonly dedup?: ChunkDedup | undefined
  readonly log: Log
  /** Told of every change of what is mounted, or set by the API, before who asked for it gets an answer. */
  readonly onChange?: () => Promise<void> | undefined
  /** The session ended by itself. */
  readonly onEnd: (why: 'unmounted' | Error) => void
}

/** Largest WRITE. */
const WRITE_BYTES = 1 << 20

/** What the kernel is asked for. What goes with opens is left out of sessions that only have images, which never change. */
export function wishesOf({ initial, share, writable }: DaemonOptions): FuseWishes {
  return {
    exchangesOpens: writable || share !== undefined,
    followsChanges: writable || initial === undefined,
    maxWriteBytes: writable ? WRITE_BYTES : UNCHANGING.maxWriteBytes,
  }
}
