/** A thread that decodes and verifies chunks for {@link DecodePool}. */
import { parentPort } from 'node:worker_threads'
import { type DecodeTask, decodeTask } from './decode-task.ts'

/** What the thread is told. */
export type DecodeMessage = { readonly id: number; readonly task: DecodeTask } | 'end'

parentPort?.on('message', (message: DecodeMessage) => {
  if (message === 'end') parentPort?.close()
  else parentPort?.postMessage({ id: message.id, outcomes: decodeTask(message.task) })
})
