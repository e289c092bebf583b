/**
 * A thread that serves a FUSE session. It blocks in the kernel and never returns to its event loop: news come through a message port that it empties between two
 * requests when the generation in shared memory has changed.
 */
import { type MessagePort, parentPort, receiveMessageOnPort } from 'node:worker_threads'
import { FuseControl, type FuseSessionFacts, serveFuse } from '../kernel/index.ts'
import { messageOf } from './errors.ts'
import { FileSystemCounters } from './metrics.ts'
import { FuseFileSystem, type LateRead, type ServedTree } from './transports/fuse-handler.ts'
import { ServingState } from './transports/serving-state.ts'

/** The first message that the thread gets. */
export interface FuseWorkerData {
  readonly worker: number
  readonly control: Int32Array<SharedArrayBuffer>
  readonly state: Int32Array<SharedArrayBuffer>
  readonly counters: Float64Array<SharedArrayBuffer>
  readonly tree: ServedTree
  readonly generation: number
  readonly news: MessagePort
}

/** What the thread tells. */
export type FuseWorkerMessage =
  | { readonly kind: 'late'; readonly read: LateRead }
  | { readonly kind: 'init'; readonly facts: FuseSessionFacts }
  | { readonly kind: 'error'; readonly text: string }
  | { readonly kind: 'end'; readonly why: 'unmounted' | 'stopped' }

function main(data: FuseWorkerData): void {
  const tell = (message: FuseWorkerMessage): void => parentPort?.postMessage(message)
  const { worker } = data
  const state = new ServingState(data.state)
  const files = new FuseFileSystem(
    new FileSystemCounters(data.counters),
    (read) => tell({ kind: 'late', read }),
    worker + 1,
  )
  files.update(data.tree)
  let seen = data.generation
  const why = serveFuse({
    fd: state.waitForDevice(),
    worker,
    control: new FuseControl(data.control),
    handler: (request, reply) => {
      state.enter(worker)
      try {
        if (state.generation !== seen) {
          seen = state.generation
          for (let news = receiveMessageOnPort(data.news); news !== undefined; news = receiveMessageOnPort(data.news))
            files.update(news.message as ServedTree)
        }
        return files.answer(request, reply)
      } finally {
        state.leave(worker, seen)
      }
    },
    onInit: (facts) => tell({ kind: 'init', facts }),
    onError: (error) => tell({ kind: 'error', text: messageOf(error) }),
  })
  tell({ kind: 'end', why })
  data.news.close()
}

// The thread may be started before it is known what it will serve.
parentPort?.once('message', (data: FuseWorkerData) => main(data))
