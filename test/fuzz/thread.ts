import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import type { FuzzLimits, FuzzResult } from './run.ts'

/** No input is larger: seeds are small, and grow little. */
const MAX_INPUT_BYTES = 2 ** 20
const HANG_MS = 10_000
/** So long a thread may take to end. */
const END_MS = 1000
const MAX_HEAP_MIB = 512

export interface Job extends Omit<FuzzLimits, 'onInput'> {
  readonly target: string
  /** Where the targets are. */
  readonly module: string
  /** An input that is read for so long is not read to its end. Default: 10 s. */
  readonly hangMs?: number
  /** u32 length, u32 count of inputs, then the input that is being read. */
  readonly current: SharedArrayBuffer
}

export interface FoundInput {
  readonly what: string
  readonly input: Uint8Array
  readonly stack: string
}

export type Answer = { readonly result: FuzzResult } | { readonly find: FoundInput }

/** Fuzzes one target in a thread of its own, so that what hangs or takes all memory is a find too. */
export async function fuzzInThread(job: Omit<Job, 'current'>): Promise<Answer> {
  const { hangMs = HANG_MS } = job
  const current = new SharedArrayBuffer(8 + MAX_INPUT_BYTES)
  const worker = new Worker(new URL('fuzz-worker.ts', import.meta.url), {
    workerData: { ...job, current } satisfies Job,
    resourceLimits: { maxOldGenerationSizeMb: MAX_HEAP_MIB },
  })
  const found = (what: string): Answer => ({ find: { what, input: inputIn(current), stack: '' } })
  let timer: NodeJS.Timeout | undefined
  try {
    return await new Promise<Answer>((resolve, reject) => {
      worker.once('message', resolve)
      worker.once('error', (error: NodeJS.ErrnoException) => {
        if (error.code === 'ERR_WORKER_OUT_OF_MEMORY') resolve(found('took all memory'))
        else reject(error)
      })
      worker.once('exit', (code) => reject(new Error(`the thread of ${job.target} ended with ${code}`)))
      timer = watch(current, hangMs, () => resolve(found(`is still being read after ${hangMs / 1000} s`)))
    })
  } finally {
    clearInterval(timer)
    worker.removeAllListeners('exit')
    await ended(worker)
  }
}

/** A thread that has answered ends of itself, and tidies up; one that hangs is ended. */
async function ended(worker: Worker): Promise<void> {
  if (worker.threadId === -1) return
  const timer = setTimeout(() => void worker.terminate(), END_MS)
  await once(worker, 'exit')
  clearTimeout(timer)
}

/** Calls when the count of inputs stands still. */
function watch(current: SharedArrayBuffer, hangMs: number, onHang: () => void): NodeJS.Timeout {
  const counts = new Uint32Array(current, 0, 2)
  let [count, since] = [0, performance.now()]
  return setInterval(() => {
    const now = Atomics.load(counts, 1)
    if (now !== count) [count, since] = [now, performance.now()]
    // Before the first input the readers are loaded.
    else if (count > 0 && performance.now() - since > hangMs) onHang()
  }, 500)
}

function inputIn(current: SharedArrayBuffer): Uint8Array {
  const length = new Uint32Array(current, 0, 1)[0] ?? 0
  return new Uint8Array(current, 8, length).slice()
}
