/** Files that never end or never begin: nothing waits for them. */
import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { whyNoFuse } from '../kernel/index.ts'
import { CARRIED_BLOBS, carriedImage, localConfig, runNydusd, Scratch } from './testing.ts'

const skip = whyNoFuse() ?? false

function fifoIn(scratch: Scratch): string {
  const path = join(scratch.path, 'fifo')
  execFileSync('mkfifo', [path])
  return path
}

test('a FIFO in the place of a bootstrap or a log file is refused at once', { skip, timeout: 180_000 }, async () => {
  await using scratch = new Scratch()
  const fifo = fifoIn(scratch)
  const config = join(scratch.path, 'config.json')
  writeFileSync(config, localConfig(CARRIED_BLOBS, scratch.cache))
  const bootstrap = await runNydusd(['--mountpoint', scratch.mnt, '--bootstrap', fifo, '--config', config])
  assert.equal(bootstrap.code, 1)
  assert.match(bootstrap.stderr, /cannot read bootstrap .*fifo: it is no file/)
  execFileSync('mkfifo', [`${fifo}.log`])
  const log = await runNydusd(['--mountpoint', scratch.mnt, '--log-file', `${fifo}.log`, '--apisock', `${fifo}.sock`])
  assert.equal(log.code, 1)
})

test('a mount of a FIFO by the API is refused, and the next mount is made', { skip, timeout: 180_000 }, async () => {
  await using scratch = new Scratch()
  const fifo = fifoIn(scratch)
  const daemon = await scratch.nydusd([])
  const mount = (path: string, source: string): ReturnType<typeof daemon.api> =>
    daemon.api('POST', `/api/v1/mount?mountpoint=${path}`, {
      source,
      fs_type: 'rafs',
      config: localConfig(CARRIED_BLOBS, scratch.cache),
    })
  assert.notEqual((await mount('/a', fifo)).status, 204)
  const { bootstrap } = carriedImage('v6-tar-none-c64k')
  assert.equal((await mount('/b', bootstrap)).status, 204)
})

test('SIGTERM ends a start that waits for its configuration', { skip, timeout: 180_000 }, async () => {
  await using scratch = new Scratch()
  const { bootstrap } = carriedImage('v6-tar-none-c64k')
  const program = ['--disable-warning=ExperimentalWarning', join(import.meta.dirname, '../cli/nydusd/index.ts')]
  const args = ['--mountpoint', scratch.mnt, '--bootstrap', bootstrap, '--config', fifoIn(scratch)]
  const child = spawn(process.execPath, [...program, ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
  const ended = once(child, 'close')
  let log = ''
  child.stderr.on('data', (part: Buffer) => (log += part.toString()))
  while (!log.includes('Program Version')) await once(child.stderr, 'data')
  child.kill('SIGTERM')
  assert.deepEqual(await ended, [1, null])
  assert.match(log, /before it had started/)
})

test('a socket path that is too long is refused with the limit', { skip, timeout: 180_000 }, async () => {
  await using scratch = new Scratch()
  const end = await runNydusd(['--mountpoint', scratch.mnt, '--apisock', join(scratch.path, 'a'.repeat(110))])
  assert.equal(end.code, 1)
  assert.match(end.stderr, /a socket's has at most 107; give a shorter --apisock/)
})
