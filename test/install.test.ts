/** The tools as a user has them: from any folder, through symlinks, with an empty environment, from a path with spaces, and installed from the packed tarball. */
import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'

const root = join(import.meta.dirname, '..')
const { bin, version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
  bin: Record<string, string>
  version: string
}
const tools = Object.keys(bin)
const folder = mkdtempSync(join(tmpdir(), 'nydus install '))
after(() => rmSync(folder, { recursive: true, force: true }))

/** What the tool says of itself, run in an unrelated folder. */
function versionOf(path: string, env: NodeJS.ProcessEnv = process.env): string {
  const { stdout, stderr, status } = spawnSync(path, ['--version'], { cwd: '/', env, encoding: 'utf8' })
  assert.equal(status, 0, `${path}: ${stderr}`)
  return stdout
}

for (const tool of tools) {
  test(`${tool} runs through a symlink of a symlink in a path with spaces`, () => {
    const [first, second] = [join(folder, `${tool} first`), join(folder, `${tool} second`)]
    symlinkSync(join(root, 'bin', tool), first)
    symlinkSync(first, second)
    assert.match(versionOf(second), /\d+\.\d+\.\d+/)
  })

  test(`${tool} runs with an empty environment`, () => {
    assert.match(versionOf(join(root, 'bin', tool), {}), /\d+\.\d+\.\d+/)
  })
}

test('the checkout runs from a path with spaces', () => {
  const home = join(folder, 'a checkout')
  execFileSync('mkdir', [home])
  for (const part of ['bin', 'dist', 'package.json']) execFileSync('cp', ['-a', join(root, part), home])
  symlinkSync(join(root, 'node_modules'), join(home, 'node_modules'))
  for (const tool of tools) assert.match(versionOf(join(home, 'bin', tool)), /\d+\.\d+\.\d+/)
})

test('a missing build is told in one line', () => {
  const home = join(folder, 'unbuilt')
  execFileSync('mkdir', [home])
  execFileSync('cp', ['-a', join(root, 'bin'), home])
  const { status, stderr } = spawnSync(join(home, 'bin/nydusd'), [], { encoding: 'utf8' })
  assert.equal(status, 1)
  assert.match(stderr, /^nydusd: .*(npm run setup|npm ci).*\n$/)
})

test('a set-up says all that it says on stderr: stdout is for what was asked for, as `demo --json`', () => {
  const home = join(folder, 'fresh')
  mkdirSync(join(home, 'npm'), { recursive: true })
  for (const part of ['scripts', 'package.json', 'package-lock.json'])
    execFileSync('cp', ['-a', join(root, part), home])
  writeFileSync(join(home, 'npm/npm'), '#!/bin/sh\necho "added 54 packages"\nexit 1\n', { mode: 0o755 })
  const { stdout, stderr, status } = spawnSync('sh', ['scripts/setup.sh', 'demo'], {
    cwd: home,
    env: { ...process.env, PATH: `${join(home, 'npm')}:${process.env['PATH']}` },
    encoding: 'utf8',
  })
  assert.equal(status, 1)
  assert.equal(stdout, '')
  assert.match(stderr, /added 54 packages\n.*npm could not install/s)
})

test('npm i -g of the packed tarball brings all tools', async (t) => {
  execFileSync('npm', ['pack', '--ignore-scripts', '--pack-destination', folder], { cwd: root, stdio: 'ignore' })
  const tarball = readdirSync(folder).find((name) => name.endsWith('.tgz')) ?? ''
  assert.equal(tarball, `nydus-node-${version}.tgz`)
  const prefix = join(folder, 'global')
  const { status, stderr } = spawnSync(
    'npm',
    [
      'install',
      '--global',
      '--prefix',
      prefix,
      '--prefer-offline',
      '--ignore-scripts',
      '--no-audit',
      '--no-fund',
      join(folder, tarball),
    ],
    { cwd: folder, encoding: 'utf8', timeout: 180_000 },
  )
  if (status !== 0) return t.skip(`npm cannot install here: ${stderr.trim().split('\n').at(-1)}`)
  for (const tool of tools) assert.match(versionOf(join(prefix, 'bin', tool), {}), /\d+\.\d+\.\d+/)
  assert.ok(existsSync(join(prefix, 'lib/node_modules/nydus-node/dist')))
})
