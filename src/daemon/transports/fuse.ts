import { closeSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { MessageChannel, type MessagePort, type Worker } from 'node:worker_threads'
import {
  answerFuse,
  detachNow,
  forgetEntry,
  forgetListing,
  fuseConnection,
  isFuseOver,
  FuseControl,
  type FuseNode,
  type FuseSessionFacts,
  type FuseWishes,
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
import { noMoreThreads } from '../later-threads.ts'
import type { FilesThread } from '../files/files-thread.ts'
import type { FuseWorkerData, FuseWorkerMessage, FuseWorkerNews } from '../fuse-worker.ts'
import type { Log } from '../log.ts'
import { FileSystemCounters } from '../metrics.ts'
import { takeServingThread } from '../serving-thread/index.ts'
import type { LateRead, ServedTree } from './fuse-handler.ts'
import { ListingHabits } from './listing-habits.ts'
import { ServingState } from './serving-state.ts'

export interface FuseSessionOptions {
  /** An existing directory. */
  readonly at: string
  /** Serving threads at most; one starts, others follow when it is busy. */
  readonly threads: number
  readonly readOnly: boolean
  readonly wishes: FuseWishes
  readonly log: Log
  readonly onLateRead: (read: LateRead) => void
  /** The session ended by itself: somebody unmounted it ('unmounted'), or a thread failed. */
  readonly onEnd: (why: 'unmounted' | Error) => void
}

/** What a daemon needs of a session, whatever carries the requests. */
export type Session = Pick<FuseSession, keyof FuseSession>

/** First column of the mount table, by which an old mount of ours is known again. */
export const MOUNT_SOURCE = 'rafs'
/** How far the kernel reads ahead, which is the size of a buffered miss. More makes page faults in large programs touch chunks that nobody needs; less costs sequential reads. */
const READ_AHEAD_KIB = 256
const START_DEADLINE_MS = 10_000
const STOP_DEADLINE_MS = 2_000
const NEWS_DEADLINE_MS = 5_000
/** A second thread is worth its memory when the first answers this many requests a second. */
const BUSY_REQUESTS = 4_000
const WATCH_MS = 250

interface Member {
  readonly worker: Worker
  readonly news: MessagePort
  isServing: boolean
  /** The thread runs, and is of our build. */
  isReady: boolean
}

/** A mounted FUSE file system, and the threads that serve it. `end` or `leave` ends it; one of them must be called. */
export class FuseSession {
  readonly at: string
  readonly counters: FileSystemCounters[] = []
  /** 0 = not mounted yet. */
  #fd = 0
  /** The session was adopted, and another daemon may still serve it. */
  #isWaiting = false
  /** Number of an adopted session; for kernels that do not tell it. */
  #adopted: number | undefined
  readonly #options: FuseSessionOptions
  readonly #control: FuseControl
  readonly #state: ServingState
  readonly #habits = new ListingHabits()
  readonly #members: Member[] = []
  readonly #init = Promise.withResolvers<void>()
  #facts: FuseSessionFacts | undefined
  #tree: ServedTree = { images: [], pseudo: [], files: [] }
  #files: FilesThread | undefined
  #watch: NodeJS.Timeout | undefined
  #seenRequests = 0
  #ending = false
  #closed = false
  /** The kernel ended it: nothing of it is mounted anywhere. */
  #isOver = false

  /** Starts the first thread, which waits for the mount: that takes as long as opening an image, which the caller does meanwhile. */
  constructor(options: FuseSessionOptions) {
    this.at = options.at
    this.#options = options
    this.#control = new FuseControl(options.threads)
    this.#state = new ServingState(options.threads)
    this.#init.promise.catch(() => undefined) // whoever waits gets it; nobody may wait yet
    this.#start()
  }

  /** Mounts, with this tree in it; resolves when the kernel and the first thread have agreed: from then on the mount answers. Throws DaemonError. */
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
    this.#state.setDevice(this.#fd)
    this.#files?.setDevice(this.#fd)
    await this.#agreed()
    await this.#tellOwnDevice()
    await this.#readAhead()
    this.#watchLoad()
  }

  /** Takes another daemon's session, in the place of {@link mount}. Nobody is answered before {@link serve}. */
  adopt(device: number, connection: bigint): void {
    this.#fd = device
    this.#isWaiting = true
    this.#adopted = Number(connection)
  }

  /** Lets the threads answer the requests of an adopted session, with this tree in it. `drain` hands out again what its last daemon had in hand: before anybody reads, or what we have in hand came twice. */
  async serve(tree: ServedTree, drain: (device: number) => Promise<void>): Promise<void> {
    await this.publish(tree)
    await drain(this.#fd)
    waitInReads(this.#fd, true)
    this.#isWaiting = false
    this.#files?.setDevice(this.#fd)
    this.#state.setDevice(this.#fd)
    this.#init.resolve()
    this.#watchLoad()
  }

  /** Leaves the session to another daemon: no thread serves any more, and what they had in hand goes to it. */
  async leave(drain: (device: number) => Promise<void>): Promise<void> {
    await this.stopServing()
    if (!this.#isOpen) return
    await drain(this.#fd)
    waitInReads(this.#fd, false) // as the original's threads want it, who would never leave a read
  }

  /** The device, which stays ours; undefined while nothing is mounted. */
  get device(): number | undefined {
    return this.#isOpen ? this.#fd : undefined
  }
  /** What the kernel and we agreed on, if it was we who did. */
  get facts(): FuseSessionFacts | undefined {
    return this.#facts
  }

  async #agreed(): Promise<void> {
    const late = sleep(START_DEADLINE_MS, undefined, { ref: false }).then(() => {
      throw new DaemonError('IO', `the kernel did not start the FUSE session at ${this.at} in ${START_DEADLINE_MS} ms`)
    })
    await Promise.race([this.#init.promise, late])
  }

  /** Before the first tree that has slots of it: connects all serving threads, now and later, with the files thread. */
  async useFiles(files: FilesThread): Promise<void> {
    this.#files = files
    if (this.#fd !== 0 && !this.#isWaiting) files.setDevice(this.#fd)
    for (const { news } of this.#members) {
      const port = this.#portToFiles()
      if (port !== undefined) news.postMessage({ files: port } satisfies FuseWorkerNews, [port])
    }
    await this.#tellOwnDevice()
  }

  #portToFiles(): MessagePort | undefined {
    if (this.#files === undefined) return undefined
    const { port1, port2 } = new MessageChannel()
    this.#files.connect(port1)
    return port2
  }

  async #tellOwnDevice(): Promise<void> {
    if (this.#files === undefined || this.#fd === 0) return
    const own = (await readMountInfo()).findLast(({ at, type }) => at === this.at && type.startsWith('fuse'))
    if (own !== undefined) this.#files.setOwnDevice(own.device)
  }

  /** Makes all threads serve this tree; resolves when no thread uses an older one any more. */
  async publish(tree: ServedTree): Promise<void> {
    this.#tree = tree
    for (const { news } of this.#members) news.postMessage({ tree } satisfies FuseWorkerNews)
    const generation = this.#state.advance()
    // one that has no requests would keep what is unmounted now
    if (this.#fd !== 0) this.#control.wake()
    const deadline = performance.now() + NEWS_DEADLINE_MS
    while (this.#members.some((member, worker) => member.isServing && this.#state.isBusyBefore(worker, generation))) {
      if (performance.now() > deadline)
        throw new DaemonError('IO', `a FUSE thread did not take over new mounts in ${NEWS_DEADLINE_MS} ms`)
      await sleep(1)
    }
  }

  /** Answers a late read: the data stands at `message[16..16 + bytes)`. */
  answer(read: LateRead, message: Buffer, bytes: number, errno: number): void {
    if (this.#isOpen) answerFuse(this.#fd, read.low, read.high, message, bytes, errno)
  }

  /** Makes the kernel forget names, with everything below them, and the listings of their directories. */
  async forget(names: ReadonlyArray<{ readonly parent: FuseNode; readonly name: Uint8Array }>): Promise<void> {
    for (const { parent, name } of names) {
      if (!this.#isOpen) return
      await forgetEntry(this.#fd, parent, name)
      await forgetListing(this.#fd, parent)
    }
  }

  /** Threads leave; the mount stays, and requests wait in the kernel. */
  async stopServing(): Promise<void> {
    this.#ending = true
    clearInterval(this.#watch)
    await this.#control.stop(STOP_DEADLINE_MS)
  }

  /** Unmounts. A mount in use is detached: its users see errors from when this process is gone. */
  async unmount(): Promise<void> {
    this.#ending = true
    clearInterval(this.#watch)
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
   * Is what stands at the mount point this session? It may have been detached, with somebody still in it, and another daemon have mounted there since.
   * Where the kernel does not tell, it is taken for this one.
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

  /** Closes the device, which ends the session for its last users too. Only when no thread serves any more. */
  close(): void {
    if (this.#isOpen) closeSync(this.#fd)
    this.#closed = true
    for (const { worker, news } of this.#members) {
      news.close()
      worker.unref()
    }
  }

  /** For the last moments of a process that fails: no mount of a dead daemon stays, and none of another one goes. */
  detachNow(): void {
    if (!this.#isOver && this.isAtPoint) detachNow(this.at)
  }

  get #isOpen(): boolean {
    return this.#fd !== 0 && !this.#closed
  }

  /** Threads that serve now. */
  get threads(): number {
    return this.#members.filter((member) => member.isServing).length
  }

  #start(): void {
    const worker = this.#members.length
    const counters = new FileSystemCounters()
    const { port1, port2 } = new MessageChannel()
    const data: FuseWorkerData = {
      worker,
      control: this.#control.words,
      state: this.#state.words,
      counters: counters.numbers,
      habits: this.#habits.words,
      tree: this.#tree,
      generation: this.#state.generation,
      news: port2,
      wishes: this.#options.wishes,
      files: this.#portToFiles(),
    }
    const thread = takeServingThread()
    thread.postMessage(data, data.files === undefined ? [port2] : [port2, data.files])
    port1.unref()
    const member: Member = { worker: thread, news: port1, isServing: true, isReady: false }
    this.#members.push(member)
    this.counters.push(counters)
    thread.on('message', (message: FuseWorkerMessage) => this.#told(member, message))
    thread.on('error', (error) => this.#failed(member, error))
    thread.on('exit', (code) => {
      if (member.isServing) this.#failed(member, new Error(`a FUSE thread ended with code ${code}`))
    })
  }

  #told(member: Member, message: FuseWorkerMessage): void {
    switch (message.kind) {
      case 'ready':
        member.isReady = true
        return
      case 'late':
        this.#options.onLateRead(message.read)
        return
      case 'init':
        this.#options.log.debug(`FUSE session 7.${message.facts.kernelMinor} at ${this.at}`)
        this.#facts = message.facts
        this.#init.resolve()
        return
      case 'error':
        this.#options.log.warn(`a request to ${this.at} failed: ${message.text}`)
        return
      case 'end':
        for (const member of this.#members) member.isServing = false
        this.#isOver ||= message.why === 'unmounted'
        if (this.#isOver && !this.#ending) this.#ended('unmounted')
        return
      default:
        message satisfies never
    }
  }

  #failed(member: Member, error: unknown): void {
    member.isServing = false
    const failure = error instanceof Error ? error : new Error(String(error))
    if (!this.#ending && !member.isReady && this.#members.some((other) => other.isServing && other.isReady)) {
      this.#goOnWithout(member, failure)
      return
    }
    this.#init.reject(failure)
    if (!this.#ending) this.#ended(failure)
  }

  /** A thread that came later, and never served: the others serve what it would have. */
  #goOnWithout({ news }: Member, why: Error): void {
    news.close()
    clearInterval(this.#watch)
    this.#options.log.warn(noMoreThreads(`serve ${this.at}`, why))
  }

  #ended(why: 'unmounted' | Error): void {
    this.#ending = true
    clearInterval(this.#watch)
    this.#options.onEnd(why)
  }

  async #readAhead(): Promise<void> {
    try {
      await setReadAhead(this.at, READ_AHEAD_KIB)
    } catch (error) {
      // /sys may be read-only, as in containers: reads are smaller then, and right all the same
      this.#options.log.debug(`cannot raise the read-ahead of ${this.at}: ${messageOf(error)}`)
    }
  }

  #watchLoad(): void {
    if (this.#options.threads > 1) this.#watch = setInterval(() => this.#startAnother(), WATCH_MS).unref()
  }

  #startAnother(): void {
    const requests = this.#members.reduce((sum, _member, worker) => sum + this.#state.requests(worker), 0)
    const fresh = (requests - this.#seenRequests) * (1000 / WATCH_MS)
    this.#seenRequests = requests
    if (fresh < BUSY_REQUESTS * this.#members.length || this.#members.length >= this.#options.threads) return
    this.#options.log.debug(
      `${Math.round(fresh)} requests a second at ${this.at}: FUSE thread ${this.#members.length + 1} starts`,
    )
    this.#start()
  }
}
