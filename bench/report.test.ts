import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Report } from './report.ts'

test('figures are printed with three digits, whatever they round to', () => {
  const printed: string[] = []
  const report = new Report((line) => printed.push(line))
  for (const ours of [99.97, 100.4, 5000, 12, 1.5, 0.0204, 0]) report.figure({ what: 'it', unit: 'MB', ours })
  const figures = printed.flatMap((line) => /it, MB +(\S+)/.exec(line)?.[1] ?? [])
  assert.deepEqual(figures, ['100', '100', '5000', '12', '1.5', '0.0204', '0'])
})
