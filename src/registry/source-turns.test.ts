import assert from 'node:assert/strict'
import { test } from 'node:test'
import { sourceTurn } from './source-turns.ts'
import { hurriedClock } from './testing.ts'

test('requests past a proxy go one a second, in the whole process; a clock that is set back holds nobody up for long', async () => {
  const clock = hurriedClock()
  const { signal } = new AbortController()
  clock.advance(10_000)
  for (let turn = 0; turn < 4; turn += 1) await sourceTurn(clock, signal)
  assert.equal(clock.sleeps.length, 3)
  assert.ok(
    clock.sleeps.every((ms) => ms > 900 && ms <= 1000),
    String(clock.sleeps),
  )
  clock.advance(-3_600_000)
  await sourceTurn(clock, signal)
  assert.ok((clock.sleeps.at(-1) ?? 0) <= 1000)
  await assert.rejects(sourceTurn(clock, AbortSignal.abort()))
})
