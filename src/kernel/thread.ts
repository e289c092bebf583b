import type { Worker } from 'node:worker_threads'

/**
 * Ends a thread by its own consent: posts `goodbye`, at which it closes its port, and waits until it is gone; what it does meanwhile, it finishes. `terminate` is no way for threads
 * that load native modules: one that is just doing so throws into a dying isolate, and that aborts the whole process.
 */
export async function endThread(worker: Worker, goodbye: unknown): Promise<void> {
  if (worker.threadId === -1) return // it has ended already
  await new Promise<void>((resolve) => {
    worker.once('exit', () => resolve())
    worker.ref()
    worker.postMessage(goodbye)
  })
}
