/** A thread that decodes and verifies chunks for {@link DecodePool}. */
import { parentPort, workerData } from 'node:worker_threads'
import { checkBuild } from '../kernel/build/index.ts'
import { type DecodeOutcome, type DecodeTask, decodeTask } from './decode-task.ts'

/** What the thread is told. */
export type DecodeMessage = { readonly id: number; readonly task: DecodeTask } | 'end'

/** What the thread tells: first that it is ready, then what became of each task. */
export type DecodeAnswer = 'ready' | { readonly id: number; readonly outcomes: DecodeOutcome[] }

checkBuild((workerData as { readonly build: unknown }).build)
const tell = (answer: DecodeAnswer): void => parentPort?.postMessage(answer)
tell('ready')
parentPort?.on('message', (message: DecodeMessage) => {
  if (message === 'end') parentPort?.close()
  else tell({ id: message.id, outcomes: decodeTask(message.task) })
})
