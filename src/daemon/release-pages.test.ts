import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises'
import { releaseWhenIdle } from './release-pages.ts'

const MS = 50

test('pages are not looked for while the thread is busy, and are when it is idle', async () => {
  const { promise, resolve } = Promise.withResolvers<void>()
  let released = 0
  releaseWhenIdle(MS, () => {
    released += 1
    resolve()
  })
  for (const until = performance.now() + 5 * MS; performance.now() < until; ) await turn()
  assert.equal(released, 0)
  const keep = setInterval(() => undefined, 10_000)
  await promise
  clearInterval(keep)
  await sleep(3 * MS)
  assert.equal(released, 1)
})

test('a thread that is never idle lets go of them in the end', async () => {
  const released = new AbortController()
  releaseWhenIdle(MS, () => released.abort(), 2)
  for (const until = performance.now() + 60_000; performance.now() < until; ) {
    await turn()
    if (released.signal.aborted) return
  }
  assert.fail('they stay')
})
