import assert from 'node:assert/strict'
import { closeSync, copyFileSync, mkdirSync, readdirSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { memoryFile, readMountInfo, unmount, whyNoFuse } from '../../kernel/index.ts'
import { CARRIED_BLOBS, callApi, differencesSeenApart } from '../testing.ts'
import { KeptFile } from './kept-file.ts'
import { IMAGE, Kept, until } from './test-kept.ts'

const skip = whyNoFuse() ?? false
/** Node has no name for it. */
const ESTALE = 116

/** In another process, which has nothing else open. */
async function read(path: string): Promise<Buffer> {
  return (await promisify(execFile)('cat', ['--', path], { encoding: 'buffer', maxBuffer: 1 << 30 })).stdout
}

test('a killed daemon comes back on the same socket, with its mounts and settings; nothing is left at the end', {
  skip,
  timeout: 180_000,
}, async () => {
  await using kept = new Kept()
  const first = await kept.start()
  await kept.mount('/a')
  await callApi(kept.socket, 'PUT', '/api/v1/config?id=/a', '{"registry_auth":"eDp5"}')
  const { text: settings } = await callApi(kept.socket, 'GET', '/api/v1/config?id=/a')
  const file = join(kept.mnt, 'a/sizes/65536')
  const bytes = await read(file)
  await kept.keeper()
  first.child.kill('SIGKILL')
  const reading = read(join(kept.mnt, 'a/dup/a')) // nobody serves
  const second = await kept.next(first.child.pid ?? 0)
  await reading
  assert.deepEqual(await read(file), bytes)
  assert.deepEqual(await differencesSeenApart(join(kept.mnt, 'a'), IMAGE.tree), [])
  assert.equal((await callApi(kept.socket, 'GET', '/api/v1/config?id=/a')).text, settings)
  await kept.mount('/b') // what a daemon that was brought back mounts is kept too
  process.kill(second, 'SIGKILL')
  const third = await kept.next(second)
  assert.deepEqual(await read(join(kept.mnt, 'b/sizes/65536')), bytes)
  process.kill(third, 'SIGTERM')
  await kept.isGone()
  assert.ok(!(await readMountInfo()).some(({ at }) => at === kept.mnt))
  assert.equal(first.log.match(/its keeper started this one/g)?.length, 2)
})

test('whoever is told that a daemon runs may rely on its keeper', { skip, timeout: 180_000 }, async () => {
  await using kept = new Kept()
  for (let time = 0; time < 3; time++) {
    rmSync(kept.socket, { force: true })
    const starting = kept.start()
    let keepers: number[] | undefined
    while (keepers === undefined) {
      await sleep(1)
      keepers = await callApi(kept.socket, 'GET', '/api/v1/daemon').then(
        () => kept.pids('sh'),
        () => undefined,
      )
    }
    const { child } = await starting
    assert.equal(keepers.length, 1)
    child.kill('SIGTERM')
    await kept.isGone()
  }
})

test('a keeper that is killed is replaced, by the first daemon and by those that were brought back; without both, the next start cleans up', {
  skip,
  timeout: 180_000,
}, async () => {
  await using kept = new Kept()
  const first = await kept.start()
  await kept.mount('/')
  const bytes = await read(join(kept.mnt, 'sizes/65536'))
  const keeper = await kept.keeper()
  await sleep(1000) // one that ends at once is replaced after a pause only
  process.kill(keeper, 'SIGKILL')
  const other = await kept.keeper(keeper)
  first.child.kill('SIGKILL')
  const second = await kept.next(first.child.pid ?? 0)
  assert.deepEqual(await read(join(kept.mnt, 'sizes/65536')), bytes)
  process.kill(other, 'SIGKILL')
  const third = await kept.keeper(other)
  process.kill(third, 'SIGKILL')
  process.kill(second, 'SIGKILL')
  await kept.isGone()
  const fresh = await kept.start(['--no-keeper', '--bootstrap', IMAGE.bootstrap, '--localfs-dir', CARRIED_BLOBS])
  assert.match(fresh.log, /has the mount of a daemon that is gone; it is detached/)
  assert.deepEqual(await read(join(kept.mnt, 'sizes/65536')), bytes)
  assert.equal(kept.pids('sh').length, 0)
})

for (const end of ['exit by the API', 'an unmount from outside'] as const)
  test(`${end} ends the keeper too`, { skip, timeout: 180_000 }, async () => {
    await using kept = new Kept()
    await kept.start()
    await kept.keeper()
    if (end === 'exit by the API') await callApi(kept.socket, 'PUT', '/api/v1/daemon/exit')
    else await unmount(kept.mnt)
    await kept.isGone()
    await assert.rejects(promisify(execFile)('ls', [join(kept.mnt, 'x')]))
  })

test('a deduplication database that is damaged when the daemon dies does not keep it from coming back', {
  skip,
  timeout: 180_000,
}, async () => {
  await using kept = new Kept()
  const database = join(kept.path, 'cas.db')
  const first = await kept.start(['--dedup-db', database])
  await kept.mount('/a')
  await kept.keeper()
  for (const suffix of ['', '-wal', '-shm']) rmSync(database + suffix, { force: true })
  writeFileSync(database, 'this is no database'.repeat(99))
  first.child.kill('SIGKILL')
  await kept.next(first.child.pid ?? 0)
  assert.equal((await read(join(kept.mnt, 'a/sizes/65536'))).length, 65_536)
  assert.match(first.log, /no deduplication from now on/)
})

test('an image that cannot be opened again gives errors, never an empty directory; the others are served', {
  skip,
  timeout: 180_000,
}, async () => {
  await using scratch = new Kept()
  const daemon = await scratch.start()
  const source = join(scratch.path, 'goes.boot')
  copyFileSync(IMAGE.bootstrap, source)
  await scratch.mount('/goes', { source })
  await scratch.mount('/stays')
  await scratch.keeper()
  rmSync(source)
  const pid = daemon.child.pid ?? 0
  process.kill(pid, 'SIGKILL')
  const next = await until(async () => {
    const { text } = await callApi(scratch.socket, 'GET', '/api/v1/daemon')
    return text.includes('"/goes"') ? undefined : text
  })
  assert.match(next, /"\/stays"/)
  const inGoes = (): unknown => readdirSync(join(scratch.mnt, 'goes'))
  await assert.rejects(async () => inGoes(), { errno: -ESTALE })
  readdirSync(scratch.mnt, { withFileTypes: true })
  await assert.rejects(async () => inGoes(), { errno: -ESTALE })
  assert.deepEqual(await differencesSeenApart(join(scratch.mnt, 'stays'), IMAGE.tree), [])
  copyFileSync(IMAGE.bootstrap, source)
  await scratch.mount('/goes', { source })
  assert.deepEqual(await differencesSeenApart(join(scratch.mnt, 'goes'), IMAGE.tree), [])
})

test('a directory that is shared in the place of a lost image has it for good: the next daemon finds the directory alone', {
  skip,
  timeout: 180_000,
}, async () => {
  await using kept = new Kept()
  const first = await kept.start()
  const source = join(kept.path, 'goes.boot')
  copyFileSync(IMAGE.bootstrap, source)
  await kept.mount('/goes', { source })
  await kept.keeper()
  rmSync(source)
  first.child.kill('SIGKILL')
  const second = await kept.next(first.child.pid ?? 0)
  const host = join(kept.path, 'host')
  mkdirSync(host)
  writeFileSync(join(host, 'file'), 'of the host')
  await kept.mount('/goes', { fs_type: 'passthrough_fs', source: host, config: '' })
  const file = join(kept.mnt, 'goes/file')
  assert.equal(String(await read(file)), 'of the host')
  await kept.keeper()
  process.kill(second, 'SIGKILL')
  await kept.next(second)
  assert.equal(String(await read(file)), 'of the host')
})

test('the newest whole state is read, whatever was being written; restarts run out and come back', () => {
  const file = new KeptFile(memoryFile('state'))
  assert.throws(() => file.read(), { code: 'HANDOVER' })
  for (const text of ['one', 'a longer one', 'x'])
    for (const state of [Buffer.from(text)]) {
      file.write(state)
      assert.deepEqual(file.read(), state)
    }
  writeSync(file.fd, Buffer.alloc(100, 0xff), 0, 100, 1 << 30) // half a state, in the place that is not announced
  assert.deepEqual(new KeptFile(file.fd).read(), Buffer.from('x'))
  assert.equal(file.takeRestart(), 299)
  for (let left = 298; left >= -1; left--) assert.equal(file.takeRestart(), left)
  assert.deepEqual(file.read(), Buffer.from('x'))
  closeSync(file.fd)
})
