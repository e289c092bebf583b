import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fuzz, TARGETS } from './fuzz.ts'

for (const target of Object.keys(TARGETS))
  test(`two seconds of damaged input: ${target}`, { timeout: 30_000 }, async () => {
    assert.ok((await fuzz(target, 2)) > 0)
  })
