/** The short form of `npm run kill-test`: bytes and errors, no timings. */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { whyNoFuse } from '../src/kernel/index.ts'
import { runStorm } from './kill/storm.ts'

const skip = whyNoFuse() ?? false
const program = (tool: string): string[] => [
  process.execPath,
  '--disable-warning=ExperimentalWarning',
  join(import.meta.dirname, '../src/cli', tool, 'index.ts'),
]

test('daemons that are killed or replaced under readers cost no byte and no error', {
  skip,
  timeout: 200_000,
}, async () => {
  const reports = await runStorm({
    nydusd: program('nydusd'),
    nydusImage: program('nydus-image'),
    kills: 8,
    upgrades: 2,
    readers: 3,
    megabytes: 8,
    tell: () => undefined,
  })
  assert.deepEqual(
    reports.map(({ what, interruptions }) => [what, interruptions]),
    [
      ['kills', 8],
      ['upgrades', 2],
    ],
  )
  for (const { reports: readers } of reports) {
    assert.deepEqual(
      readers.flatMap(({ wrong, errors }) => [...wrong, ...errors]),
      [],
    )
    assert.ok(readers.every(({ reads }) => reads > 0))
  }
})
