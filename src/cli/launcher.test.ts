/** What the launchers of bin/ run a tool with: with the Node of this package, and with that of the PATH. */
import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'

const BIN = join(import.meta.dirname, '../../bin')
const BUILDERS = ['nydus-image', 'nydusify']
const TOOLS = [...BUILDERS, 'nydusd']
const home = mkdtempSync(join(tmpdir(), 'nydus-launcher-'))
after(() => rmSync(home, { recursive: true }))

/** A package whose tools print Node's options. */
function installed(name: string): string {
  // As deep as launchers look for a Node above them.
  const place = join(home, name, 'package')
  for (const folder of ['bin', 'dist', 'path']) mkdirSync(join(place, folder), { recursive: true })
  for (const file of [...TOOLS, 'start.sh']) copyFileSync(join(BIN, file), join(place, 'bin', file))
  for (const tool of TOOLS)
    writeFileSync(join(place, 'dist', `${tool}.cjs`), 'process.stdout.write(process.execArgv.join(" "))')
  return place
}

/** Makes a certificate of an authority. */
function authority(at: string): void {
  const wanted = ['-newkey', 'rsa:2048', '-nodes', '-days', '2', '-subj', '/CN=launcher', '-keyout', `${at}.key`]
  execFileSync('openssl', ['req', '-x509', ...wanted, '-out', at], { stdio: 'pipe' })
}

function optionsOf(place: string, tool: string): string {
  const env = { PATH: `${join(place, 'path')}:/usr/bin:/bin` }
  return execFileSync(join(place, 'bin', tool), { env, encoding: 'utf8' })
}

test("builders have a small nursery, and by the package's own Node best code late; others have V8's", {
  skip: /\/node-linux-\w+\/bin\/node$/.test(process.execPath)
    ? false
    : "this runs with another Node than the package's",
}, () => {
  const place = installed('own')
  mkdirSync(join(place, 'node_modules/node-linux-own/bin'), { recursive: true })
  symlinkSync(process.execPath, join(place, 'node_modules/node-linux-own/bin/node'))
  for (const tool of BUILDERS)
    assert.match(optionsOf(place, tool), / --max-semi-space-size=\d+ --invocation-count-for-turbofan=\d+$/)
  assert.doesNotMatch(optionsOf(place, 'nydusd'), /semi-space|turbofan/)
})

test("the PATH's Node is given the options that any has; one that is too old is refused by name", () => {
  const place = installed('path')
  symlinkSync(process.execPath, join(place, 'path/node'))
  for (const tool of BUILDERS) assert.match(optionsOf(place, tool), / --max-semi-space-size=\d+$/)
  assert.doesNotMatch(optionsOf(place, 'nydusd'), /semi-space/)
  rmSync(join(place, 'path/node'))
  symlinkSync('/bin/false', join(place, 'path/node'))
  const env = { PATH: join(place, 'path') }
  const refused = spawnSync('/bin/sh', [join(place, 'bin/nydusd')], { env, encoding: 'utf8' })
  assert.equal(refused.status, 1)
  assert.match(refused.stderr, /^nydusd: needs Node 24 or newer, and .*\/path\/node is not; install/)
})

test('tools trust the authorities of the system, beside those of Node', {
  skip: spawnSync('openssl', ['version']).status === 0 ? false : 'openssl is not here',
}, () => {
  const place = installed('trust')
  symlinkSync(process.execPath, join(place, 'path/node'))
  const at = join(home, 'authority.pem')
  authority(at)
  const program = `const tls = require('node:tls'), all = tls.getCACertificates('default'), pem = require('node:fs').readFileSync(${JSON.stringify(at)}, 'utf8')
process.stdout.write([all.includes(pem.trim()) || all.includes(pem), all.includes(tls.rootCertificates[0])].join(' '))`
  for (const tool of TOOLS) writeFileSync(join(place, 'dist', `${tool}.cjs`), program)
  const env = { PATH: `${join(place, 'path')}:/usr/bin:/bin`, SSL_CERT_FILE: at }
  for (const tool of TOOLS)
    assert.equal(execFileSync(join(place, 'bin', tool), { env, encoding: 'utf8' }), 'true true', tool)
})
