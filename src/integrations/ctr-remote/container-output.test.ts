import assert from 'node:assert/strict'
import { appendFileSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { ContainerOutput } from './container-output.ts'

function outputPath(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'container-output-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  return join(folder, 'output')
}

test('shows each byte once, and knows the line by whole lines only', (t) => {
  const path = outputPath(t)
  const shown: string[] = []
  using output = new ContainerOutput(path, 'is ready', (text) => shown.push(text))
  assert.equal(output.read(), false)
  const bytes = Buffer.from('starts\nthe sërver is re')
  appendFileSync(path, bytes.subarray(0, 13)) // in the middle of a character
  assert.equal(output.read(), false)
  appendFileSync(path, bytes.subarray(13))
  assert.equal(output.read(), false)
  appendFileSync(path, 'ady')
  assert.equal(output.read(), false, 'the line has no end yet')
  appendFileSync(path, ' now\nmore')
  assert.equal(output.read(), true)
  assert.equal(output.read(), true, 'what was said stays said')
  assert.equal(shown.join(''), 'starts\nthe sërver is ready now\nmore')
})

test('output of many megabytes, most of it one line, is read in pieces', (t) => {
  const path = outputPath(t)
  const long = Buffer.alloc(5_000_000, 'x')
  let length = 0
  let longest = 0
  using output = new ContainerOutput(path, 'end', (text) => {
    length += text.length
    longest = Math.max(longest, text.length)
  })
  appendFileSync(path, long)
  assert.equal(output.read(), false)
  appendFileSync(path, ' end\n')
  assert.equal(output.read(), true)
  assert.equal(length, long.length + 5)
  assert.ok(longest <= 64 * 1024)
})
