import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  copyFileSync,
  existsSync,
  openSync,
  closeSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import pLimit from 'p-limit'
import { mountTmpfs, readMountInfo, unmount, whyNoFuse } from '../kernel/index.ts'
import {
  CARRIED_BLOBS,
  carriedImage,
  carriedImages,
  contextsIn,
  localConfig,
  runNydusd,
  Scratch,
  treeDifferences,
} from './testing.ts'

const skip = whyNoFuse() ?? false
const IMAGE = carriedImage('v6-tar-none-c64k')

async function isMounted(at: string): Promise<boolean> {
  return (await readMountInfo()).some((mount) => mount.at === at)
}

function args(scratch: Scratch, more: Record<string, unknown> = {}): string[] {
  const config = join(scratch.path, 'config.json')
  writeFileSync(config, localConfig(CARRIED_BLOBS, scratch.cache, more))
  return ['--bootstrap', IMAGE.bootstrap, '--config', config]
}

test('images of the original show their trees, mounted beside one another', { skip, timeout: 180_000 }, async () => {
  await using scratch = new Scratch()
  const daemon = await scratch.nydusd([])
  const config = localConfig(CARRIED_BLOBS, scratch.cache)
  for (const image of carriedImages()) {
    const source = image.isInlined ? join(scratch.path, image.blobs[0] ?? '') : image.bootstrap
    if (image.isInlined) copyFileSync(image.bootstrap, source)
    const answer = await daemon.api('POST', `/api/v1/mount?mountpoint=/a/${image.id}`, {
      source,
      fs_type: 'rafs',
      config,
    })
    assert.deepEqual([answer.status, answer.text], [204, ''], image.id)
  }
  for (const image of carriedImages())
    assert.deepEqual(treeDifferences(join(scratch.mnt, 'a', image.id), image.tree), [], image.id)
  assert.deepEqual(
    readdirSync(join(scratch.mnt, 'a')).sort(),
    carriedImages()
      .map(({ id }) => id)
      .sort(),
  )
  assert.equal(await daemon.stop(), 0)
})

test('a blob that carries its bootstrap is mounted as it is', { skip, timeout: 180_000 }, async () => {
  await using scratch = new Scratch()
  const image = carriedImages().find(({ isInlined }) => isInlined) ?? assert.fail()
  writeFileSync(join(scratch.path, 'config.json'), localConfig(CARRIED_BLOBS, scratch.cache))
  await scratch.nydusd(['--bootstrap', join(CARRIED_BLOBS, image.blobs[0] ?? ''), '--config', 'config.json'])
  assert.deepEqual(treeDifferences(scratch.mnt, image.tree), [])
})

test('names come and go with mounts, also those that were asked for before', { skip, timeout: 180_000 }, async () => {
  await using scratch = new Scratch()
  const daemon = await scratch.nydusd([])
  const place = join(scratch.mnt, 'x')
  const config = localConfig(CARRIED_BLOBS, scratch.cache)
  const mount = { source: IMAGE.bootstrap, fs_type: 'rafs', config }
  for (let round = 0; round < 3; round++) {
    assert.equal(existsSync(join(place, 'sizes')), false)
    assert.equal((await daemon.api('POST', '/api/v1/mount?mountpoint=/x', mount)).status, 204)
    assert.equal(readFileSync(join(place, 'sizes/4096')).length, 4096)
    assert.equal((await daemon.api('DELETE', '/api/v1/mount?mountpoint=/x')).status, 204)
    assert.deepEqual(readdirSync(place), [])
  }
  // the root of the session
  assert.equal((await daemon.api('POST', '/api/v1/mount?mountpoint=/', mount)).status, 204)
  assert.equal(readFileSync(join(scratch.mnt, 'sizes/4096')).length, 4096)
  assert.equal(existsSync(join(scratch.mnt, 'x')), false)
  assert.equal((await daemon.api('DELETE', '/api/v1/mount?mountpoint=/')).status, 204)
  assert.deepEqual(readdirSync(scratch.mnt), ['x'])
  assert.equal(existsSync(join(scratch.mnt, 'sizes')), false)
})

