import assert from 'node:assert/strict'
import { test } from 'node:test'
import { DeathPauses } from './death-pauses.ts'

test('a daemon is brought back at once, but for one that dies again and again', () => {
  const pauses = new DeathPauses()
  const told = Array.from({ length: 22 }, (_, index) => pauses.died(index * 1000))
  assert.deepEqual(told, [0, 0, 0, 0, ...Array<number>(16).fill(1000), 10_000, 10_000])
})

test('deaths of more than a minute ago do not count', () => {
  const pauses = new DeathPauses()
  for (let death = 0; death < 30; death++) pauses.died(death)
  assert.equal(pauses.died(60_000), 10_000, '29 in the minute before it')
  assert.equal(pauses.died(60_030), 0)
})
