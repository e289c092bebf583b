import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { test } from 'node:test'
import { TOOL } from './testing.ts'

test('what --version, --help and completion load is the command line alone', () => {
  const cli = join(import.meta.dirname, '..')
  const seen = new Set<string>()
  const open = [TOOL]
  for (let path = open.pop(); path !== undefined; path = open.pop()) {
    if (seen.has(path)) continue
    seen.add(path)
    // Types cost nothing, and import() waits until it is needed.
    for (const [, named = '', from = ''] of readFileSync(path, 'utf8').matchAll(
      /^(?:import|export) ([^']*)from '(\.[^']+\.ts)'/gm,
    )) {
      if (!named.startsWith('type ')) open.push(join(dirname(path), from))
    }
  }
  const rooms = [...seen].map((path) => relative(cli, path)).filter((path) => path.startsWith('..'))
  assert.deepEqual(rooms, [])
  assert.ok(seen.size > 8)
})
