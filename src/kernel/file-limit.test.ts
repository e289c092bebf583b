import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { raiseFileLimit } from './index.ts'

function limit(): number {
  return Number(/^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1])
}

test('the limit of open files goes as high as it may, and never down', () => {
  const before = limit()
  assert.equal(raiseFileLimit(16), before)
  assert.equal(limit(), before)
  const got = raiseFileLimit(before + 1)
  assert.equal(limit(), got)
  assert.ok(got >= before)
})
