/** A thread that the tests start: says when it has the lease of a file, frees or removes its data, and keeps the lease a while longer. */
import { constants, openSync, rmSync } from 'node:fs'
import { parentPort, workerData } from 'node:worker_threads'
import { whileAlone } from '../../kernel/index.ts'

const { path, isRemoved, heldMs } = workerData as {
  readonly path: string
  readonly isRemoved: boolean
  readonly heldMs: number
}
const isHeld = whileAlone(openSync(path, constants.O_RDWR), () => {
  parentPort?.postMessage('held')
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, heldMs)
  if (isRemoved) rmSync(path)
})
if (!isHeld) throw new Error(`no lease of ${path} is to be had`)
