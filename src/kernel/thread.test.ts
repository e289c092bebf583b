import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import { Worker } from 'node:worker_threads'
import { endThread } from './index.ts'

test('a thread finishes what it is at, and one that has ended needs no end', async () => {
  const flag = new Int32Array(new SharedArrayBuffer(4))
  const worker = new Worker(
    `const { parentPort } = require('node:worker_threads')
    parentPort.on('message', (message) => {
      if (message === 'end') return parentPort.close()
      Atomics.wait(message, 0, 0, 200)
      Atomics.store(message, 0, 7)
    })`,
    { eval: true },
  )
  worker.unref()
  worker.postMessage(flag)
  await endThread(worker, 'end')
  assert.equal(flag[0], 7)
  await endThread(worker, 'end')
  const failing = new Worker('process.exit(3)', { eval: true })
  const ended = once(failing, 'exit')
  await endThread(failing, 'end')
  assert.deepEqual(await ended, [3])
})
