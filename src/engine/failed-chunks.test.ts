import assert from 'node:assert/strict'
import { test } from 'node:test'
import { EngineError } from './errors.ts'
import { FailedChunks } from './failed-chunks.ts'

const late = new EngineError('TIMEOUT', 'late')

test('a failure that took long is known for a second, and not once something has come', () => {
  const failed = new FailedChunks()
  failed.note(1, [7, 8], late, 0, 5_000)
  assert.equal(failed.recent(1, 7, 5_999), late)
  assert.equal(failed.recent(1, 8, 6_000), undefined)
  assert.equal(failed.recent(0, 7, 5_001), undefined, 'another blob')
  assert.equal(failed.recent(1, 9, 5_001), undefined, 'another chunk')
  failed.clear()
  assert.equal(failed.recent(1, 7, 5_001), undefined)
})

test('a quick failure is not remembered, and the number of those that are is bounded', () => {
  const failed = new FailedChunks()
  failed.note(0, [1], late, 0, 100)
  assert.equal(failed.recent(0, 1, 100), undefined)
  failed.note(0, Array(5_000).keys(), late, 0, 5_000)
  assert.equal(failed.recent(0, 0, 5_000), undefined)
  assert.equal(failed.recent(0, 4_999, 5_000), late)
})
