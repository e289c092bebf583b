import assert from 'node:assert/strict'
import fs from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import { test } from 'node:test'
import { buildTar, tarOf } from './testing.ts'

const MANY = 100_001

test('the pages that the start needed are let go before a large bootstrap is written, and not for a small one', async (t) => {
  const read = t.mock.method(fs, 'readFileSync')
  syncBuiltinESMExports()
  t.after(syncBuiltinESMExports)
  // Who lets pages go reads where they are.
  const released = (): number => read.mock.calls.filter((call) => call.arguments[0] === '/proc/self/smaps').length
  await buildTar(await tarOf([{ path: 'a', type: 'file', content: Buffer.from('text') }]))
  assert.equal(released(), 0)
  await buildTar(await tarOf(Array.from({ length: MANY }, (_, i) => ({ path: `d/${i}`, type: 'file' }))))
  assert.equal(released(), 1)
})
