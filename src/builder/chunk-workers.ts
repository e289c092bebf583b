import { availableParallelism } from 'node:os'
import { Worker } from 'node:worker_threads'
import { endThread } from '../kernel/index.ts'
import type { ChunkBatch } from './chunk-batch.ts'
import { type ChunkAlgorithms, type ChunkWork, createChunkWork, type Step } from './chunk-work.ts'
import type { ChunkMessage } from './chunk-worker.ts'
import { BuilderError } from './errors.ts'

/** Tasks that a worker holds at a time: one runs, one is there when it ends. */
const TASKS_PER_WORKER = 2
const MAX_WORKERS = 8
/** Layers with less data than this are done on the main thread: starting threads costs more than it brings. */
export const INLINE_BYTES = 3 * 1024 * 1024

/** Builds that use the threads of this process. */
let users = 0
let shared: ChunkWorkers | undefined

/**
 * Runs a build with the threads that all builds of this process share; they end with the last build that needs them. A build that needs them no more before its end calls `release`: what
 * comes then has their memory.
 */
export async function withChunkWorkers<T>(
  build: (workers: ChunkWorkers, release: () => Promise<void>) => Promise<T>,
): Promise<T> {
  users += 1
  shared ??= new ChunkWorkers()
  const workers = shared
  let isUser = true
  const release = async (): Promise<void> => {
    if (!isUser) return
    isUser = false
    users -= 1
    if (users > 0) return
    shared = undefined
    await workers.close()
  }
  try {
    return await build(workers, release)
  } finally {
    await release()
  }
}

interface Task {
  readonly id: number
  readonly count: number
  readonly step: Step
  readonly resolve: () => void
  readonly reject: (error: Error) => void
}

interface Member {
  readonly worker: Worker
  readonly tasks: Task[]
}

interface OpenBatch {
  readonly message: ChunkMessage
  readonly batch: ChunkBatch
  readonly algorithms: ChunkAlgorithms
  /** The work on this thread, once it was needed. */
  work?: ChunkWork
}

/**
 * The threads that digest and compress, shared by any number of builds at once. They start with the first task, or with the word that tasks will come, and end with `close`. There is one less than processors: what they
 * cannot take, the calling thread does when it has nothing else to do.
 * Digests go first: what waits for them is the decision, in order, of what to store.
 */
export class ChunkWorkers {
  /** Threads besides the calling one. */
  readonly size: number
  readonly #members: Member[] = []
  readonly #digests: Task[] = []
  readonly #compressions: Task[] = []
  readonly #open = new Map<number, OpenBatch>()
  #nextId = 1
  #closed = false
  #helping = false

  constructor(size = Math.min(availableParallelism() - 1, MAX_WORKERS)) {
    this.size = size
  }

  /** Tells all threads of a batch; gives its number. */
  open(batch: ChunkBatch, algorithms: ChunkAlgorithms): number {
    const id = this.#nextId++
    const message: ChunkMessage = { kind: 'open', id, buffer: batch.buffer, algorithms }
    this.#open.set(id, { message, batch, algorithms })
    for (const { worker } of this.#members) worker.postMessage(message)
    return id
  }

  /** The batch is not used any more; no task of it may be under way. */
  release(id: number): void {
    this.#open.delete(id)
    for (const { worker } of this.#members) worker.postMessage({ kind: 'close', id } satisfies ChunkMessage)
  }

  /** So many bytes of contents are about to come, not all of which need be new: threads that they will need start now, while others do what comes before the first task. */
  expect(bytes: number): void {
    if (bytes > INLINE_BYTES && !this.#closed && this.#members.length === 0) this.#start()
  }

  run(id: number, count: number, step: Step): Promise<void> {
    if (this.#closed) return Promise.reject(new BuilderError('ABORTED', 'cannot work on chunks: the builder is closed'))
    if (this.#members.length === 0) this.#start()
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const queue = step === 'digest' ? this.#digests : this.#compressions
    queue.push({ id, count, step, resolve, reject })
    this.#dispatch()
    return promise
  }

  /** Ends the threads, as soon as each has done what it is at. Tasks under way are rejected with 'ABORTED'. */
  async close(): Promise<void> {
    this.#closed = true
    this.#failAll(new BuilderError('ABORTED', 'the build was ended'))
    await Promise.all(
      this.#members.splice(0).map(({ worker }) => endThread(worker, { kind: 'end' } satisfies ChunkMessage)),
    )
  }

  #start(): void {
    for (let i = 0; i < this.size; i += 1) {
      const worker = new Worker(
        new URL(import.meta.url.endsWith('.ts') ? './chunk-worker.ts' : './chunk-worker.cjs', import.meta.url),
      )
      const member: Member = { worker, tasks: [] }
      worker.on('message', (id: number) => {
        const at = member.tasks.findIndex((task) => task.id === id)
        const [task] = member.tasks.splice(at, 1)
        task?.resolve()
        this.#dispatch()
      })
      worker.on('error', (error) => this.#fail(error))
      worker.on('exit', (code) => {
        if (!this.#closed) this.#fail(new Error(`a chunk thread ended with code ${code}`))
      })
      worker.unref()
      for (const { message } of this.#open.values()) worker.postMessage(message)
      this.#members.push(member)
    }
  }

  #dispatch(): void {
    for (;;) {
      let least: Member | undefined
      for (const member of this.#members)
        if (least === undefined || member.tasks.length < least.tasks.length) least = member
      if (least === undefined || least.tasks.length >= TASKS_PER_WORKER) break
      const task = this.#digests.shift() ?? this.#compressions.shift()
      if (task === undefined) break
      least.tasks.push(task)
      least.worker.postMessage({ kind: 'run', id: task.id, count: task.count, step: task.step } satisfies ChunkMessage)
    }
    this.#holdProcess()
    if (!this.#helping && this.#digests.length + this.#compressions.length > 0) {
      this.#helping = true
      setImmediate(() => this.#help())
    }
  }

  /** One task on this thread, between its other work: the threads have enough. */
  #help(): void {
    this.#helping = false
    const task = this.#digests.shift() ?? this.#compressions.shift()
    if (task === undefined) return
    try {
      this.#workHere(task)
      task.resolve()
    } catch (error) {
      task.reject(error instanceof Error ? error : new Error(String(error)))
    }
    this.#dispatch()
  }

  #workHere({ id, count, step }: Task): void {
    const open = this.#open.get(id)
    if (open === undefined) throw new Error(`chunk batch ${id} is not open`)
    open.work ??= createChunkWork(open.algorithms)
    open.work(open.batch, count, step)
  }

  /** Idle threads do not keep the process alive; busy ones do. */
  #holdProcess(): void {
    for (const { worker, tasks } of this.#members) {
      if (tasks.length > 0) worker.ref()
      else worker.unref()
    }
  }

  #fail(cause: unknown): void {
    this.#failAll(new BuilderError('OUTPUT', 'cannot compress chunks: a worker thread failed', { cause }))
    this.#closed = true
  }

  #failAll(error: Error): void {
    const tasks = [
      ...this.#digests.splice(0),
      ...this.#compressions.splice(0),
      ...this.#members.flatMap((member) => member.tasks.splice(0)),
    ]
    for (const task of tasks) task.reject(error)
  }
}
