/** What a daemon and its keeper must not touch: processes, mounts and files of others. */
import assert from 'node:assert/strict'
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { memoryFile, mountFuse, readMountInfo, unmount, whyNoFuse } from '../../kernel/index.ts'
import { Log } from '../log.ts'
import { CARRIED_BLOBS, carriedImage, Scratch } from '../testing.ts'
import { Keeper } from './keeper.ts'
import { KeptFile } from './kept-file.ts'
import { processesIn } from './test-processes.ts'

const skip = whyNoFuse() ?? false
const IMAGE = carriedImage('v6-tar-none-c64k')
const PROGRAM = join(import.meta.dirname, '../../cli/nydusd/index.ts')

/** A daemon as a keeper starts it. `script` runs first, in the process that is its parent. */
function startKept(scratch: Scratch, device: number, file: number, value: string): ChildProcess {
  const script = `NYDUSD_KEPT=${value} "$@"; echo "ended $?"`
  const command = [process.execPath, PROGRAM, '--mountpoint', scratch.mnt, '--apisock', join(scratch.path, 'api.sock')]
  return spawn('/bin/sh', ['-c', script, 'sh', ...command], { stdio: ['ignore', 'pipe', 'pipe', device, file] })
}

async function outputOf(child: ChildProcess): Promise<string> {
  let text = ''
  for (const stream of [child.stdout, child.stderr]) stream?.on('data', (part: Buffer) => (text += part.toString()))
  await once(child, 'close')
  return text
}

test('a daemon whose keeper is gone leaves the process alone that is its parent since', {
  skip,
  timeout: 180_000,
}, async () => {
  await using scratch = new Scratch()
  const device = mountFuse(scratch.mnt, { source: 'rafs', readOnly: true, maxReadBytes: 1 << 20 })
  const file = memoryFile('nydusd state')
  const script = `
    import { Keeper, takeKept } from ${JSON.stringify(join(import.meta.dirname, 'keeper.ts'))}
    const kept = takeKept()
    new Keeper({ device: 3, kept, state: undefined, log: undefined }).end()
    console.log('keeper', kept.keeper)`
  const child = spawn(
    '/bin/sh',
    ['-c', 'NYDUSD_KEPT=1:1 "$0" --input-type=module -e "$1"; echo alive', process.execPath, script],
    {
      stdio: ['ignore', 'pipe', 'pipe', device, file],
    },
  )
  const text = await outputOf(child)
  for (const fd of [device, file]) closeSync(fd)
  assert.match(text, /keeper 1\nalive/)
})

test('who gives up detaches the mount, also when there is nothing to go on with', {
  skip,
  timeout: 180_000,
}, async () => {
  await using scratch = new Scratch()
  const device = mountFuse(scratch.mnt, { source: 'rafs', readOnly: true, maxReadBytes: 1 << 20 })
  const file = memoryFile('nydusd state')
  const text = outputOf(startKept(scratch, device, file, '10:$$'))
  for (const fd of [device, file]) closeSync(fd)
  assert.match(await text, /is given up and detached[^]*ended 0/)
  assert.ok(!(await readMountInfo()).some(({ at }) => at === scratch.mnt))
})

test('a daemon that comes back when another one has mounted there leaves at once', {
  skip,
  timeout: 180_000,
}, async () => {
  await using scratch = new Scratch()
  const image = ['--bootstrap', IMAGE.bootstrap, '--localfs-dir', CARRIED_BLOBS]
  const first = await scratch.nydusd(image, { NYDUSD_KEEPER: 'on' })
  for (let tries = 0; processesIn(scratch.path, 'keeper').length === 0 && tries < 6000; tries++) await sleep(10)
  await sleep(100) // the state is in its file before the keeper starts
  const [keeper = 0] = processesIn(scratch.path, 'keeper')
  process.kill(keeper, 'SIGSTOP')
  first.child.kill('SIGKILL')
  await unmount(scratch.mnt, true)
  const socket = join(scratch.path, 'other.sock')
  const other = await scratch.nydusd([...image, '--no-keeper'], {}, socket)
  process.kill(keeper, 'SIGCONT')
  for (let tries = 0; processesIn(scratch.path, 'keeper').length > 0 && tries < 6000; tries++) await sleep(10)
  assert.deepEqual(processesIn(scratch.path, 'daemon'), [other.child.pid])
  assert.match(first.log, /was unmounted or aborted meanwhile/)
  assert.doesNotMatch(first.log, /took over/)
  await promisify(execFile)('cat', [join(scratch.mnt, 'sizes/65536')])
})

test('a state that comes after the end is written nowhere', async () => {
  await using scratch = new Scratch()
  const state = Promise.withResolvers<Buffer>()
  const log = new Log({ level: 'error', file: undefined, rotationBytes: 0 })
  const file = new KeptFile(memoryFile('nydusd state'))
  const kept = { starts: 1, keeper: 1, device: 0, file }
  const keeper = new Keeper({ device: 0, kept, state: () => state.promise, log })
  const update = keeper.update()
  keeper.end()
  const path = join(scratch.path, 'data')
  writeFileSync(path, 'bytes of somebody else')
  const fd = openSync(path, 'r+')
  assert.equal(fd, file.fd) // the number is free again
  state.resolve(Buffer.from('logins'))
  await update
  closeSync(fd)
  assert.equal(readFileSync(path, 'utf8'), 'bytes of somebody else')
})

test('a daemon that was unmounted while it slept leaves the mount alone that another one has made there', {
  skip,
  timeout: 180_000,
}, async () => {
  await using scratch = new Scratch()
  const image = ['--bootstrap', IMAGE.bootstrap, '--localfs-dir', CARRIED_BLOBS]
  const first = await scratch.nydusd(image)
  first.child.kill('SIGSTOP')
  await unmount(scratch.mnt, true)
  await scratch.nydusd(image, {}, join(scratch.path, 'other.sock')) // its session may have the same number
  first.child.kill('SIGCONT')
  await once(first.child, 'close')
  assert.match(first.log, /nydusd stops: .* was unmounted/)
  assert.ok((await readMountInfo()).some(({ at }) => at === scratch.mnt))
  await promisify(execFile)('cat', [join(scratch.mnt, 'sizes/65536')])
})
