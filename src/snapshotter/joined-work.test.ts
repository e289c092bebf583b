import assert from 'node:assert/strict'
import { test } from 'node:test'
import { JoinedWork } from './joined-work.ts'

const NEVER = new AbortController().signal

test('callers at the same time share one piece of work, later ones begin another', async () => {
  const joined = new JoinedWork<number>()
  let begun = 0
  const work = async (): Promise<number> => ++begun
  assert.deepEqual(
    await Promise.all([joined.do('a', work, NEVER), joined.do('a', work, NEVER), joined.do('b', work, NEVER)]),
    [1, 1, 2],
  )
  assert.equal(await joined.do('a', work, NEVER), 3)
})

test('a failure is everybody’s, and is not kept', async () => {
  const joined = new JoinedWork<number>()
  const work = async (): Promise<number> => {
    throw new Error('no')
  }
  const all = await Promise.allSettled([joined.do('a', work, NEVER), joined.do('a', work, NEVER)])
  assert.deepEqual(
    all.map(({ status }) => status),
    ['rejected', 'rejected'],
  )
  assert.equal(await joined.do('a', async () => 1, NEVER), 1)
})

test('one who leaves does not end the work, the last one does; then it begins anew', async () => {
  const joined = new JoinedWork<string>()
  const signals: AbortSignal[] = []
  const work = (signal: AbortSignal): Promise<string> => {
    signals.push(signal)
    return new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
  }
  const [first, second] = [new AbortController(), new AbortController()]
  const one = joined.do('a', work, first.signal)
  const two = joined.do('a', work, second.signal)
  first.abort()
  await assert.rejects(one, { code: 'CANCELLED' })
  assert.equal(signals[0]?.aborted, false)
  second.abort()
  await assert.rejects(two, { code: 'CANCELLED' })
  assert.equal(signals[0]?.aborted, true)
  await assert.rejects(joined.do('a', work, AbortSignal.timeout(1)), { code: 'DEADLINE_EXCEEDED' })
  await assert.rejects(joined.do('a', work, AbortSignal.abort()), { code: 'CANCELLED' })
  assert.equal(signals.length, 2)
})
