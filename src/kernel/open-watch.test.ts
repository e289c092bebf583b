import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { mountTmpfs, unmount } from './mount.ts'
import { OpenWatch } from './open-watch.ts'

test('files that are opened are told in order, and descriptors are given back', {
  skip: process.getuid?.() !== 0 && 'needs root',
}, async () => {
  const path = mkdtempSync(join(tmpdir(), 'watch '))
  await mountTmpfs(path, 1 << 20)
  try {
    mkdirSync(join(path, 'd'))
    for (const name of ['a', 'd/b', 'never']) writeFileSync(join(path, name), name)
    const before = readdirSync('/proc/self/fd').length
    {
      using watch = new OpenWatch(path)
      assert.deepEqual(watch.drain(), [])
      for (const name of ['d/b', 'a', 'a']) readFileSync(join(path, name))
      assert.deepEqual(watch.drain(), [join(path, 'd/b'), join(path, 'a')])
      assert.deepEqual(watch.drain(), [])
    }
    assert.equal(readdirSync('/proc/self/fd').length, before)
    assert.throws(() => new OpenWatch(join(path, 'absent')), { code: 'ENOENT' })
    assert.equal(readdirSync('/proc/self/fd').length, before)
  } finally {
    await unmount(path, true)
    rmSync(path, { recursive: true })
  }
})
