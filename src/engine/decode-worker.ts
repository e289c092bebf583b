/** A thread that decodes and verifies chunks for {@link DecodePool}. */
import { parentPort, workerData } from 'node:worker_threads'
import { checkBuild } from '../kernel/build/index.ts'
import { packOutcomes, type SentOutcomes, type SentTask, unpackTask } from './decode-message.ts'
import { decodeTask } from './decode-task.ts'
import { SeenBuffers } from './lent-buffers.ts'

/** What the thread is told. */
export type DecodeMessage = { readonly id: number; readonly task: SentTask } | 'end'

/** What the thread tells: first that it is ready, then what became of each task. */
export type DecodeAnswer = 'ready' | { readonly id: number; readonly outcomes: SentOutcomes }

checkBuild((workerData as { readonly build: unknown }).build)
const tell = (answer: DecodeAnswer): void => parentPort?.postMessage(answer)
const seen = new SeenBuffers()
tell('ready')
parentPort?.on('message', (message: DecodeMessage) => {
  if (message === 'end') parentPort?.close()
  else tell({ id: message.id, outcomes: packOutcomes(decodeTask(unpackTask(message.task, seen))) })
})
