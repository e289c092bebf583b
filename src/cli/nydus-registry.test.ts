import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, test } from 'node:test'

const TOOL = join(import.meta.dirname, 'nydus-registry.ts')

test('serves until SIGTERM, asks for the login, exits with 0', async () => {
  const root = await mkdtemp(join(tmpdir(), 'registry-cli-'))
  const child = spawn(
    process.execPath,
    [TOOL, 'serve', '--root', root, '--listen', '127.0.0.1:0', '--htpasswd', 'me:hush'],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  )
  try {
    const line = await new Promise<string>((resolve) =>
      child.stdout.once('data', (data: Buffer) => resolve(data.toString())),
    )
    const url = /on (http:\S+)\n/.exec(line)?.[1] ?? ''
    assert.equal((await fetch(`${url}/v2/`)).status, 401)
    const authorization = `Basic ${Buffer.from('me:hush').toString('base64')}`
    assert.equal((await fetch(`${url}/v2/`, { headers: { authorization } })).status, 200)
    const exited = new Promise<number | null>((resolve) => child.once('exit', resolve))
    child.kill('SIGTERM')
    assert.equal(await exited, 0)
  } finally {
    child.kill('SIGKILL')
    await rm(root, { recursive: true, force: true })
  }
})

describe('what keeps it from running is one line and exit code 1, or 2 for a wrong command line', () => {
  const cases: readonly (readonly [readonly string[], RegExp, number])[] = [
    [['serve'], /--root/, 2],
    [['serve', '--root', '/tmp/x', '--listen', 'nonsense'], /HOST:PORT/, 2],
    [['serve', '--root', '/tmp/x', '--token-auth'], /--htpasswd/, 1],
    [['serve', '--root', '/tmp/x', '--tls-cert', '/nowhere'], /--tls-key/, 1],
    [['serve', '--root', '/dev/null/x'], /cannot start the registry/, 1],
    [['nope'], /unknown command 'nope'/, 2],
    [['serve', '--root', '/tmp/x', '--nope'], /unknown option '--nope'/, 2],
  ]
  for (const [args, message, code] of cases) {
    test(args.join(' '), () => {
      const { status, stderr } = spawnSync(process.execPath, [TOOL, ...args], { encoding: 'utf8' })
      assert.equal(status, code)
      assert.match(stderr, message)
      assert.doesNotMatch(stderr, /\n {4}at /)
    })
  }
})
