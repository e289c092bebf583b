import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, rmdirSync, rmSync } from 'node:fs'
import promises from 'node:fs/promises'
import { syncBuiltinESMExports } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { openWorkDirectory } from './work-directory.ts'

test('a work directory that another conversion removes, which had made it and is done, is made again', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'work-'))
  const base = join(folder, 'tmp')
  const { mkdtemp } = promises
  let removed = 0
  t.mock.method(promises, 'mkdtemp', async (prefix: string) => {
    if (removed++ === 0) rmdirSync(base)
    return await mkdtemp(prefix)
  })
  syncBuiltinESMExports()
  try {
    const work = await openWorkDirectory(base)
    assert.deepEqual([removed, existsSync(work.path)], [2, true])
    await work[Symbol.asyncDispose]()
    assert.ok(!existsSync(base))
  } finally {
    t.mock.restoreAll()
    syncBuiltinESMExports()
    rmSync(folder, { recursive: true })
  }
})
