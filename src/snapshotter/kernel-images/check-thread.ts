import { Worker } from 'node:worker_threads'
import { BUILD } from '../../kernel/build/index.ts'
import { SnapshotterError } from '../errors.ts'
import type { CheckAnswer, CheckTask } from './image-check.ts'

/** Most of what a check needs is outside of the engine's heap. */
const LIMITS = { maxYoungGenerationSizeMb: 16, maxOldGenerationSizeMb: 512 }

/** Checks an image on a thread that lives as long as that takes; `signal` ends it at once, with what it had begun left to the next check. Throws SnapshotterError, or the signal's reason. */
export async function checkOnThread(task: CheckTask, signal: AbortSignal): Promise<CheckAnswer> {
  signal.throwIfAborted()
  const file = import.meta.url.endsWith('.ts') ? './kernel-image-worker.ts' : './kernel-image-worker.cjs'
  const worker = new Worker(new URL(file, import.meta.url), {
    workerData: { build: BUILD, task },
    resourceLimits: LIMITS,
  })
  const answered = Promise.withResolvers<CheckAnswer>()
  const onAbort = (): void => answered.reject(signal.reason)
  signal.addEventListener('abort', onAbort, { once: true })
  worker.once('message', answered.resolve)
  worker.once('error', answered.reject)
  worker.once('exit', () => answered.reject(new Error('its thread ended')))
  try {
    return await answered.promise
  } catch (error) {
    signal.throwIfAborted()
    throw new SnapshotterError('INTERNAL', `cannot check ${task.bootstrap}: ${(error as Error).message}`, {
      cause: error,
    })
  } finally {
    signal.removeEventListener('abort', onAbort)
    await worker.terminate()
  }
}
