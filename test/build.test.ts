/** The build of dist/, while what it replaces is in use. */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { promisify } from 'node:util'

const BUILD = join(import.meta.dirname, '../scripts/build.ts')

async function build(folder: string): Promise<void> {
  await promisify(execFile)(process.execPath, ['--disable-warning=ExperimentalWarning', BUILD, folder])
}

test('a build replaces another one whose files are never missing, and leaves nothing else', {
  timeout: 180_000,
}, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'build-'))
  try {
    await build(folder)
    const names = readdirSync(folder).sort()
    assert.ok(names.includes('nydusd.cjs') && names.includes('decode-worker.cjs'))
    const [tool, before] = [join(folder, 'nydusd.cjs'), readFileSync(join(folder, 'nydusd.cjs'))]
    writeFileSync(join(folder, 'tool-of-before.cjs'), '')
    writeFileSync(join(folder, 'nydusd.cjs.1'), 'half')
    mkdirSync(join(folder, '.cache'))
    writeFileSync(join(folder, '.cache/of-before'), '')
    const { ino } = statSync(tool)
    const state = { isOver: false }
    const second = build(folder).finally(() => (state.isOver = true))
    let looks = 0
    for (; !state.isOver; looks++) {
      assert.ok(readFileSync(tool).equals(before), 'it is there, and whole')
      await nextTurn()
    }
    await second
    assert.ok(looks > 10)
    assert.notEqual(statSync(tool).ino, ino)
    assert.deepEqual(readdirSync(folder).sort(), names)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})
