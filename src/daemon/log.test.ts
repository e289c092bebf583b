import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { Log } from './log.ts'

test('a filter leaves out lines, whatever the level is then', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'log-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  const log = new Log({
    level: 'error',
    file: join(folder, 'nydusd'),
    rotationBytes: 0,
    filter: { most: 'info', text: /mount/ },
  })
  log.info('mounted')
  log.level = 'debug'
  log.debug('mounted too')
  log.info('something else')
  log.info('a mount is there')
  log.error('a mount failed')
  log.close()
  const told = readFileSync(join(folder, 'nydusd.log'), 'utf8').trimEnd().split('\n')
  assert.deepEqual(
    told.map((line) => line.replace(/^\[[^\]]*\] /, '')),
    ['INFO a mount is there', 'ERROR a mount failed'],
  )
})
