/** A thread that digests and compresses batches of chunks in shared memory. */
import { parentPort } from 'node:worker_threads'
import { ChunkBatch } from './chunk-batch.ts'
import { type ChunkAlgorithms, type ChunkWork, createChunkWork, type Step } from './chunk-work.ts'

/** Buffers are told once, by number; a task then is a few words. */
export type ChunkMessage =
  | {
      readonly kind: 'open'
      readonly id: number
      readonly buffer: SharedArrayBuffer
      readonly algorithms: ChunkAlgorithms
    }
  | { readonly kind: 'close'; readonly id: number }
  | { readonly kind: 'run'; readonly id: number; readonly count: number; readonly step: Step }
  | { readonly kind: 'end' }

const port = parentPort
if (port === null) throw new Error('chunk-worker.ts is started as a worker thread only')
const batches = new Map<number, { readonly batch: ChunkBatch; readonly work: ChunkWork }>()
const works = new Map<string, ChunkWork>()

function workFor(algorithms: ChunkAlgorithms): ChunkWork {
  const { compression, digest, cipher } = algorithms
  // Keys are not kept longer than their batches.
  if (cipher !== undefined) return createChunkWork(algorithms)
  const key = `${compression} ${digest}`
  const known = works.get(key)
  if (known !== undefined) return known
  const work = createChunkWork(algorithms)
  works.set(key, work)
  return work
}

port.on('message', (message: ChunkMessage) => {
  if (message.kind === 'open')
    batches.set(message.id, { batch: new ChunkBatch(message.buffer), work: workFor(message.algorithms) })
  else if (message.kind === 'close') batches.delete(message.id)
  else if (message.kind === 'end') port.close()
  else {
    const entry = batches.get(message.id)
    if (entry === undefined) throw new Error(`chunk batch ${message.id} is not open`)
    entry.work(entry.batch, message.count, message.step)
    port.postMessage(message.id)
  }
})
