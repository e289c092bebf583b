/** What trees, images and mounts show, in one form, so that they can be compared. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { lstatSync, readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { listXattrs } from '../src/kernel/index.ts'
import { escapePath } from '../src/rafs/index.ts'
import { latin1, pathsOf, TYPE_BITS, type TreeNode, type TreeType } from './random-tree.ts'

/** A path of a tree, an image or a mount in one form: what does not apply is left out. */
export interface ShownPath {
  path: string
  type: string
  mode: number
  uid: number
  gid: number
  mtime: number
  mtimeNsec: number
  rdev?: string
  target?: string
  xattrs: string
  sha256?: string
  /** First path of the same inode. */
  inode?: string
}

export function linesOf(paths: Iterable<ShownPath>): string[] {
  return [...paths].map((path) => JSON.stringify(path)).sort()
}

/** Fails with the paths that differ, not with all. */
export function assertSamePaths(found: readonly string[], wanted: readonly string[], what: string): void {
  const [has, should] = [new Set(found), new Set(wanted)]
  const extra = found.filter((line) => !should.has(line)).slice(0, 3)
  const missing = wanted.filter((line) => !has.has(line)).slice(0, 3)
  if (extra.length + missing.length > 0)
    assert.fail(`${what} shows\n  ${extra.join('\n  ')}\nand should show\n  ${missing.join('\n  ')}`)
}

/** An image of a directory has no time of its root: two builds of one tree are equal. */
export function* withoutRootTime(paths: Iterable<ShownPath>): Generator<ShownPath> {
  for (const path of paths) yield path.path === '/' ? { ...path, mtime: 0, mtimeNsec: 0 } : path
}

export function digestOf(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex').slice(0, 16)
}

/** Attributes as one text, sorted by name. */
export function xattrText(xattrs: Iterable<readonly [string, Uint8Array]>): string {
  return [...xattrs]
    .map(([name, value]) => `${name}=${Buffer.from(value).toString('base64')}`)
    .sort()
    .join(' ')
}

/** What an image of the tree has to show. */
export function* shownTree(root: TreeNode): Generator<ShownPath> {
  const first = new Map<TreeNode, string>()
  for (const [path, node] of pathsOf(root)) {
    const shown = escapePath(latin1(path))
    const inode = first.get(node) ?? shown
    first.set(node, inode)
    const isDevice = node.type === 'char' || node.type === 'block'
    yield {
      path: shown,
      type: node.type,
      mode: node.mode,
      uid: node.uid,
      gid: node.gid,
      mtime: node.mtime,
      mtimeNsec: node.mtimeNsec,
      ...(isDevice ? { rdev: node.device.join(':') } : {}),
      ...(node.type === 'symlink' ? { target: escapePath(node.target) } : {}),
      xattrs: xattrText(node.xattrs.map(([name, value]) => [escapePath(Buffer.from(name)), value])),
      ...(node.type === 'file' ? { sha256: digestOf(node.content) } : {}),
      ...(node.type === 'directory' ? {} : { inode }),
    }
  }
}

/** What a mounted file system shows. */
export function* shownFolder(folder: string): Generator<ShownPath> {
  const inodes = new Map<string, string>()
  const open = ['/']
  for (let path = open.pop(); path !== undefined; path = open.pop()) {
    const at = Buffer.concat([Buffer.from(folder), latin1(path)])
    const stats = lstatSync(at, { bigint: true, throwIfNoEntry: false })
    // overlayfs lists a whiteout of a directory that it merges with nothing, and then does not find it
    if (stats === undefined) continue
    const type = (Object.keys(TYPE_BITS) as TreeType[]).find(
      (name) => TYPE_BITS[name] === (Number(stats.mode) & 0o170000),
    )
    const shown = escapePath(latin1(path))
    const key = `${stats.dev}:${stats.ino}`
    const inode = inodes.get(key) ?? shown
    inodes.set(key, inode)
    const nsec = ((stats.mtimeNs % 1_000_000_000n) + 1_000_000_000n) % 1_000_000_000n
    const rdev = Number(stats.rdev)
    yield {
      path: shown,
      type: type ?? 'unknown',
      mode: Number(stats.mode) & 0o7777,
      uid: Number(stats.uid),
      gid: Number(stats.gid),
      mtime: Number((stats.mtimeNs - nsec) / 1_000_000_000n),
      mtimeNsec: Number(nsec),
      ...(stats.isCharacterDevice() || stats.isBlockDevice()
        ? { rdev: `${(rdev >>> 8) & 0xfff}:${(rdev & 0xff) | ((rdev >>> 12) & 0xfff00)}` }
        : {}),
      ...(stats.isSymbolicLink() ? { target: escapePath(readlinkSync(at, { encoding: 'buffer' })) } : {}),
      xattrs: xattrText(listXattrs(at).map(({ name, value }) => [escapePath(name), value] as const)),
      ...(stats.isFile() ? { sha256: digestOf(readFileSync(at)) } : {}),
      ...(stats.isDirectory() ? {} : { inode }),
    }
    if (stats.isDirectory())
      for (const name of readdirSync(at, { encoding: 'buffer' }).sort((a, b) => Buffer.compare(b, a)))
        open.push(`${path === '/' ? '' : path}/${name.toString('latin1')}`)
  }
}
