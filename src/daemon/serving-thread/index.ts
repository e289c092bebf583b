/**
 * The first thread of a FUSE session, started ahead: that takes longer than all that the main thread does before it mounts, so a tool may begin with it, before it loads the rest.
 */
import { Worker } from 'node:worker_threads'
import { BUILD } from '../../kernel/build/index.ts'
import { answerReportsAlone } from './thread-reports.ts'

let started: Worker | undefined

/** Starts the thread now, if none is waiting. It does not keep the process, and does nothing, until a session takes it. */
export function startServingThread(): void {
  if (started !== undefined) return
  answerReportsAlone()
  started = startThread()
  started.unref()
}

/** The thread that was started ahead, or a new one. It serves what its first message says. */
export function takeServingThread(): Worker {
  answerReportsAlone()
  const thread = started ?? startThread()
  started = undefined
  thread.ref()
  return thread
}

function startThread(): Worker {
  const url = new URL(import.meta.url.endsWith('.ts') ? '../fuse-worker.ts' : './fuse-worker.cjs', import.meta.url)
  return new Worker(url, {
    name: 'fuse',
    workerData: { build: BUILD },
    resourceLimits: { maxYoungGenerationSizeMb: 2, maxOldGenerationSizeMb: 64 },
  })
}
