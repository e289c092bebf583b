import assert from 'node:assert/strict'
import { test } from 'node:test'
import { hasReadConfiguration } from './containerd-start.ts'

/** An hour after the machine's start. */
const NOW = { wallMs: 1_800_000_000_000, monotonicMs: 3_600_000 }
const MINUTE = 60_000
const shown = (state: string, startedMs: number): string =>
  `ActiveState=${state}\nExecMainStartTimestampMonotonic=${startedMs * 1000}\n`

test('a containerd that was started after its configuration changed has read it', () => {
  const started = shown('active', 30 * MINUTE)
  assert.equal(hasReadConfiguration(started, NOW.wallMs - 40 * MINUTE, NOW), true)
  assert.equal(hasReadConfiguration(started, NOW.wallMs - 20 * MINUTE, NOW), false)
  assert.equal(hasReadConfiguration(started, NOW.wallMs - 30 * MINUTE, NOW), false, 'in the same moment')
})

test('one that does not run, or of which nothing is known, has not', () => {
  const longAgo = NOW.wallMs - 50 * MINUTE
  for (const told of [shown('inactive', 30 * MINUTE), shown('failed', 30 * MINUTE), shown('active', 0), 'Failed', ''])
    assert.equal(hasReadConfiguration(told, longAgo, NOW), false, told)
  assert.equal(hasReadConfiguration(shown('active', 30 * MINUTE), Number.NaN, NOW), false)
})
