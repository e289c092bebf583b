import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { whyNoFuse } from '../kernel/index.ts'
import { Scratch } from './testing.ts'

const skip = whyNoFuse() ?? false

/** Loaded before nydusd: it gets the signal while its first line is written, before it can do anything else. A process without a handler is dead then. */
const SIGNAL_AT_FIRST_LINE = `
  const fs = require('node:fs')
  const { writeSync } = fs
  let isFirst = require('node:worker_threads').isMainThread
  fs.writeSync = (file, ...rest) => {
    const written = writeSync(file, ...rest)
    if (file === 2 && isFirst) {
      isFirst = false
      process.kill(process.pid, 'SIGTERM')
    }
    return written
  }
  require('node:module').syncBuiltinESMExports()
`

for (const [what, args] of [
  ['a mount', (scratch: Scratch) => ['--mountpoint', scratch.mnt]],
  ['a service', (scratch: Scratch) => ['singleton', '--apisock', join(scratch.path, 'api.sock')]],
] as const)
  test(`${what} that gets SIGTERM while it writes its first line ends by its own hand`, {
    skip,
    timeout: 180_000,
  }, async () => {
    await using scratch = new Scratch()
    const preload = join(scratch.path, 'signal.cjs')
    writeFileSync(preload, SIGNAL_AT_FIRST_LINE)
    const program = ['--disable-warning=ExperimentalWarning', join(import.meta.dirname, '../cli/nydusd/index.ts')]
    const child = spawn(process.execPath, ['--require', preload, ...program, ...args(scratch)], {
      stdio: ['ignore', 'ignore', 'pipe'],
      env: { ...process.env, NYDUSD_KEEPER: 'off' },
    })
    let log = ''
    child.stderr.on('data', (part: Buffer) => (log += part.toString()))
    const [code, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null]
    assert.match(log, /Program Version/)
    assert.deepEqual([code, signal], [0, null], log)
  })
