import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { join } from 'node:path'

test('pages that only the start needed are let go, and the program goes on', () => {
  const room = pathToFileURL(join(import.meta.dirname, 'index.ts')).href
  const program = `
    import { readFileSync } from 'node:fs'
    import { releaseProgramPages } from '${room}'
    const filePages = () => Number(/^RssFile:\\s+(\\d+)/m.exec(readFileSync('/proc/self/status', 'utf8'))[1]) * 1024
    const before = filePages()
    const released = releaseProgramPages()
    const after = filePages()
    const { gzipSync, gunzipSync } = await import('node:zlib')
    const intact = gunzipSync(gzipSync(Buffer.alloc(1e6, 'x'))).length === 1e6 && structuredClone(new Map([[1, { a: [2] }]])).get(1).a[0] === 2
    console.log(JSON.stringify({ before, released, after, intact }))`
  const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', program], { encoding: 'utf8' })
  const told = JSON.parse(stdout || `{"error":${JSON.stringify(stderr)}}`) as {
    before: number
    released: number
    after: number
    intact: boolean
  }
  assert.ok(told.released > 10e6, `released ${told.released}; ${stderr}`)
  assert.ok(told.before - told.after > 10e6, `${told.before} → ${told.after}`)
  assert.ok(told.intact)
})
