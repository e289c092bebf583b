/** What a start loads of the built program. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { existsSync, globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'

const dist = join(import.meta.dirname, '../dist')
const skip = existsSync(join(dist, 'nydusd.cjs')) ? false : 'dist/ is not built (npm run build)'

test('the first request loads one file of undici, and neither HTTP/2 nor TLS', { skip }, () => {
  for (const path of globSync('*.cjs', { cwd: dist }))
    assert.doesNotMatch(readFileSync(join(dist, path), 'utf8'), /(?:require|import)\("undici/, path)
  const program = `
    const { Agent, Pool, ProxyAgent } = require(${JSON.stringify(join(dist, 'undici.cjs'))})
    const agent = new Agent({ connections: 1, allowH2: false })
    const names = [typeof agent.request, typeof agent.dispatch, typeof Pool, typeof ProxyAgent]
    const files = Object.keys(require.cache).length - 1
    const parts = process.moduleLoadList.filter((name) => /NativeModule (?:http2|tls|_tls_wrap|internal\\/http2.*)$/.test(name))
    console.log(JSON.stringify({ names, files, parts }))
  `
  const told: unknown = JSON.parse(execFileSync(process.execPath, ['-e', program], { encoding: 'utf8' }))
  assert.deepEqual(told, { names: ['function', 'function', 'function', 'function'], files: 0, parts: [] })
})
