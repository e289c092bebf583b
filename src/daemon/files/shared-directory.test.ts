import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import {
  chmodSync,
  chownSync,
  closeSync,
  existsSync,
  fsyncSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  renameSync,
  rmSync,
  statfsSync,
  statSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { listXattrs, makeNode, setXattr, whyNoFuse } from '../../kernel/index.ts'
import { CARRIED_BLOBS, carriedImage, localConfig, Scratch, treeDifferences } from '../testing.ts'
import { codeOf } from './testing.ts'

const skip = whyNoFuse() ?? false
const IMAGE = carriedImage('v6-tar-none-c64k')

test('a shared directory is read and written as the host has it', { skip, timeout: 180_000 }, async () => {
  await using scratch = new Scratch()
  const [host, mnt] = [scratch.folder('host'), scratch.mnt]
  writeFileSync(join(host, 'old'), 'from the host')
  const daemon = await scratch.nydusd(['--shared-dir', host, '--writable'])
  assert.equal(readFileSync(join(mnt, 'old'), 'utf8'), 'from the host')
  const data = randomBytes(3 << 20)
  writeFileSync(join(mnt, 'new'), data)
  assert.deepEqual(readFileSync(join(host, 'new')), data)
  writeFileSync(join(mnt, 'new'), 'end', { flag: 'a' })
  assert.equal(statSync(join(host, 'new')).size, data.length + 3)
  truncateSync(join(mnt, 'new'), 10)
  assert.deepEqual(readFileSync(join(host, 'new')), data.subarray(0, 10))
  mkdirSync(join(mnt, 'a/b'), { recursive: true })
  linkSync(join(mnt, 'new'), join(mnt, 'a/link'))
  symlinkSync('../new', join(mnt, 'a/soft'))
  renameSync(join(mnt, 'new'), join(mnt, 'a/b/moved'))
  assert.equal(readlinkSync(join(host, 'a/soft')), '../new')
  assert.equal(lstatSync(join(mnt, 'a/link')).ino, lstatSync(join(mnt, 'a/b/moved')).ino)
  assert.equal(lstatSync(join(mnt, 'a/link')).nlink, 2)
  chmodSync(join(mnt, 'a/link'), 0o4711)
  utimesSync(join(mnt, 'a/link'), 5, 7)
  setXattr(join(mnt, 'a/link'), 'user.note', Buffer.from('kept'))
  const seen = statSync(join(host, 'a/b/moved'))
  assert.deepEqual([seen.mode & 0o7777, seen.atimeMs, seen.mtimeMs], [0o4711, 5000, 7000])
  assert.deepEqual(
    listXattrs(join(host, 'a/b/moved')).map(
      ({ name, value }) => `${Buffer.from(name).toString()}=${Buffer.from(value).toString()}`,
    ),
    ['user.note=kept'],
  )
  makeNode(join(mnt, 'fifo'), 0o010640, 0)
  assert.equal(lstatSync(join(host, 'fifo')).isFIFO(), true)
  assert.equal(
    codeOf(() => rmSync(join(mnt, 'a'), { recursive: true })),
    'done',
  )
  assert.deepEqual(readdirSync(host).sort(), ['fifo', 'old'])
  assert.deepEqual(
    [codeOf(() => mkdirSync(join(mnt, 'old'))), codeOf(() => readFileSync(join(mnt, 'absent')))],
    ['EEXIST', 'ENOENT'],
  )
  assert.equal(statfsSync(mnt).blocks, statfsSync(host).blocks)
  assert.equal(await daemon.stop(), 0)
  assert.doesNotMatch(daemon.log, /WARN|ERROR/)
})

test('what a user makes belongs to him, and what the host changes is seen', { skip, timeout: 180_000 }, async () => {
  await using scratch = new Scratch()
  const [host, mnt] = [scratch.folder('host'), scratch.mnt]
  chmodSync(scratch.path, 0o755)
  chmodSync(host, 0o777)
  await scratch.nydusd(['--shared-dir', host, '--writable'])
  const make = 'umask 027; cd "$0"; mkdir d; echo x > f; ln -s f l; mkfifo p'
  execFileSync('/bin/sh', ['-c', make, mnt], { uid: 1234, gid: 4321, stdio: 'ignore' })
  const made = ['d', 'f', 'l', 'p'].map((name) => lstatSync(join(host, name)))
  assert.deepEqual(
    made.map(({ uid, gid }) => [uid, gid]),
    Array.from({ length: 4 }, () => [1234, 4321]),
  )
  assert.deepEqual([made[0].mode & 0o7777, made[1].mode & 0o7777], [0o750, 0o640])
  // a directory with the set-group-id bit hands its group on, as on the host
  mkdirSync(join(host, 's'))
  chownSync(join(host, 's'), 0, 77)
  chmodSync(join(host, 's'), 0o2777)
  execFileSync('/bin/sh', ['-c', 'mkdir "$0/s/d"; echo x > "$0/s/f"', mnt], { uid: 1234, gid: 4321 })
  assert.deepEqual([lstatSync(join(host, 's/d')).gid, lstatSync(join(host, 's/d')).mode & 0o2000], [77, 0o2000])
  assert.equal(lstatSync(join(host, 's/f')).gid, 77)
  assert.equal(readFileSync(join(mnt, 'f'), 'utf8'), 'x\n')
  writeFileSync(join(host, 'f'), 'longer than it was')
  assert.equal(readFileSync(join(mnt, 'f'), 'utf8'), 'longer than it was')
})

test('open files outlive their names, holes stay holes, copies are made by the host', {
  skip,
  timeout: 180_000,
}, async () => {
  await using scratch = new Scratch()
  const [host, mnt] = [scratch.folder('host'), scratch.mnt]
  await scratch.nydusd(['--shared-dir', host, '--writable'])
  const file = openSync(join(mnt, 'open'), 'w+')
  writeSync(file, 'still here')
  unlinkSync(join(mnt, 'open'))
  writeSync(file, '!')
  fsyncSync(file)
  const bytes = Buffer.alloc(20)
  assert.equal(readSync(file, bytes, 0, 20, 0), 11)
  closeSync(file)
  execFileSync('truncate', ['-s', '50M', join(mnt, 'holes')])
  execFileSync('fallocate', ['-o', '1M', '-l', '1M', join(mnt, 'holes')])
  assert.equal(statSync(join(host, 'holes')).blocks, statSync(join(mnt, 'holes')).blocks)
  assert.ok(statSync(join(host, 'holes')).blocks * 512 < 3 << 20)
  writeFileSync(join(mnt, 'from'), randomBytes(5 << 20))
  execFileSync('cp', ['--reflink=auto', '--sparse=auto', join(mnt, 'from'), join(mnt, 'to')])
  const digest = (path: string) => createHash('sha256').update(readFileSync(path)).digest('hex')
  assert.equal(digest(join(host, 'to')), digest(join(host, 'from')))
  execFileSync(
    'dd',
    [`if=${join(mnt, 'from')}`, `of=${join(mnt, 'direct')}`, 'bs=1M', 'iflag=direct', 'oflag=direct'],
    {
      stdio: 'ignore',
    },
  )
  assert.equal(digest(join(host, 'direct')), digest(join(host, 'from')))
})

test('every name of a large directory is listed once, also while it is emptied', {
  skip,
  timeout: 180_000,
}, async () => {
  await using scratch = new Scratch()
  const [host, mnt] = [scratch.folder('host'), scratch.mnt]
  const names = Array.from({ length: 2500 }, (_unused, index) => `${index}-${'n'.repeat(index % 200)}`)
  for (const name of names) writeFileSync(join(host, name), '')
  const daemon = await scratch.nydusd(['--shared-dir', host, '--writable'])
  assert.deepEqual(readdirSync(mnt).sort(), names.sort())
  assert.equal(execFileSync('find', [mnt, '-type', 'f', '-printf', 'x']).length, names.length)
  execFileSync('find', [mnt, '-type', 'f', '-delete'])
  assert.deepEqual(readdirSync(host), [])
  const descriptors = readdirSync(`/proc/${daemon.child.pid}/fd`).length
  assert.ok(descriptors < 200, `${descriptors} descriptors for files that are gone`)
})

test('a mount of the API, beside an image; an unmount while files are open', { skip, timeout: 180_000 }, async () => {
  await using scratch = new Scratch()
  const [host, mnt] = [scratch.folder('host'), scratch.mnt]
  const daemon = await scratch.nydusd(['--writable'])
  const share = { source: host, fs_type: 'passthrough_fs', config: '' }
  const image = { source: IMAGE.bootstrap, fs_type: 'rafs', config: localConfig(CARRIED_BLOBS, scratch.cache) }
  const post = async (path: string, body: unknown) =>
    (await daemon.api('POST', `/api/v1/mount?mountpoint=${path}`, body)).status
  assert.deepEqual([await post('/deep/share', share), await post('/image', image)], [204, 204])
  assert.equal(await post('/deep/share', share), 500)
  assert.equal(await post('/nowhere', { ...share, source: join(host, 'absent') }), 500)
  const shown = (await daemon.json('/api/v1/daemon'))['backend_collection'] as Record<string, Record<string, unknown>>
  assert.deepEqual(
    [shown['/deep/share']['backend_type'], shown['/deep/share']['config'], shown['/image']['backend_type']],
    ['PassthroughFs', null, 'Rafs'],
  )
  assert.deepEqual(treeDifferences(join(mnt, 'image'), IMAGE.tree), [])
  assert.deepEqual(
    [codeOf(() => writeFileSync(join(mnt, 'image/new'), '')), codeOf(() => mkdirSync(join(mnt, 'new')))],
    ['EROFS', 'EROFS'],
  )
  assert.deepEqual(listXattrs(join(mnt, 'deep')), [])
  const before = readdirSync(`/proc/${daemon.child.pid}/fd`).length
  const file = openSync(join(mnt, 'deep/share/f'), 'w+')
  writeSync(file, 'one')
  assert.equal((await daemon.api('DELETE', '/api/v1/mount?mountpoint=/deep/share')).status, 204)
  assert.notEqual(
    codeOf(() => writeSync(file, 'two')),
    'done',
  )
  closeSync(file)
  assert.equal(readFileSync(join(host, 'f'), 'utf8'), 'one')
  assert.deepEqual(readdirSync(join(mnt, 'deep/share')), [])
  assert.ok(readdirSync(`/proc/${daemon.child.pid}/fd`).length <= before)
  assert.equal(await post('/deep/share', share), 204)
  assert.equal(readFileSync(join(mnt, 'deep/share/f'), 'utf8'), 'one')
  const put = await daemon.api('PUT', '/api/v1/mount?mountpoint=/deep/share', share)
  assert.deepEqual([put.status, /type mismatch/.test(put.text)], [500, true])
})

test('a session that is read-only shares a directory read-only, and never enters its own mount', {
  skip,
  timeout: 180_000,
}, async () => {
  await using scratch = new Scratch()
  writeFileSync(join(scratch.path, 'file'), 'text')
  const daemon = await scratch.nydusd([])
  const share = { source: scratch.path, fs_type: 'passthrough', config: '' }
  assert.equal((await daemon.api('POST', '/api/v1/mount?mountpoint=/host', share)).status, 204)
  const host = join(scratch.mnt, 'host')
  assert.equal(readFileSync(join(host, 'file'), 'utf8'), 'text')
  writeFileSync(join(scratch.path, 'file'), 'another text')
  execFileSync('stat', [join(host, 'file')])
  assert.ok(readdirSync(host).includes('file'))
  assert.equal(
    codeOf(() => writeFileSync(join(host, 'file'), 'x')),
    'EROFS',
  )
  assert.equal(
    codeOf(() => statSync(join(host, 'mnt'))),
    'ELOOP',
  )
  assert.equal(existsSync(join(host, 'cache')), true)
})
