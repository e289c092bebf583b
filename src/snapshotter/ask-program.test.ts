import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { askProgram, type ProgramCall } from './ask-program.ts'

const shell = (text: string, change: Partial<ProgramCall> = {}): Promise<string> =>
  askProgram({
    command: '/bin/sh',
    args: ['-c', text],
    env: { PATH: '/usr/bin:/bin' },
    input: '',
    timeoutMs: 60_000,
    maxBytes: 1000,
    signal: new AbortController().signal,
    ...change,
  })

const isThere = (pid: number): boolean =>
  existsSync(`/proc/${pid}`) && !/^State:\tZ/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))

test('what a program prints is its answer; what it is given it need not read', async () => {
  assert.equal(await shell('read -r line; echo "got $line"', { input: 'this\n' }), 'got this\n')
  assert.equal(await shell('echo 1', { input: 'x'.repeat(10_000_000) }), '1\n')
})

test('failures name the program and show nothing that it printed', async () => {
  const cases: readonly (readonly [string, Partial<ProgramCall>, string, RegExp])[] = [
    ['echo secret; echo secret >&2; exit 7', {}, 'UNAVAILABLE', /^\/bin\/sh failed with exit code 7$/],
    ['kill -9 $$', {}, 'UNAVAILABLE', /was ended by SIGKILL/],
    ['while :; do echo secret; done', {}, 'UNAVAILABLE', /printed more than 1000 bytes/],
    ['sleep 50', { timeoutMs: 300 }, 'UNAVAILABLE', /did not answer within 300 ms/],
    ['', { command: '/none/such' }, 'BAD_CONFIG', /cannot start \/none\/such: there is no such file/],
    ['', { command: '/etc' }, 'BAD_CONFIG', /cannot start \/etc: EACCES/],
    ['', { signal: AbortSignal.abort() }, 'CANCELLED', /nobody waits/],
  ]
  for (const [text, change, code, message] of cases)
    await assert.rejects(shell(text, change), (error: Error & { code: string }) => {
      assert.equal(error.code, code)
      assert.match(error.message, message)
      assert.ok(!error.message.includes('secret'))
      return true
    })
})

test('who gives up ends the program and its children; one that left them keeps nobody waiting', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'ask-'))
  try {
    const abort = new AbortController()
    const pids = join(folder, 'pids')
    const asked = shell(`sleep 100 & echo $$ $! > ${pids}.new; mv ${pids}.new ${pids}; wait`, { signal: abort.signal })
    while (!existsSync(pids)) await new Promise((resolve) => setTimeout(resolve, 10))
    abort.abort()
    await assert.rejects(asked, { code: 'CANCELLED' })
    for (const pid of readFileSync(pids, 'utf8').trim().split(' ').map(Number))
      while (isThere(pid)) await new Promise((resolve) => setTimeout(resolve, 10))
    // It holds the pipe, in a session of its own.
    await assert.rejects(
      shell(`setsid sleep 5 & echo $! > ${folder}/left; exit 0`, { timeoutMs: 300 }),
      /did not answer/,
    )
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})
