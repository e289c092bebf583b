import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { closeSync, existsSync, mkdtempSync, openSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { test, type TestContext } from 'node:test'
import { DatagramReceiver } from '../kernel/testing/index.ts'
import { Holder } from './daemons/holder.ts'
import { keptNames, notifyManager, takeServiceManager } from './service-manager.ts'

const FUSE = '/dev/fuse'
const skip = existsSync(FUSE) && process.getuid?.() === 0 ? false : 'needs root and /dev/fuse'
const STATE = Buffer.from('the state of a session')
/** What a snapshotter does that finds a session; it is told the path of the place. */
const NEXT = `
  import { readFileSync, readlinkSync } from 'node:fs'
  import { Holder } from ${JSON.stringify(join(import.meta.dirname, 'daemons/holder.ts'))}
  import { keptNames, takeServiceManager } from ${JSON.stringify(join(import.meta.dirname, 'service-manager.ts'))}
  takeServiceManager()
  const [path] = process.argv.slice(-1)
  const warnings = []
  const holder = new Holder(path, { warn: (text) => warnings.push(text) })
  const found = await holder.find()
  const again = await holder.find()
  console.log(JSON.stringify({
    names: keptNames(),
    state: found?.state.toString(),
    devices: [found, again].map((one) => one && readlinkSync('/proc/self/fd/' + one.device)),
    holder: found && readlinkSync('/proc/' + readFileSync(path + '.holder', 'utf8') + '/fd/3'),
    left: Object.keys(process.env).filter((name) => /^(LISTEN|NOTIFY)_/.test(name)),
    warnings,
  }))
  holder.end()
  process.exit()`

/** Starts it as a service manager does: descriptors from 3 on, and its number in the environment. */
async function next(path: string, fds: readonly number[], env: NodeJS.ProcessEnv): Promise<Record<string, unknown>> {
  const program = [process.execPath, '--input-type=module', '-e', NEXT, path]
  const child = spawn('/bin/sh', ['-c', 'export LISTEN_PID=${WRONG_PID:-$$}; exec "$@"', 'sh', ...program], {
    stdio: ['ignore', 'pipe', 'inherit', ...fds],
    env: { ...process.env, ...env },
  })
  return JSON.parse(await text(child.stdout as Readable)) as Record<string, unknown>
}

async function place(t: TestContext): Promise<{ folder: string; manager: DatagramReceiver; device: number }> {
  const folder = mkdtempSync(join(tmpdir(), 'service-manager-'))
  const manager = new DatagramReceiver(join(folder, 'notify'))
  const device = openSync(FUSE, 'r+')
  t.after(() => {
    manager[Symbol.dispose]()
    closeSync(device)
    rmSync(folder, { recursive: true })
  })
  process.env['NOTIFY_SOCKET'] = join(folder, 'notify')
  takeServiceManager()
  return { folder, manager, device }
}

test('the service manager keeps a session for the day on which all processes of the service are killed', {
  skip,
}, async (t) => {
  const { folder, manager, device } = await place(t)
  assert.equal(process.env['NOTIFY_SOCKET'], undefined)
  const path = join(folder, 'daemon-1')
  const warnings: string[] = []
  const log = {
    info: () => undefined,
    warn: (line: string) => warnings.push(line),
    error: () => undefined,
    debug: () => undefined,
  }
  const holder = new Holder(path, log)
  await holder.keep({ state: Buffer.from('older'), device })
  await holder.keep({ state: STATE, device })
  const kept = await manager.nextWithDescriptors()
  assert.equal(kept.text, 'FDSTORE=1\nFDNAME=daemon-1\n')
  assert.deepEqual(
    kept.descriptors.map((fd) => readlinkSync(`/proc/self/fd/${fd}`)),
    [FUSE],
  )
  notifyManager('READY=1', 'serving', log)
  assert.equal(await manager.next(), 'READY=1\nSTATUS=serving\n', 'it was asked to keep it once')

  process.kill(Number(readFileSync(`${path}.holder`, 'utf8')), 'SIGKILL')
  const none = openSync('/dev/null', 'r')
  t.after(() => [none, ...kept.descriptors].forEach((fd) => closeSync(fd)))
  const given = [none, ...kept.descriptors]
  const env = { NOTIFY_SOCKET: join(folder, 'notify'), LISTEN_FDS: '3', LISTEN_FDNAMES: 'stranger:daemon-1:absent' }
  assert.deepEqual(await next(path, given, { ...env, WRONG_PID: '1' }), {
    names: [],
    devices: [null, null],
    left: [],
    warnings: [],
  })
  assert.deepEqual(await manager.next(), 'FDSTOREREMOVE=1\nFDNAME=daemon-1\n')

  await holder.keep({ state: STATE, device })
  process.kill(Number(readFileSync(`${path}.holder`, 'utf8')), 'SIGKILL')
  assert.deepEqual(await next(path, given, env), {
    names: ['daemon-1'],
    state: String(STATE),
    devices: [FUSE, FUSE],
    holder: FUSE,
    left: [],
    warnings: [],
  })
  assert.equal(await manager.next(), 'FDSTOREREMOVE=1\nFDNAME=daemon-1\n', 'when it ends')
  assert.deepEqual(readdirSync(folder), ['notify'])
  assert.deepEqual(warnings, [])
})

test('a service manager that is gone is told of in the log, and nothing else', { skip }, async (t) => {
  const { folder, device } = await place(t)
  rmSync(join(folder, 'notify'))
  const warnings: string[] = []
  const log = {
    info: () => undefined,
    warn: (line: string) => warnings.push(line),
    error: () => undefined,
    debug: () => undefined,
  }
  const holder = new Holder(join(folder, 'daemon-2'), log)
  await holder.keep({ state: STATE, device })
  const found = await holder.find()
  assert.deepEqual(found?.state, STATE)
  closeSync(found.device)
  holder.end()
  assert.match(
    warnings.join(),
    /^cannot tell the service manager FDSTORE=1: .*ENOENT.*,cannot tell the service manager FDSTOREREMOVE=1/,
  )
  assert.deepEqual(keptNames(), [])
})
