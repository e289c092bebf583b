import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { test } from 'node:test'
import { TOOL } from './testing.ts'

const cli = join(import.meta.dirname, '..')

/** Files that a start at `from` loads. Types cost nothing, and import() waits until it is needed. */
function loaded(from: string): ReadonlySet<string> {
  const seen = new Set<string>()
  const open = [from]
  for (let path = open.pop(); path !== undefined; path = open.pop()) {
    if (seen.has(path)) continue
    seen.add(path)
    for (const [, named = '', to = ''] of readFileSync(path, 'utf8').matchAll(
      /^(?:import|export) ([^']*)from '(\.[^']+\.ts)'/gm,
    )) {
      if (!named.startsWith('type ')) open.push(join(dirname(path), to))
    }
  }
  return seen
}

test('what --help and completion load is the command line alone', () => {
  const seen = loaded(join(import.meta.dirname, 'run-command.ts'))
  const rooms = [...seen].map((path) => relative(cli, path)).filter((path) => path.startsWith('..'))
  assert.deepEqual(rooms, [])
  assert.ok(seen.size > 8)
})

test('what --version loads has none of the commands, nor the library that reads them', () => {
  const seen = loaded(TOOL)
  assert.ok(seen.has(join(import.meta.dirname, 'version.ts')))
  for (const path of seen) assert.doesNotMatch(readFileSync(path, 'utf8'), /^import [^\n]*'commander'/m, path)
})
