import assert from 'node:assert/strict'
import { test } from 'node:test'
import { LateReads } from './late-reads.ts'
import type { LateRead } from './transports/fuse-handler.ts'

const COUNT = 1 << 16
const readNumber = (low: number): LateRead => ({ slot: 1, ino: 1, offset: 0, count: COUNT, low, high: 0 })

test('a read whose turn does not come is answered with EIO by its deadline, and those behind it get theirs', async () => {
  const answers: Array<readonly [number, number]> = []
  const first = Promise.withResolvers<number>()
  const given: number[] = []
  const done = Promise.withResolvers<void>()
  const late = new LateReads({
    budgetBytes: COUNT,
    deadlineMs: (read) => (read.low === 2 ? 20 : 60_000),
    fill: (read, _into, deadlineMs) => {
      given.push(deadlineMs)
      return read.low === 1 ? first.promise : Promise.resolve(7)
    },
    answer: (read, _message, _bytes, errno) => answers.push([read.low, errno]),
    onDone: (read) => {
      if (read.low === 2) first.resolve(7) // only now: without a deadline of its own it would wait for ever
      if (read.low === 3) done.resolve()
    },
  })
  for (const low of [1, 2, 3]) late.add(readNumber(low))
  assert.equal(late.list().length, 3)
  await done.promise
  assert.deepEqual(answers, [
    [2, 5],
    [1, 0],
    [3, 0],
  ])
  assert.equal(late.list().length, 0)
  assert.ok((given[1] ?? Infinity) < 60_000, 'the time in the queue counts')
})

test('memory of an answer serves the next one when it was sent, and not after a failure', async () => {
  const seen: ArrayBufferLike[] = []
  let ended = Promise.withResolvers<void>()
  const late = new LateReads({
    budgetBytes: 4 * COUNT,
    deadlineMs: () => 60_000,
    fill: async (read, into) => {
      assert.equal(into.length, COUNT)
      seen.push(into.buffer)
      if (read.low === 3) throw new Error('no data')
      return COUNT
    },
    answer: () => undefined,
    onDone: () => ended.resolve(),
  })
  for (const low of [1, 2, 3, 4]) {
    late.add(readNumber(low))
    await ended.promise
    ended = Promise.withResolvers()
    await Promise.resolve()
  }
  assert.equal(seen[1], seen[0])
  assert.equal(seen[2], seen[0])
  assert.notEqual(seen[3], seen[0])
  late.add(readNumber(5))
  late.add(readNumber(6))
  await ended.promise
  assert.notEqual(seen[4], seen[5], 'each of two at once has its own')
})
