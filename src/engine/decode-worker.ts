/** A thread that decodes and verifies chunks for {@link DecodePool}. */
import { parentPort } from 'node:worker_threads'
import { type DecodeTask, decodeTask } from './decode-task.ts'

parentPort?.on('message', ({ id, task }: { id: number; task: DecodeTask }) => {
  parentPort?.postMessage({ id, outcomes: decodeTask(task) })
})
