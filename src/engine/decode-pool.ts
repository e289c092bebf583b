import { availableParallelism } from 'node:os'
import { Worker } from 'node:worker_threads'
import { BUILD } from '../kernel/build/index.ts'
import { endThread } from '../kernel/index.ts'
import { packTask, unpackOutcomes } from './decode-message.ts'
import { type DecodeOutcome, type DecodeTask, decodeTask } from './decode-task.ts'
import type { DecodeAnswer, DecodeMessage } from './decode-worker.ts'
import { EngineError } from './errors.ts'
import { LentBuffers } from './lent-buffers.ts'

/** Tasks with no more plain bytes than this are done at once, on the thread that asks: sending them away and back takes longer. */
const INLINE_BYTES = 48 * 1024
/** While the first thread starts, which takes longer than to decode ten times as much, tasks up to this size are not kept waiting for it. */
const STARTING_INLINE_BYTES = 1 << 20
/** Tasks that a thread holds: one runs, one is there when it ends. */
const TASKS_PER_THREAD = 2
const MAX_THREADS = 4

interface Waiting {
  readonly task: DecodeTask
  readonly resolve: (outcomes: DecodeOutcome[]) => void
  readonly reject: (error: Error) => void
}

interface Member {
  readonly worker: Worker
  readonly tasks: Map<number, Waiting>
  readonly lent: LentBuffers
  /** The thread runs, and is of our build. */
  isReady: boolean
}

/** The threads that decode and verify, shared by all images of a process. They start with the first large task and end with `close`. */
export class DecodePool {
  #threads: number
  readonly #onNoThread: (why: Error) => void
  readonly #members: Member[] = []
  readonly #queue: Waiting[] = []
  #nextId = 1
  #closed = false

  /** `onNoThread` is told of a thread that cannot be started: the pool goes on with those it has, and without any on the thread that asks. */
  constructor(
    threads = Math.min(availableParallelism(), MAX_THREADS),
    onNoThread: (why: Error) => void = (why) => process.emitWarning(why),
  ) {
    this.#threads = Math.max(1, threads)
    this.#onNoThread = onNoThread
  }

  /** One outcome a chunk. The task's buffers must not change until then. Rejects with EngineError 'CLOSED', or 'BACKEND' when a thread died. */
  async run(task: DecodeTask): Promise<DecodeOutcome[]> {
    if (this.#closed) throw closed()
    let plain = task.slice?.length ?? 0
    for (const { plainSize, batchSize } of task.chunks) plain += Math.max(plainSize, batchSize)
    if (plain <= INLINE_BYTES || this.#threads === 0) return decodeTask(task)
    if (plain <= STARTING_INLINE_BYTES && !this.#members.some(({ isReady }) => isReady)) {
      if (this.#members.length === 0) this.#start()
      return decodeTask(task)
    }
    const { promise, resolve, reject } = Promise.withResolvers<DecodeOutcome[]>()
    this.#queue.push({ task, resolve, reject })
    this.#dispatch()
    return await promise
  }

  /** Ends the threads; tasks under way are rejected. */
  async close(): Promise<void> {
    this.#closed = true
    for (const { reject } of this.#queue.splice(0)) reject(closed())
    const members = this.#members.splice(0)
    for (const member of members) for (const { reject } of member.tasks.values()) reject(closed())
    await Promise.all(members.map(({ worker }) => endThread(worker, 'end' satisfies DecodeMessage)))
  }

  #dispatch(): void {
    while (this.#queue.length > 0) {
      let least: Member | undefined
      for (const member of this.#members)
        if (member.isReady && (least === undefined || member.tasks.size < least.tasks.size)) least = member
      const isStarting = this.#members.some(({ isReady }) => !isReady)
      if ((least === undefined || least.tasks.size > 0) && !isStarting && this.#members.length < this.#threads)
        this.#start()
      if (least === undefined || least.tasks.size >= TASKS_PER_THREAD) return
      const waiting = this.#queue.shift()
      if (waiting === undefined) return
      const id = this.#nextId++
      least.tasks.set(id, waiting)
      least.worker.ref()
      least.worker.postMessage({ id, task: packTask(waiting.task, least.lent) } satisfies DecodeMessage)
    }
  }

  /** Until it is ready the process is kept: tasks may wait for it. */
  #start(): void {
    const file = import.meta.url.endsWith('.ts') ? './decode-worker.ts' : './decode-worker.cjs'
    const worker = new Worker(new URL(file, import.meta.url), {
      workerData: { build: BUILD },
      resourceLimits: { maxYoungGenerationSizeMb: 8, maxOldGenerationSizeMb: 64 },
    })
    const member: Member = { worker, tasks: new Map(), lent: new LentBuffers(), isReady: false }
    worker.on('message', (answer: DecodeAnswer) => {
      if (answer === 'ready') {
        member.isReady = true
        if (this.#closed) return // its end is waited for
        worker.unref()
        this.#dispatch()
        return
      }
      const { id, outcomes } = answer
      const done = member.tasks.get(id)
      member.tasks.delete(id)
      if (member.tasks.size === 0) worker.unref() // an idle thread does not keep the process
      done?.resolve(unpackOutcomes(outcomes))
      this.#dispatch()
    })
    worker.on('error', (error) => this.#lost(member, error))
    worker.on('exit', () => this.#lost(member, undefined))
    this.#members.push(member)
  }

  /** A thread that died takes its tasks with it; the next task starts another. */
  #lost(member: Member, cause: Error | undefined): void {
    const at = this.#members.indexOf(member)
    if (at >= 0) this.#members.splice(at, 1)
    if (at >= 0 && !member.isReady && !this.#closed) {
      this.#goOnWithout(member, cause ?? new Error('a thread ended before it began'))
      return
    }
    for (const { reject } of member.tasks.values())
      reject(new EngineError('BACKEND', 'a thread that decodes chunks ended', { cause }))
    member.tasks.clear()
    if (!this.#closed) this.#dispatch()
  }

  /** Its file may be gone, or of another build. What it was to do others do. */
  #goOnWithout({ tasks }: Member, why: Error): void {
    this.#threads = this.#members.length
    this.#queue.unshift(...tasks.values())
    tasks.clear()
    this.#onNoThread(why)
    if (this.#threads > 0) this.#dispatch()
    else
      for (const { task, resolve, reject } of this.#queue.splice(0)) Promise.try(decodeTask, task).then(resolve, reject)
  }
}

function closed(): EngineError {
  return new EngineError('CLOSED', 'cannot decode: the pool is closed')
}
