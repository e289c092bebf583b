/** The short form of `npm run kill-test`: bytes and errors, no timings. */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { whyNoFuse } from '../src/kernel/index.ts'
import { runStorm, type Storm, type StormReport } from './kill/storm.ts'

const skip = whyNoFuse() ?? false
const program = (tool: string): string[] => [
  process.execPath,
  '--disable-warning=ExperimentalWarning',
  join(import.meta.dirname, '../src/cli', tool, 'index.ts'),
]

/** What readers and writers saw of a short storm. */
async function storm(users: Pick<Storm, 'kills' | 'upgrades' | 'readers' | 'writers'>): Promise<StormReport[]> {
  const tools = { nydusd: program('nydusd'), nydusImage: program('nydus-image') }
  const reports = await runStorm({ ...tools, ...users, megabytes: 8, tell: () => undefined })
  assert.deepEqual(
    reports.map(({ what, interruptions }) => [what, interruptions]),
    [
      ['kills', users.kills],
      ['upgrades', users.upgrades],
    ],
  )
  for (const { reports: readers, writers } of reports) {
    assert.deepEqual(
      [...readers, ...writers].flatMap(({ wrong, errors }) => [...wrong, ...errors]),
      [],
    )
    assert.ok(readers.every(({ reads }) => reads > 0))
  }
  return reports
}

test('daemons that are killed or replaced under readers cost no byte and no error', {
  skip,
  timeout: 400_000,
}, async () => {
  await storm({ kills: 8, upgrades: 2, readers: 3, writers: 0 })
})

test('overlays whose daemons are killed or replaced under writers lose no change, and make none twice', {
  skip: skip || (process.getuid?.() === 0 ? false : 'needs root to find files by their handles'),
  timeout: 400_000,
}, async () => {
  const reports = await storm({ kills: 6, upgrades: 2, readers: 1, writers: 2 })
  for (const { writers } of reports)
    for (const { steps } of writers) assert.ok(Object.keys(steps).length > 10, JSON.stringify(steps))
})
