/**
 * A thread that serves a FUSE session. It blocks in the kernel and never returns to its event loop: news come through a message port that it empties between two
 * requests when the generation in shared memory has changed.
 */
import { type MessagePort, parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads'
import { checkBuild } from '../kernel/build/index.ts'
import {
  ANSWER_LATER,
  ERRNO,
  FuseControl,
  type FuseRequest,
  type FuseSessionFacts,
  type FuseWishes,
  OPCODE,
  prepareCalls,
  serveFuse,
} from '../kernel/index.ts'
import { DroppedMemory } from './dropped-memory.ts'
import { messageOf } from './errors.ts'
import type { ForwardedRequest } from './files/messages.ts'
import { FileSystemCounters } from './metrics.ts'
import { FuseFileSystem, type LateRead, type ServedTree } from './transports/fuse-handler.ts'
import { ListingHabits } from './transports/listing-habits.ts'
import { ServingState } from './transports/serving-state.ts'

/** The first message that the thread gets. */
export interface FuseWorkerData {
  readonly worker: number
  readonly control: Int32Array<SharedArrayBuffer>
  readonly state: Int32Array<SharedArrayBuffer>
  readonly counters: Float64Array<SharedArrayBuffer>
  readonly habits: Int32Array<SharedArrayBuffer>
  readonly tree: ServedTree
  readonly generation: number
  readonly news: MessagePort
  readonly wishes: FuseWishes
  /** To the files thread, if there is one yet. */
  readonly files: MessagePort | undefined
}

/** What comes through the port of news. */
export type FuseWorkerNews = { readonly tree: ServedTree } | { readonly files: MessagePort }

/** What the thread tells. */
export type FuseWorkerMessage =
  | { readonly kind: 'ready' }
  | { readonly kind: 'late'; readonly read: LateRead }
  | { readonly kind: 'init'; readonly facts: FuseSessionFacts }
  | { readonly kind: 'error'; readonly text: string }
  | { readonly kind: 'end'; readonly why: 'unmounted' | 'stopped' }

function main(data: FuseWorkerData): void {
  const tell = (message: FuseWorkerMessage): void => parentPort?.postMessage(message)
  const { worker, wishes } = data
  const state = new ServingState(data.state)
  let filesThread = data.files
  const forward = (slot: number, request: FuseRequest, asRoot: boolean): number => {
    const bytes = new Uint8Array(request.bytes.subarray(0, request.length))
    const message: ForwardedRequest = { slot, asRoot, bytes }
    filesThread?.postMessage(message, [bytes.buffer])
    return filesThread === undefined ? -ERRNO.ESTALE : ANSWER_LATER
  }
  const files = new FuseFileSystem({
    counters: new FileSystemCounters(data.counters),
    late: (read) => tell({ kind: 'late', read }),
    forward,
    thread: worker + 1,
    exchangesOpens: wishes.exchangesOpens,
    habits: new ListingHabits(data.habits),
  })
  files.update(data.tree)
  tell({ kind: 'ready' })
  const dropped = new DroppedMemory()
  const takeNews = (): void => {
    for (let news = receiveMessageOnPort(data.news); news !== undefined; news = receiveMessageOnPort(data.news)) {
      const message = news.message as FuseWorkerNews
      if ('tree' in message) dropped.add(files.update(message.tree))
      else filesThread = message.files
    }
  }
  let seen = data.generation
  const refresh = (): void => {
    if (state.generation === seen) return
    seen = state.generation
    takeNews()
  }
  const lookForNews = (): void => {
    if (state.generation === seen) return
    state.enter(worker)
    refresh()
    state.leave(worker, seen)
  }
  const why = serveFuse({
    fd: state.waitForDevice(),
    worker,
    control: new FuseControl(data.control),
    handler: (request, reply) => {
      state.enter(worker)
      try {
        refresh()
        return files.answer(request, reply)
      } finally {
        state.leave(worker, seen)
      }
    },
    wishes,
    onWake: lookForNews,
    onForget: (request) => {
      lookForNews()
      if (filesThread === undefined) return
      if (request.opcode === OPCODE.BATCH_FORGET || request.nodeTop !== 0) forward(request.nodeTop, request, false)
    },
    onInit: (facts) => tell({ kind: 'init', facts }),
    onError: (error) => tell({ kind: 'error', text: messageOf(error) }),
  })
  tell({ kind: 'end', why })
  data.news.close()
  filesThread?.close()
}

checkBuild((workerData as { readonly build: unknown }).build)
// The thread may be started before it is known what it will serve.
parentPort?.once('message', (data: FuseWorkerData) => main(data))
prepareCalls()