test('300 mounts and unmounts in one session leave nothing open', { skip, timeout: 180_000 }, async () => {
  await using scratch = new Scratch()
  const daemon = await scratch.nydusd(['--log-level', 'error'])
  const mount = {
    source: carriedImage('v6-src-gnu-long').bootstrap,
    fs_type: 'rafs',
    config: localConfig(CARRIED_BLOBS, scratch.cache),
  }
  const descriptors = (): number => readdirSync(`/proc/${daemon.child.pid}/fd`).length
  let before = 0
  for (let round = 0; round < 300; round++) {
    assert.equal((await daemon.api('POST', `/api/v1/mount?mountpoint=/m${round % 7}`, mount)).status, 204)
    assert.equal(statSync(join(scratch.mnt, `m${round % 7}`)).isDirectory(), true)
    assert.equal((await daemon.api('DELETE', `/api/v1/mount?mountpoint=/m${round % 7}`)).status, 204)
    if (round === 10) before = descriptors()
  }
  assert.equal(descriptors(), before)
})

test('one read of a small file is one FUSE read, counted once', { skip, timeout: 180_000 }, async () => {
  await using scratch = new Scratch()
  const daemon = await scratch.nydusd(args(scratch))
  readFileSync(join(scratch.mnt, 'sizes/4096'))
  const first = await daemon.json('/api/v1/metrics')
  assert.equal(first['data_read'], 4096)
  assert.equal((first['fop_hits'] as number[])[4], 1)
  readFileSync(join(scratch.mnt, 'sizes/4097'))
  const second = await daemon.json('/api/v1/metrics')
  assert.equal(second['data_read'], 8193)
  assert.equal((second['fop_hits'] as number[])[4], 2)
})

const LISTS: ReadonlyArray<readonly [string, string | undefined, number]> = [
  ['everything, as the configuration says', undefined, 42],
  ['everything, as the list says', '/\n', 42],
  ['the files of a list', '/sizes\n\n  /dup/a  \n/not/there\n', 7],
]
for (const [what, list, chunks] of LISTS)
  test(`prefetch brings ${what}, before anybody reads`, { skip, timeout: 180_000 }, async () => {
    await using scratch = new Scratch()
    const paths = join(scratch.path, 'list')
    if (list !== undefined) writeFileSync(paths, list)
    const prefetch = { enable: true, prefetch_all: list === undefined, threads_count: 2 }
    const listed = list === undefined ? [] : ['--prefetch-files', paths]
    const daemon = await scratch.nydusd([...args(scratch, { fs_prefetch: prefetch }), ...listed])
    const fetched = async (): Promise<unknown> => (await daemon.json('/api/v1/metrics/blobcache'))['entries_count']
    while ((await fetched()) !== chunks) await sleep(20)
    await contextsIn(scratch.cache)
    const requests = async (): Promise<unknown> => (await daemon.json('/api/v1/metrics/backend'))['read_count']
    const after = await requests()
    assert.equal(readFileSync(join(scratch.mnt, 'sizes/65536')).length, 65_536)
    assert.equal(await requests(), after)
    assert.deepEqual(treeDifferences(scratch.mnt, IMAGE.tree), [])
    if (chunks === 42) assert.equal(await requests(), after)
  })

for (const signal of ['SIGTERM', 'SIGINT'] as const)
  test(`${signal} unmounts, removes the socket and ends with 0`, { skip, timeout: 180_000 }, async () => {
    await using scratch = new Scratch()
    const daemon = await scratch.nydusd(args(scratch))
    assert.equal(statSync(daemon.socket).mode & 0o777, 0o600)
    daemon.child.kill(signal)
    assert.equal(await daemon.ended(), 0)
    assert.equal(await isMounted(scratch.mnt), false)
    assert.equal(existsSync(daemon.socket), false)
  })

test('a mount in use is detached at the end', { skip, timeout: 180_000 }, async () => {
  await using scratch = new Scratch()
  const daemon = await scratch.nydusd(args(scratch))
  const fd = openSync(join(scratch.mnt, 'sizes/4096'), 'r')
  assert.equal(await daemon.stop(), 0)
  assert.equal(await isMounted(scratch.mnt), false)
  assert.throws(() => closeSync(fd), { code: 'ENOTCONN' }) // nobody answers its users any more
})

