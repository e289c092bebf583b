import { closeSync } from 'node:fs'
import {
  answerFuse,
  detachNow,
  forgetEntry,
  forgetListing,
  fuseConnection,
  isFuseOver,
  type FuseSessionFacts,
  KernelError,
  MAX_READ_BYTES,
  mountFuse,
  readMountInfo,
  readMountInfoNow,
  setReadAhead,
  unmount,
  waitInReads,
} from '../../kernel/index.ts'
import { isDead } from '../dead-mount.ts'
import { DaemonError, messageOf } from '../errors.ts'
import type { FilesThread } from '../files/files-thread.ts'
import type { KernelName } from '../kernel-names.ts'
import type { FileSystemCounters } from '../metrics.ts'
import type { LateRead, ServedTree } from './fuse-handler.ts'
import { ServingThreads } from './serving-threads.ts'
import type { Session, FuseSessionOptions } from './session.ts'

/** First column of the mount table, by which an old mount of ours is known again. */
export const MOUNT_SOURCE = 'rafs'
/** How far the kernel reads ahead, which is the size of a buffered miss. More makes page faults in large programs touch chunks that nobody needs; less costs sequential reads. */
const READ_AHEAD_KIB = 256

/** A FUSE file system that the kernel mounts: its device and its place. The requests are answered by {@link ServingThreads}. */
export class FuseSession implements Session {
  readonly at: string
  readonly #options: FuseSessionOptions
  readonly #threads: ServingThreads
  /** 0 = not mounted yet. */
  #fd = 0
  /** The session was adopted, and another daemon may still serve it. */
  #isWaiting = false
  /** Number of an adopted session; for kernels that do not tell it. */
  #adopted: number | undefined
  #files: FilesThread | undefined
  #closed = false

  /** Starts the first thread, which waits for the mount: that takes as long as opening an image, which the caller does meanwhile. */
  constructor(options: FuseSessionOptions) {
    this.at = options.at
    this.#options = options
    this.#threads = new ServingThreads(options)
  }

  get counters(): readonly FileSystemCounters[] {
    return this.#threads.counters
  }

  get threads(): number {
    return this.#threads.serving
  }

  get facts(): FuseSessionFacts | undefined {
    return this.#threads.facts
  }

  get device(): number | undefined {
    return this.#isOpen ? this.#fd : undefined
  }

  async mount(tree: ServedTree): Promise<void> {
    await this.publish(tree)
    try {
      this.#fd = mountFuse(this.at, {
        source: MOUNT_SOURCE,
        readOnly: this.#options.readOnly,
        maxReadBytes: MAX_READ_BYTES,
      })
    } catch (error) {
      throw new DaemonError('IO', messageOf(error), { cause: error })
    }
    this.#threads.serve(this.#fd)
    this.#files?.setDevice(this.#fd)
    await this.#threads.begun()
    await this.#tellOwnDevice()
    await this.#readAhead()
    this.#threads.growWithLoad()
  }

  adopt(device: number, connection: bigint): void {
    this.#fd = device
    this.#isWaiting = true
    this.#adopted = Number(connection)
  }

  async serve(tree: ServedTree, drain: (device: number) => Promise<void>): Promise<void> {
    await this.publish(tree)
    await drain(this.#fd)
    waitInReads(this.#fd, true)
    this.#isWaiting = false
    this.#files?.setDevice(this.#fd)
    this.#threads.serve(this.#fd)
    this.#threads.growWithLoad()
  }

  async leave(drain: (device: number) => Promise<void>): Promise<void> {
    await this.stopServing()
    if (!this.#isOpen) return
    await drain(this.#fd)
    waitInReads(this.#fd, false) // as the original's threads want it, who would never leave a read
  }

  async useFiles(files: FilesThread): Promise<void> {
    this.#files = files
    if (this.#fd !== 0 && !this.#isWaiting) files.setDevice(this.#fd)
    this.#threads.useFiles(files)
    await this.#tellOwnDevice()
  }

  async #tellOwnDevice(): Promise<void> {
    if (this.#files === undefined || this.#fd === 0) return
    const own = (await readMountInfo()).findLast(({ at, type }) => at === this.at && type.startsWith('fuse'))
    if (own !== undefined) this.#files.setOwnDevice(own.device)
  }

  async publish(tree: ServedTree): Promise<void> {
    await this.#threads.publish(tree)
  }

  answer(read: LateRead, message: Buffer, bytes: number, errno: number): void {
    if (this.#isOpen) answerFuse(this.#fd, read.low, read.high, message, bytes, errno)
  }

  async forget(names: readonly KernelName[]): Promise<void> {
    for (const { parent, name } of names) {
      if (!this.#isOpen) return
      await forgetEntry(this.#fd, parent, name)
      await forgetListing(this.#fd, parent)
    }
  }

  async stopServing(): Promise<void> {
    await this.#threads.stop()
  }

  async unmount(): Promise<void> {
    this.#threads.expectEnd()
    if (!this.#hasPoint() || (isFuseOver(this.#fd) && !(await isDead(this.at)))) return
    try {
      await unmount(this.at)
    } catch (error) {
      if (!(error instanceof KernelError && error.code === 'EBUSY')) throw error
      this.#options.log.warn(`${this.at} is in use; it is detached, and its users will see errors`)
      await unmount(this.at, true)
    }
  }

  /**
   * It may have been detached, with somebody still in it, and another daemon have mounted there since. Where the kernel does not tell, it is taken for this one.
   */
  get isAtPoint(): boolean {
    return this.#hasPoint() && !isFuseOver(this.#fd)
  }

  /** By its number, which another session may have when this one is over. */
  #hasPoint(): boolean {
    if (!this.#isOpen) return false
    const own = fuseConnection(this.#fd) ?? this.#adopted
    if (own === undefined) return true
    const there = readMountInfoNow().findLast(({ at }) => at === this.at)
    return there?.device === `${own >> 20}:${own & 0xf_ffff}`
  }

  close(): void {
    if (this.#isOpen) closeSync(this.#fd)
    this.#closed = true
    this.#threads.close()
  }

  detachNow(): void {
    if (!this.#threads.isOver && this.isAtPoint) detachNow(this.at)
  }

  get #isOpen(): boolean {
    return this.#fd !== 0 && !this.#closed
  }

  async #readAhead(): Promise<void> {
    try {
      await setReadAhead(this.at, READ_AHEAD_KIB)
    } catch (error) {
      // /sys may be read-only, as in containers: reads are smaller then, and right all the same
      this.#options.log.debug(`cannot raise the read-ahead of ${this.at}: ${messageOf(error)}`)
    }
  }
}
