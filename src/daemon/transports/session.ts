import type { FuseSessionFacts, FuseWishes } from '../../kernel/index.ts'
import type { FilesThread } from '../files/files-thread.ts'
import type { KernelName } from '../kernel-names.ts'
import type { Log } from '../log.ts'
import type { FileSystemCounters } from '../metrics.ts'
import type { LateRead, ServedTree } from './fuse-handler.ts'

export interface FuseSessionOptions {
  /** Where it is to be: an existing directory, or the path of a socket. */
  readonly at: string
  /** Serving threads at most; one starts, others follow when it is busy. */
  readonly threads: number
  readonly readOnly: boolean
  readonly wishes: FuseWishes
  readonly log: Log
  readonly onLateRead: (read: LateRead) => void
  /** The session ended by itself: somebody unmounted it ('unmounted'), or a thread failed. Called once, and not when the end was asked for. */
  readonly onEnd: (why: 'unmounted' | Error) => void
}

/**
 * A FUSE session as a daemon knows it, whatever carries the requests: the kernel, or a virtual machine. It begins with {@link mount}, or, where it was another daemon's, with
 * {@link adopt} and {@link serve}. It ends with {@link unmount}, or is left to another daemon with {@link leave}; then {@link stopServing} and {@link close}, in this
 * order, free all that it has.
 */
export interface Session {
  readonly at: string
  /** A set for each thread that served. */
  readonly counters: readonly FileSystemCounters[]
  /** What the kernel and we agreed on, if it was we who did. */
  readonly facts: FuseSessionFacts | undefined
  /** Its device, which stays the session's; undefined while nothing is mounted, and where there is none. */
  readonly device: number | undefined
  /** Threads that serve now. */
  readonly threads: number
  /** Is this session what stands at its place? Another daemon may have mounted there since. */
  readonly isAtPoint: boolean

  /** Mounts, with this tree in it; resolves when the mount answers. Throws DaemonError. */
  mount(tree: ServedTree): Promise<void>
  /** Takes another daemon's session, in the place of {@link mount}. Nobody is answered before {@link serve}. */
  adopt(device: number, connection: bigint): void
  /**
   * Answers the requests of an adopted session, with this tree in it. `drain` hands out again what its last daemon had in hand: before anybody reads, or what we have in
   * hand came twice.
   */
  serve(tree: ServedTree, drain: (device: number) => Promise<void>): Promise<void>
  /** Leaves the session to another daemon: no thread serves any more, and what they had in hand goes to it by `drain`. */
  leave(drain: (device: number) => Promise<void>): Promise<void>
  /** Before the first tree that has slots of it: connects all serving threads, now and later, with the files thread. */
  useFiles(files: FilesThread): Promise<void>
  /** Makes all threads serve this tree; resolves when no thread uses an older one any more. */
  publish(tree: ServedTree): Promise<void>
  /** Answers a late read, with an errno or with data, which stands at `message[16..16 + bytes)`. */
  answer(read: LateRead, message: Buffer, bytes: number, errno: number): void
  /** Makes the kernel forget names, with everything below them, and the listings of their directories. */
  forget(names: readonly KernelName[]): Promise<void>
  /** Threads leave; the mount stays, and requests wait in the kernel. */
  stopServing(): Promise<void>
  /** Unmounts. A mount in use is detached: its users see errors from when this process is gone. */
  unmount(): Promise<void>
  /** Closes the device, which ends the session for its last users too. Only when no thread serves any more. */
  close(): void
  /** For the last moments of a process that fails: no mount of a dead daemon stays, and none of another one goes. */
  detachNow(): void
}