test('an unmount from outside ends the daemon, exit by the API leaves the mount', {
  skip,
  timeout: 180_000,
}, async () => {
  await using scratch = new Scratch()
  const first = await scratch.nydusd(args(scratch))
  await unmount(scratch.mnt)
  assert.equal(await first.ended(), 0)
  const second = await scratch.nydusd(args(scratch))
  assert.equal((await second.api('PUT', '/api/v1/daemon/exit')).status, 204)
  assert.equal(await second.ended(), 0)
  assert.equal(await isMounted(scratch.mnt), true)
  assert.equal(existsSync(second.socket), false)
})

test('after kill -9 the next daemon takes over mount point, socket and cache, and the bytes are right', {
  skip,
  timeout: 180_000,
}, async () => {
  await using scratch = new Scratch()
  for (let round = 0; round < 3; round++) {
    const daemon = await scratch.nydusd(args(scratch, { fs_prefetch: { enable: true } }))
    const tar = spawn('tar', ['cf', '-', '-C', scratch.mnt, '.'], { stdio: ['ignore', 'ignore', 'ignore'] })
    const gone = once(tar, 'close')
    await daemon.kill()
    await gone
  }
  const daemon = await scratch.nydusd(args(scratch))
  assert.match(daemon.log, /the mount of a daemon that is gone/)
  assert.deepEqual(treeDifferences(scratch.mnt, IMAGE.tree), [])
})

test('a full cache is told once, and reads go on with the right bytes', { skip, timeout: 180_000 }, async () => {
  await using scratch = new Scratch()
  await mountTmpfs(scratch.cache, 64 * 1024)
  try {
    const daemon = await scratch.nydusd(args(scratch))
    assert.deepEqual(treeDifferences(scratch.mnt, IMAGE.tree), [])
    await daemon.stop()
    assert.equal(daemon.log.split('takes no more').length - 1, 1)
  } finally {
    await unmount(scratch.cache, true)
  }
})

test('a dead mount whose root the kernel remembers is known to be dead', { skip, timeout: 180_000 }, async () => {
  await using scratch = new Scratch()
  const first = await scratch.nydusd(args(scratch))
  statSync(scratch.mnt)
  await first.kill()
  statSync(scratch.mnt) // still answered, from the kernel's memory
  const second = await scratch.nydusd(args(scratch))
  assert.match(second.log, /the mount of a daemon that is gone/)
})

test('what keeps it from starting is one line that says what to do, and leaves nothing', {
  skip,
  timeout: 400_000,
}, async () => {
  await using scratch = new Scratch()
  const [bootstrap, config] = [IMAGE.bootstrap, join(scratch.path, 'config.json')]
  const good = args(scratch)
  const mnt = ['--mountpoint', scratch.mnt]
  const briefly = scratch.folder('briefly') // mounted for a moment, which the others would see
  const damaged = join(scratch.path, 'damaged')
  writeFileSync(damaged, readFileSync(bootstrap).subarray(0, 5000))
  const unusable = join(scratch.path, 'unusable.json')
  writeFileSync(unusable, JSON.stringify({ version: 2, backend: { type: 'localdisk' }, cache: {}, rafs: {} }))
  const cases: ReadonlyArray<readonly [readonly string[], number, RegExp]> = [
    [['--mountpoint', join(scratch.path, 'absent')], 1, /existing directory/],
    [['--mountpoint', bootstrap], 1, /not a directory/],
    [[...mnt, '--bootstrap', bootstrap], 1, /--localfs-dir/],
    [[...mnt, '--bootstrap', join(scratch.path, 'absent'), '--config', config], 1, /ENOENT/],
    [[...mnt, '--bootstrap', damaged, '--config', config], 1, /truncated/],
    [[...mnt, '--bootstrap', bootstrap, '--config', unusable], 1, /backend\.localdisk/],
    [[...mnt, '--bootstrap', bootstrap, '--config', join(scratch.path, 'absent')], 1, /--config/],
    [[...mnt, '--bootstrap', bootstrap, '--config', '/dev/zero'], 1, /--config.*more than/],
    [[...mnt, ...good, '--virtual-mountpoint', 'relative'], 1, /must start with/],
    [[...mnt, ...good, '--prefetch-files', join(scratch.path, 'absent')], 1, /--prefetch-files/],
    [[...mnt, ...good, '--apisock', bootstrap], 1, /no socket/],
    [['--mountpoint', briefly, ...good, '--apisock', join(scratch.path, 'absent/api.sock')], 1, /folder must exist/],
    [[...mnt, ...good, '--log-file', join(scratch.path, 'absent/log')], 1, /--log-file/],
    [[...mnt, '--shared-dir', join(scratch.path, 'absent')], 1, /cannot share .*absent/],
    [[...mnt, '--shared-dir', scratch.path, '--bootstrap', bootstrap], 2, /cannot be used with/],
    [['virtiofs', '--sock', 'x', '--shared-dir', 'y'], 1, /virtio-fs/],
    [['nope'], 2, /unrecognized subcommand 'nope'/],
    [['--nope'], 2, /unexpected argument '--nope' found/],
    [[], 2, /--mountpoint <mountpoint>/],
    [[...mnt, '--fuse-threads', '0'], 2, /invalid thread number 0, valid range: \[1-1024\]/],
    [[...mnt, '--log-level', 'loud'], 2, /possible values: trace, debug, info, warn, error/],
    [[...mnt, ...good, '--localfs-dir', CARRIED_BLOBS], 2, /cannot be used with/],
    [[...mnt, '--id', 'x'], 2, /--supervisor <supervisor>/],
  ]
  const few = pLimit(4)
  const ends = await Promise.all(cases.map(([line]) => few(() => runNydusd([...line]))))
  for (const [index, [line, code, wanted]] of cases.entries()) {
    const ended = ends[index] ?? assert.fail()
    assert.equal(ended.code, code, `${line.join(' ')}: ${ended.stderr}`)
    assert.match(ended.stderr, wanted, line.join(' '))
    assert.doesNotMatch(ended.stderr, /\n\s+at /)
  }
  assert.equal(await isMounted(briefly), false)
  assert.equal(await isMounted(scratch.mnt), false)
})

