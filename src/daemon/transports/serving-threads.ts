import { setTimeout as sleep } from 'node:timers/promises'
import { MessageChannel, type MessagePort, type Worker } from 'node:worker_threads'
import { FuseControl, type FuseSessionFacts } from '../../kernel/index.ts'
import { DaemonError } from '../errors.ts'
import type { FilesThread } from '../files/files-thread.ts'
import type { FuseWorkerData, FuseWorkerMessage, FuseWorkerNews } from '../fuse-worker.ts'
import { noMoreThreads } from '../later-threads.ts'
import { FileSystemCounters } from '../metrics.ts'
import { takeServingThread } from '../serving-thread/index.ts'
import type { ServedTree } from './fuse-handler.ts'
import { ListingHabits } from './listing-habits.ts'
import { ServingState } from './serving-state.ts'
import type { FuseSessionOptions } from './session.ts'

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

/**
 * The threads that answer the requests of one FUSE device. The first starts with this, and waits for the device; others follow when those that serve are busy. A thread
 * that cannot start later is done without; one that fails while it serves ends the session. {@link stop} ends them, {@link close} frees what they leave.
 */
export class ServingThreads {
  /** A set for each thread. */
  readonly counters: FileSystemCounters[] = []
  readonly #options: Omit<FuseSessionOptions, 'readOnly'>
  readonly #control: FuseControl
  readonly #state: ServingState
  readonly #habits = new ListingHabits()
  readonly #members: Member[] = []
  readonly #begun = Promise.withResolvers<void>()
  #facts: FuseSessionFacts | undefined
  #tree: ServedTree = { images: [], pseudo: [], files: [] }
  #files: FilesThread | undefined
  #hasDevice = false
  #watch: NodeJS.Timeout | undefined
  #seenRequests = 0
  /** The end was asked for, or was told. */
  #isEnding = false
  #isOver = false

  constructor(options: Omit<FuseSessionOptions, 'readOnly'>) {
    this.#options = options
    this.#control = new FuseControl(options.threads)
    this.#state = new ServingState(options.threads)
    this.#begun.promise.catch(() => undefined) // whoever waits gets it; nobody may wait yet
    this.#start()
  }

  /** Threads that serve now. */
  get serving(): number {
    return this.#members.filter((member) => member.isServing).length
  }

  /** What the kernel and the first thread agreed on, if they began the session. */
  get facts(): FuseSessionFacts | undefined {
    return this.#facts
  }

  /** The kernel has ended the session: nothing of it is mounted anywhere. */
  get isOver(): boolean {
    return this.#isOver
  }

  /** Lets the threads serve this device. */
  serve(fd: number): void {
    this.#hasDevice = true
    this.#state.setDevice(fd)
  }

  /** Resolves when the kernel has begun the session with the first thread: from then on it answers. Throws DaemonError 'IO', and what made a thread fail. */
  async begun(): Promise<void> {
    const late = sleep(START_DEADLINE_MS, undefined, { ref: false }).then(() => {
      const { at } = this.#options
      throw new DaemonError('IO', `the kernel did not start the FUSE session at ${at} in ${START_DEADLINE_MS} ms`)
    })
    await Promise.race([this.#begun.promise, late])
  }

  /** Starts other threads, up to the wanted number, when those that serve are busy. */
  growWithLoad(): void {
    if (this.#options.threads > 1) this.#watch = setInterval(() => this.#startWhenBusy(), WATCH_MS).unref()
  }

  /** Connects all threads, now and later, with the files thread. */
  useFiles(files: FilesThread): void {
    this.#files = files
    for (const { news } of this.#members) {
      const port = this.#portToFiles()
      if (port !== undefined) news.postMessage({ files: port } satisfies FuseWorkerNews, [port])
    }
  }

  /** Makes all threads serve this tree; resolves when no thread uses an older one any more. Throws DaemonError 'IO'. */
  async publish(tree: ServedTree): Promise<void> {
    this.#tree = tree
    for (const { news } of this.#members) news.postMessage({ tree } satisfies FuseWorkerNews)
    const generation = this.#state.advance()
    // one that has no requests would keep what is unmounted now
    if (this.#hasDevice) this.#control.wake()
    const deadline = performance.now() + NEWS_DEADLINE_MS
    while (this.#members.some((member, worker) => member.isServing && this.#state.isBusyBefore(worker, generation))) {
      if (performance.now() > deadline)
        throw new DaemonError('IO', `a FUSE thread did not take over new mounts in ${NEWS_DEADLINE_MS} ms`)
      await sleep(1)
    }
  }

  /** From now on an end is what was asked for, and `onEnd` is not told; no thread starts any more. */
  expectEnd(): void {
    this.#isEnding = true
    clearInterval(this.#watch)
  }

  /** Resolves when all have left, each after the request in hand. Throws KernelError 'ETIMEDOUT'. */
  async stop(): Promise<void> {
    this.expectEnd()
    await this.#control.stop(STOP_DEADLINE_MS)
  }

  /** When none serves any more: nothing of them keeps the process. */
  close(): void {
    for (const { worker, news } of this.#members) {
      news.close()
      worker.unref()
    }
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

  #portToFiles(): MessagePort | undefined {
    if (this.#files === undefined) return undefined
    const { port1, port2 } = new MessageChannel()
    this.#files.connect(port1)
    return port2
  }

  #told(member: Member, message: FuseWorkerMessage): void {
    const { at, log, onLateRead } = this.#options
    switch (message.kind) {
      case 'ready':
        member.isReady = true
        return
      case 'late':
        onLateRead(message.read)
        return
      case 'init':
        log.debug(`FUSE session 7.${message.facts.kernelMinor} at ${at}`)
        this.#facts = message.facts
        this.#begun.resolve()
        return
      case 'error':
        log.warn(`a request to ${at} failed: ${message.text}`)
        return
      case 'end':
        for (const each of this.#members) each.isServing = false
        this.#isOver ||= message.why === 'unmounted'
        if (this.#isOver) this.#ended('unmounted')
        return
      default:
        message satisfies never
    }
  }

  #failed(member: Member, error: unknown): void {
    member.isServing = false
    const failure = error instanceof Error ? error : new Error(String(error))
    if (!this.#isEnding && !member.isReady && this.#members.some((other) => other.isServing && other.isReady)) {
      this.#goOnWithout(member, failure)
      return
    }
    this.#begun.reject(failure)
    this.#ended(failure)
  }

  /** A thread that came later, and never served: the others serve what it would have. */
  #goOnWithout({ news }: Member, why: Error): void {
    const { at, log } = this.#options
    news.close()
    clearInterval(this.#watch)
    log.warn(noMoreThreads(`serve ${at}`, why))
  }

  #ended(why: 'unmounted' | Error): void {
    if (this.#isEnding) return
    this.expectEnd()
    this.#options.onEnd(why)
  }

  #startWhenBusy(): void {
    const { at, log, threads } = this.#options
    const requests = this.#members.reduce((sum, _member, worker) => sum + this.#state.requests(worker), 0)
    const fresh = (requests - this.#seenRequests) * (1000 / WATCH_MS)
    this.#seenRequests = requests
    if (fresh < BUSY_REQUESTS * this.#members.length || this.#members.length >= threads) return
    log.debug(`${Math.round(fresh)} requests a second at ${at}: FUSE thread ${this.#members.length + 1} starts`)
    this.#start()
  }
}
