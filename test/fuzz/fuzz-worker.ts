/** The thread in which a target is fuzzed; it answers with one message. */
import { parentPort, workerData } from 'node:worker_threads'
import { Find, fuzz } from './run.ts'
import type { Answer, Job } from './thread.ts'

const { target: name, module, seconds, runs, seed, current } = workerData as Job
const [length, bytes] = [new Uint32Array(current, 0, 2), new Uint8Array(current, 8)]
const onInput = (input: Uint8Array): void => {
  length[0] = Math.min(input.length, bytes.length)
  bytes.set(input.subarray(0, bytes.length))
  Atomics.add(length, 1, 1)
}
// Refusals are made in great number, and nobody looks where they come from.
const stackLines = Error.stackTraceLimit
Error.stackTraceLimit = 0

async function answer(): Promise<Answer> {
  const { TARGETS } = (await import(module)) as typeof import('./targets.ts')
  const target = TARGETS[name]
  if (target === undefined) throw new Error(`no target ${name}; there are ${Object.keys(TARGETS).join(', ')}`)
  try {
    return { result: await fuzz(target, { seconds, runs, seed, onInput }) }
  } catch (error) {
    if (!(error instanceof Find)) throw error
    return { find: { what: error.message, input: error.input, stack: await stackOf(() => target.read(error.input)) } }
  }
}

/** Once more, to see where. */
async function stackOf(read: () => unknown): Promise<string> {
  Error.stackTraceLimit = stackLines
  try {
    await read()
  } catch (error) {
    return error instanceof Error ? (error.stack ?? '') : ''
  }
  return ''
}

parentPort?.postMessage(await answer())
