import assert from 'node:assert/strict'
import {
  closeSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readSync,
  writeSync,
  readdirSync,
  readlinkSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import * as fc from 'fast-check'
import { knowsFileSystem, listXattrs, mountErofs, unmount } from '../kernel/index.ts'
import { hybridOrder, type RafsNode, type RafsTree, writeBootstrapV6 } from './index.ts'
import { compareNames } from './names.ts'
import { asTarfs, randomTree } from './testing.ts'

const skip =
  process.getuid?.() !== 0 ? 'needs root to mount' : knowsFileSystem('erofs') ? false : 'this kernel has no EROFS'

/** What stands at the start of each chunk of the devices. */
function stamp(blobIndex: number, index: number): Buffer {
  return Buffer.from(`blob ${blobIndex}, chunk ${index};`)
}

/** Every chunk of a file is the one that its address names. */
function compareContent(node: RafsNode, path: Buffer, chunkSize: number): void {
  if (node.chunks.length === 0) return
  const fd = openSync(path, 'r')
  try {
    for (const [index, chunk] of node.chunks.entries()) {
      const wanted = stamp(chunk.blobIndex, chunk.index)
      const found = Buffer.alloc(wanted.length)
      const count = readSync(fd, found, 0, found.length, index * chunkSize)
      assert.equal(found.subarray(0, count).toString(), wanted.subarray(0, count).toString(), path.toString('latin1'))
      assert.ok(count > 0)
    }
  } finally {
    closeSync(fd)
  }
}

/** All nodes with their paths, as bytes. */
function* paths(node: RafsNode, at: Buffer): Generator<readonly [RafsNode, Buffer]> {
  yield [node, at]
  for (const child of node.children ?? []) yield* paths(child, Buffer.concat([at, Buffer.from('/'), child.name]))
}

/** What the kernel shows of a node, and what it should show. */
function compare(node: RafsNode, path: Buffer, links: number): void {
  const found = lstatSync(path)
  const shown = path.toString('latin1')
  assert.equal(found.mode.toString(8), node.mode.toString(8), shown)
  assert.deepEqual([found.uid, found.gid], [node.uid, node.gid], shown)
  if (found.isCharacterDevice() || found.isBlockDevice()) assert.equal(found.rdev, node.rdev, shown)
  const { mtimeNs } = lstatSync(path, { bigint: true })
  assert.equal(mtimeNs, BigInt(node.mtime) * 1_000_000_000n + BigInt(node.mtimeNsec), shown)
  if (node.children === undefined) assert.equal(found.nlink, links, shown)
  if ((node.mode & 0o170000) === 0o100000) assert.equal(found.size, node.size, shown)
  if (node.target !== undefined) assert.deepEqual([...readlinkSync(path, 'buffer')], [...node.target], shown)
  if (node.children !== undefined) {
    const names = readdirSync(path, { encoding: 'buffer' }).sort(compareNames)
    assert.deepEqual(
      names.map((name) => name.toString('hex')),
      node.children.map(({ name }) => Buffer.from(name).toString('hex')),
    )
  }
  const byName = (list: readonly { readonly name: Uint8Array; readonly value: Uint8Array }[]): string[] =>
    list.map(({ name, value }) => `${Buffer.from(name).toString('hex')}=${Buffer.from(value).toString('hex')}`).sort()
  // Linux shows user.* of files and directories only.
  const hasUser = node.children !== undefined || (node.mode & 0o170000) === 0o100000
  const shownXattrs = node.xattrs.filter(
    ({ name }) => hasUser || !Buffer.from(name).toString('latin1').startsWith('user.'),
  )
  assert.deepEqual(byName(listXattrs(path)), byName(shownXattrs), shown)
}

async function mounted(tree: RafsTree, chunkSize: number, directory: string, isTarfs = false): Promise<void> {
  const at = join(directory, 'mount')
  mkdirSync(at, { recursive: true })
  for (const node of hybridOrder(tree.root)) {
    // The kernel interprets ACLs, and refuses to show random bytes as one. 2^32 − 1 is no owner: it lets nobody in, not even root.
    node.xattrs = node.xattrs.filter(({ name }) => !Buffer.from(name).toString('latin1').startsWith('system.'))
    node.uid = Math.min(node.uid, 0xffff_fffe)
    node.gid = Math.min(node.gid, 0xffff_fffe)
  }
  const options = {
    chunkSize,
    compression: 'none',
    digest: 'blake3',
    explicitOwners: true,
    alwaysXattrs: false,
    prefetch: [],
    isTarfs,
  } as const
  writeFileSync(join(directory, 'image'), writeBootstrapV6(tree, options))
  const devices = tree.blobs.map((blob) => {
    const device = join(directory, `device ${blob.index}`)
    writeFileSync(device, '')
    truncateSync(device, blob.uncompressedSize)
    const fd = openSync(device, 'r+')
    for (let index = 0; index < blob.chunkCount; index++)
      writeSync(fd, stamp(blob.index, index), 0, null, index * chunkSize)
    closeSync(fd)
    return device
  })
  await mountErofs(join(directory, 'image'), at, devices)
  try {
    const links = new Map<unknown, number>()
    for (const { link } of hybridOrder(tree.root)) if (link !== undefined) links.set(link, (links.get(link) ?? 0) + 1)
    for (const [node, path] of paths(tree.root, Buffer.from(at))) {
      if (path.length > 4000) continue // longer than Linux takes
      compareContent(node, path, chunkSize)
      compare(node, path, node.link === undefined ? 1 : (links.get(node.link) ?? 1))
    }
  } finally {
    await unmount(at)
  }
}

test('the kernel mounts what is written and shows the same tree', { skip, timeout: 180_000 }, async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'nydus-rafs-mount-'))
  t.after(() => rmSync(directory, { recursive: true, force: true }))
  await fc.assert(
    fc.asyncProperty(randomTree, ({ tree, chunkSize }) => mounted(tree, chunkSize, directory)),
    { numRuns: 60 },
  )
})

test('the kernel mounts images of plain tars, whose blocks have 512 bytes', { skip, timeout: 180_000 }, async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'nydus-rafs-mount-'))
  t.after(() => rmSync(directory, { recursive: true, force: true }))
  await fc.assert(
    fc.asyncProperty(randomTree, ({ tree, chunkSize }) => mounted(asTarfs(tree), chunkSize, directory, true)),
    { numRuns: 40 },
  )
})
