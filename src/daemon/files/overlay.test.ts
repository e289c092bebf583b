import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import {
  appendFileSync,
  chmodSync,
  closeSync,
  existsSync,
  ftruncateSync,
  linkSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  rmdirSync,
  rmSync,
  statfsSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import {
  changeOwner,
  knowsFileSystem,
  listXattrs,
  makeNode,
  mountOverlay,
  mountTmpfs,
  setXattr,
  unmount,
  whyNoFuse,
} from '../../kernel/index.ts'
import { CARRIED_BLOBS, carriedImage, mountedTree, Scratch, type TestDaemon, treeDifferences } from '../testing.ts'
import { codeOf } from './testing.ts'

const skip = whyNoFuse() ?? false
const IMAGE = carriedImage('v6-tar-none-c64k')

function settings(scratch: Scratch, overlay: boolean): string {
  return JSON.stringify({
    version: 2,
    backend: { type: 'localfs', localfs: { dir: CARRIED_BLOBS } },
    cache: { type: 'blobcache', filecache: { work_dir: scratch.cache } },
    rafs: { enable_xattr: true },
    ...(overlay ? { overlay: { upper_dir: join(scratch.path, 'upper'), work_dir: join(scratch.path, 'work') } } : {}),
  })
}

async function start(scratch: Scratch): Promise<TestDaemon> {
  for (const name of ['upper', 'work']) mkdirSync(join(scratch.path, name), { recursive: true })
  const config = join(scratch.path, 'config.json')
  writeFileSync(config, settings(scratch, true))
  return await scratch.nydusd(['--bootstrap', IMAGE.bootstrap, '--config', config, '--writable'])
}

/** Everything but what a directory that is merged of two, or is another one, has of its own. */
function comparable(at: string): unknown[] {
  return mountedTree(at)
    .filter((entry) => entry['path'] !== '/')
    .map((entry) => (entry['type'] === 'dir' ? { ...entry, size: 0, nlink: 0 } : entry))
}

test('a copied file is what it was: owner, mode, times, xattrs, links, devices, bytes, number', {
  skip,
  timeout: 180_000,
}, async () => {
  await using scratch = new Scratch()
  const daemon = await start(scratch)
  const { mnt } = scratch
  assert.deepEqual(
    treeDifferences(mnt, IMAGE.tree).filter((line) => !line.startsWith('/: ')),
    [],
  )
  const before = comparable(mnt)
  const paths = before.map((entry) => String((entry as Record<string, unknown>)['path']))
  const numbers = paths.map((path) => lstatSync(join(mnt, path), { bigint: true }).ino)
  // each is copied by setting the owner that it has; links to links would need more
  for (const path of paths) {
    const { uid, gid } = lstatSync(join(mnt, path))
    const mode = lstatSync(join(mnt, path)).mode & 0o7777
    changeOwner(join(mnt, path), uid, gid)
    if (!lstatSync(join(mnt, path)).isSymbolicLink()) chmodSync(join(mnt, path), mode) // set-user-id bits went
    if (path === '/xattr/cap') setXattr(join(mnt, path), 'security.capability', capability(before, path)) // so did this
  }
  assert.deepEqual(comparable(mnt), before)
  assert.equal(mountedTree(join(scratch.path, 'upper')).length, paths.length + 1)
  assert.equal(await daemon.stop(), 0)
  await start(scratch)
  assert.deepEqual(comparable(mnt), before)
  assert.deepEqual(
    paths.map((path) => lstatSync(join(mnt, path), { bigint: true }).ino),
    numbers,
  )
  assert.deepEqual(readdirSync(join(scratch.path, 'work/nydusd')), [])
})

function capability(entries: readonly unknown[], path: string): Uint8Array {
  const entry = entries.find((one) => (one as Record<string, unknown>)['path'] === path) as {
    xattrs: Record<string, string>
  }
  return Buffer.from(entry.xattrs['security.capability'], 'base64')
}

test('what is written, removed and moved is seen, also by the next daemon and by overlayfs of the kernel', {
  skip: skip || (knowsFileSystem('overlay') ? false : 'this kernel has no overlayfs'),
  timeout: 180_000,
}, async () => {
  await using scratch = new Scratch()
  const daemon = await start(scratch)
  const { mnt } = scratch
  const at = (path: string): string => join(mnt, path)
  appendFileSync(at('hard/one'), 'more')
  assert.equal(lstatSync(at('hard/sub/three')).size, 9004)
  assert.equal(lstatSync(at('hard/two')).nlink, 3)
  unlinkSync(at('hard/suid-a'))
  assert.equal(lstatSync(at('hard/suid-b')).nlink, 1)
  chmodSync(at('hard/suid-b'), 0o755)
  linkSync(at('sizes/4096'), at('sizes/linked'))
  renameSync(at('sizes/4097'), at('dup/moved'))
  renameSync(at('sizes/1'), at('sizes/4095'))
  rmSync(at('links'), { recursive: true })
  mkdirSync(at('links'))
  writeFileSync(at('links/short'), 'now a file')
  rmSync(at('mtimes'), { recursive: true })
  mkdirSync(at('made/deep'), { recursive: true })
  renameSync(at('made/deep'), at('mtimes'))
  writeFileSync(at('empty'), 'no longer')
  symlinkSync('elsewhere', at('emptydir/new'))
  lutimesSync(at('xattr/link'), 11, 12)
  setXattr(at('xattr/user'), 'user.foo', Buffer.from('other'))
  assert.deepEqual(
    [
      codeOf(() => renameSync(at('owners'), at('moved'))),
      codeOf(() => rmdirSync(at('xattr'))),
      codeOf(() => mkdirSync(at('dup/a'))),
      codeOf(() => readFileSync(at('hard/suid-a'))),
      codeOf(() => setXattr(at('dup'), 'trusted.overlay.opaque', Buffer.from('y'))),
      codeOf(() => makeNode(at('mark'), 0o020000, 0)),
    ],
    ['EXDEV', 'ENOTEMPTY', 'EEXIST', 'ENOENT', 'EPERM', 'EPERM'],
  )
  assert.deepEqual(readdirSync(at('links')), ['short'])
  const after = comparable(mnt)
  assert.equal(await daemon.stop(), 0)

  const next = await start(scratch)
  assert.deepEqual(comparable(mnt), after)
  assert.equal(await next.stop(), 0)

  writeFileSync(join(scratch.path, 'plain.json'), settings(scratch, false))
  const plain = await scratch.nydusd(['--bootstrap', IMAGE.bootstrap, '--config', join(scratch.path, 'plain.json')])
  const merged = scratch.folder('merged')
  mkdirSync(join(scratch.path, 'kernel-work'))
  await mountOverlay(merged, {
    lower: [mnt],
    upper: join(scratch.path, 'upper'),
    work: join(scratch.path, 'kernel-work'),
  })
  try {
    assert.deepEqual(withoutMarks(comparable(merged)), after)
  } finally {
    await unmount(merged, true)
  }
  assert.equal(await plain.stop(), 0)
})

/** Names that belong to other overlays are not hidden by the kernel's. */
function withoutMarks(entries: readonly unknown[]): unknown[] {
  return entries.map((entry) => {
    const { xattrs, ...rest } = entry as Record<string, unknown> & { xattrs?: Record<string, string> }
    const kept = Object.entries(xattrs ?? {}).filter(([name]) => !/^(user\.fuseoverlayfs|trusted\.nydus)\./.test(name))
    return kept.length === 0 ? rest : { ...rest, xattrs: Object.fromEntries(kept) }
  })
}

test('files that are open go on when they are copied, removed or replaced', { skip, timeout: 180_000 }, async () => {
  await using scratch = new Scratch()
  await start(scratch)
  const at = (path: string): string => join(scratch.mnt, path)
  const reader = openSync(at('sizes/65536'), 'r')
  const writer = openSync(at('sizes/65536'), 'r+')
  assert.equal(existsSync(join(scratch.path, 'upper/sizes')), false) // opened is not changed
  writeSync(writer, 'changed', 100)
  const found = Buffer.alloc(7)
  assert.equal(readSync(reader, found, 0, 7, 100), 7)
  assert.equal(found.toString(), 'changed')
  const kept = openSync(at('sizes/4096'), 'r+')
  unlinkSync(at('sizes/4096'))
  writeSync(kept, 'still writable', 0)
  assert.equal(statSync(`/proc/self/fd/${kept}`).nlink, 0)
  ftruncateSync(kept, 3)
  assert.equal(readSync(kept, Buffer.alloc(10), 0, 10, 0), 3)
  assert.equal(
    codeOf(() => statSync(at('sizes/4096'))),
    'ENOENT',
  )
  for (const fd of [reader, writer, kept]) closeSync(fd)
  assert.deepEqual(readdirSync(join(scratch.path, 'work/nydusd')), [])
  // emptied before anything of it is read: nothing is fetched for it
  writeFileSync(at('dup/a'), '')
  assert.equal(statSync(join(scratch.path, 'upper/dup/a')).size, 0)
  writeFileSync(at('sizes/4097'), 'shorter')
  assert.equal(readFileSync(at('sizes/4097'), 'utf8'), 'shorter')
})

test('a full upper directory is told, and leaves the file as it was', { skip, timeout: 180_000 }, async () => {
  await using scratch = new Scratch()
  const small = scratch.folder('small')
  await mountTmpfs(small, 32 << 10)
  try {
    for (const name of ['upper', 'work']) {
      mkdirSync(join(small, name))
      symlinkSync(join(small, name), join(scratch.path, name))
    }
    const daemon = await start(scratch)
    const before = readFileSync(join(scratch.mnt, 'sizes/65536'))
    assert.equal(
      codeOf(() => appendFileSync(join(scratch.mnt, 'sizes/65536'), 'x')),
      'ENOSPC',
    )
    assert.deepEqual(readFileSync(join(scratch.mnt, 'sizes/65536')), before)
    assert.deepEqual([readdirSync(join(small, 'work/nydusd')), readdirSync(join(small, 'upper'))], [[], []])
    writeFileSync(join(scratch.mnt, 'fits'), 'small')
    assert.equal(readFileSync(join(small, 'upper/fits'), 'utf8'), 'small')
    assert.equal(await daemon.stop(), 0)
  } finally {
    await unmount(small, true)
  }
})

test('an upper directory without inodes is told, and what was begun leaves nothing behind', {
  skip,
  timeout: 180_000,
}, async () => {
  await using scratch = new Scratch()
  const small = scratch.folder('small')
  await mountTmpfs(small, 1 << 20)
  const limitInodes = (free: number): void => {
    const { files, ffree } = statfsSync(small)
    execFileSync('mount', ['-o', `remount,nr_inodes=${files - ffree + free}`, small])
  }
  try {
    for (const name of ['upper', 'work']) {
      mkdirSync(join(small, name))
      symlinkSync(join(small, name), join(scratch.path, name))
    }
    const daemon = await start(scratch)
    const at = (path: string): string => join(scratch.mnt, path)
    const before = readFileSync(at('sizes/65536'))
    const writer = openSync(at('sizes/65536'), 'r+')
    limitInodes(1) // enough for what is left of the file, not for the directory above it
    assert.equal(
      codeOf(() => ftruncateSync(writer, 1)),
      'ENOSPC',
    )
    limitInodes(4) // a file, two directories, and one of its three names
    assert.equal(
      codeOf(() => appendFileSync(at('hard/one'), 'more')),
      'ENOSPC',
    )
    assert.deepEqual(readdirSync(join(small, 'upper/hard'), { recursive: true }), ['sub'])
    assert.deepEqual(readdirSync(join(small, 'work/nydusd')), [])
    limitInodes(100)
    writeSync(writer, 'more', before.length)
    closeSync(writer)
    assert.deepEqual(readFileSync(join(small, 'upper/sizes/65536')), Buffer.concat([before, Buffer.from('more')]))
    appendFileSync(at('hard/one'), 'more')
    for (const path of ['hard/one', 'hard/two', 'hard/sub/three'])
      assert.deepEqual([statSync(at(path)).nlink, statSync(join(small, 'upper', path)).size], [3, 9004])
    assert.equal(await daemon.stop(), 0)
  } finally {
    await unmount(small, true)
  }
})

test('an overlay of the API, beside others; what does not go together is refused', {
  skip,
  timeout: 180_000,
}, async () => {
  await using scratch = new Scratch()
  const daemon = await scratch.nydusd(['--writable'])
  for (const name of ['upper', 'work']) mkdirSync(join(scratch.path, name))
  const post = async (path: string, config: string) =>
    await daemon.api('POST', `/api/v1/mount?mountpoint=${path}`, { source: IMAGE.bootstrap, fs_type: 'rafs', config })
  const config = settings(scratch, true)
  assert.equal((await post('/a', config)).status, 204)
  writeFileSync(join(scratch.mnt, 'a/new'), 'text')
  assert.equal(readFileSync(join(scratch.path, 'upper/new'), 'utf8'), 'text')
  const second = await post('/b', config)
  assert.deepEqual([second.status, /another daemon works in/.test(second.text)], [500, true])
  const parsed = JSON.parse(config) as Record<string, unknown>
  const upper = join(scratch.path, 'upper')
  const other = scratch.folder('other')
  await mountTmpfs(other, 64 << 10)
  try {
    for (const work_dir of [other, join(other, 'new/work')]) {
      const elsewhere = await post('/b', JSON.stringify({ ...parsed, overlay: { upper_dir: upper, work_dir } }))
      assert.deepEqual([elsewhere.status, /must lie on the file system/.test(elsewhere.text)], [500, true])
    }
    assert.deepEqual(readdirSync(other), []) // what is refused leaves nothing
  } finally {
    await unmount(other, true)
  }
  for (const work_dir of [upper, join(upper, 'made/work'), scratch.path]) {
    const nested = await post('/b', JSON.stringify({ ...parsed, overlay: { upper_dir: upper, work_dir } }))
    assert.deepEqual([nested.status, /must lie beside each other/.test(nested.text)], [500, true])
  }
  assert.deepEqual(readdirSync(upper), ['new'])
  const missing = await post('/b', JSON.stringify({ ...parsed, overlay: { upper_dir: '', work_dir: '' } }))
  assert.deepEqual([missing.status, /workdir and upperdir must be specified/.test(missing.text)], [500, true])
  assert.equal((await post('/plain', settings(scratch, false))).status, 204)
  assert.equal(
    codeOf(() => writeFileSync(join(scratch.mnt, 'plain/new'), '')),
    'EROFS',
  )
  const superblock = await daemon.api('GET', '/api/v1/daemon/backend?mountpoint=/a')
  assert.deepEqual([superblock.status, /type mismatch/.test(superblock.text)], [500, true])
  assert.deepEqual(listXattrs(join(scratch.mnt, 'a/new')), [])
  assert.equal((await daemon.api('DELETE', '/api/v1/mount?mountpoint=/a')).status, 204)
  assert.deepEqual(readdirSync(join(scratch.mnt, 'a')), [])
  assert.equal((await post('/a', config)).status, 204)
  assert.equal(readFileSync(join(scratch.mnt, 'a/new'), 'utf8'), 'text')
})
