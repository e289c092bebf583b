import assert from 'node:assert/strict'
import { closeSync, mkdtempSync, openSync, readdirSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { removeLeftMemory } from './own-memory.ts'

const HOUR_S = 3600

test('files in memory that killed processes left go after a day; those that somebody has open or changed since stay', (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'nydus-memory-'))
  t.after(() => rmSync(directory, { recursive: true, force: true }))
  const now = Date.now()
  const put = (name: string, hours: number): string => {
    const path = join(directory, name)
    writeFileSync(path, 'marks')
    utimesSync(path, now / 1000 - hours * HOUR_S, now / 1000 - hours * HOUR_S)
    return path
  }
  put('1-1.marks', 25)
  put('1-2.marks', 23)
  put('other', 25)
  symlinkSync(put('1-3.marks', 0), join(directory, '1-4.marks'))
  const fd = openSync(put('1-5.marks', 25), 'r')
  t.after(() => closeSync(fd))
  removeLeftMemory(directory, '.marks', now)
  assert.deepEqual(readdirSync(directory).sort(), ['1-2.marks', '1-3.marks', '1-4.marks', '1-5.marks', 'other'])
})
