/** What a start loads of the built program. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { existsSync, globSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { thirdPartyNotices } from '../scripts/notices.ts'

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

test('licenses of all bundled libraries lie beside the bundles', { skip }, () => {
  const notices = readFileSync(join(dist, 'THIRD-PARTY-NOTICES'), 'utf8')
  assert.match(notices, /^undici \d+\.\d+\.\d+ \(MIT\)\n\nMIT License\n\nCopyright/m)
  assert.match(notices, /^@grpc\/grpc-js \d+\.\d+\.\d+ \(Apache-2\.0\)$/m)
  // Installed, and in no bundle: these stay packages of their own, with their own license files, or are not shipped.
  assert.doesNotMatch(notices, /^(?:koffi|esbuild|typescript) \d/m)
})

test('a library without a license is not bundled', () => {
  const root = mkdtempSync(join(tmpdir(), 'nydus-notices-'))
  try {
    const folder = join(root, 'node_modules/@scope/library')
    mkdirSync(folder, { recursive: true })
    const inputs = ['src/own.ts', 'node_modules/@scope/library/lib/index.js']
    writeFileSync(join(folder, 'package.json'), JSON.stringify({ name: '@scope/library', version: '1.0.0' }))
    assert.throws(() => thirdPartyNotices(root, inputs), /library: its package\.json names no license/)
    writeFileSync(
      join(folder, 'package.json'),
      JSON.stringify({ name: '@scope/library', version: '1.0.0', license: 'MIT' }),
    )
    writeFileSync(join(folder, 'LICENSE.txt'), 'Do what you like.\n')
    assert.equal(thirdPartyNotices(root, inputs), '@scope/library 1.0.0 (MIT)\n\nDo what you like.\n')
  } finally {
    rmSync(root, { recursive: true })
  }
})