test('a living daemon keeps its mount point and its socket', { skip, timeout: 180_000 }, async () => {
  await using scratch = new Scratch()
  const daemon = await scratch.nydusd(args(scratch))
  const other = await runNydusd(['--mountpoint', scratch.mnt])
  assert.equal(other.code, 1)
  assert.match(other.stderr, /another nydusd has mounted there/)
  const second = scratch.folder('second')
  const thief = await runNydusd(['--mountpoint', second, '--apisock', daemon.socket])
  assert.equal(thief.code, 1)
  assert.match(thief.stderr, /another daemon answers there/)
  assert.equal(readFileSync(join(scratch.mnt, 'sizes/4096')).length, 4096)
})

test('a link to the mount point, the command and an old name of a flag, a log file', {
  skip,
  timeout: 180_000,
}, async () => {
  await using scratch = new Scratch()
  const link = join(scratch.path, 'link')
  symlinkSync(scratch.mnt, link)
  const log = join(scratch.path, 'daemon')
  const daemon = await scratch.nydusd([
    'fuse',
    '--mountpoint',
    link,
    '--log-file',
    log,
    '--thread-num',
    '1',
    ...args(scratch),
  ])
  assert.equal(readFileSync(join(scratch.mnt, 'sizes/4096')).length, 4096)
  assert.equal(await daemon.stop(), 0)
  assert.match(readFileSync(`${log}.log`, 'utf8'), /INFO nydusd quits/)
  assert.equal(await isMounted(scratch.mnt), false)
})

test('--version has the layout that programs take apart', { timeout: 180_000 }, async () => {
  const { code, stdout } = await runNydusd(['--version'])
  assert.equal(code, 0)
  assert.match(
    stdout,
    /^nydusd \rVersion: \tv\d+\.\d+\.\d+\nGit Commit: \t\S+\nBuild Time: \t.*\nProfile: \trelease\nRustc: \t\t.*\n\n$/,
  )
})

test('a socket without a server is replaced', { skip, timeout: 180_000 }, async () => {
  await using scratch = new Scratch()
  const first = await scratch.nydusd(args(scratch))
  await first.kill()
  assert.equal(existsSync(first.socket), true)
  const second = await scratch.nydusd(args(scratch))
  const sockets = Array.from({ length: 100 }, () => connect(second.socket))
  await Promise.all(sockets.map((socket) => once(socket, 'connect')))
  assert.equal((await second.json('/api/v1/daemon'))['state'], 'RUNNING')
  for (const socket of sockets) socket.destroy()
})
