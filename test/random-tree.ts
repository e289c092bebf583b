/** Trees of files at random, as directories and as archives. */
import { chmodSync, closeSync, ftruncateSync, linkSync, mkdirSync, openSync, symlinkSync, writeSync } from 'node:fs'
import { changeOwner, makeNode, setTimes, setXattr } from '../src/kernel/index.ts'
import { type TarHeader, TarWriter } from '../src/tar/index.ts'
import { once, oneOf, type Random, randomBytes } from './random.ts'

export type TreeType = 'directory' | 'file' | 'symlink' | 'char' | 'block' | 'fifo' | 'socket' | 'whiteout'

/** One inode. A hard link is the same object under a second name. Names are bytes as latin1 text. */
export interface TreeNode {
  readonly type: TreeType
  mode: number
  uid: number
  gid: number
  mtime: number
  mtimeNsec: number
  xattrs: ReadonlyArray<readonly [string, Buffer]>
  readonly content: Buffer
  readonly target: Buffer
  readonly device: readonly [major: number, minor: number]
  readonly children: Map<string, TreeNode>
  /** Of a layer: what is below is hidden. */
  isOpaque: boolean
  /** The archive has no entry for this directory. */
  isImplied: boolean
}

export interface TreeShape {
  readonly nodes: number
  readonly types: readonly [TreeType, ...TreeType[]]
  readonly name: (random: Random) => string
  /** Types that may have a second name. */
  readonly linked: ReadonlySet<TreeType>
  readonly xattrs: boolean
}

const NO_BYTES = Buffer.alloc(0)
/** File type bits; overlayfs's whiteout is a character device. */
export const TYPE_BITS = {
  directory: 0o040000,
  file: 0o100000,
  symlink: 0o120000,
  char: 0o020000,
  block: 0o060000,
  fifo: 0o010000,
  socket: 0o140000,
  whiteout: 0o020000,
} as const

export function newTreeNode(type: TreeType): TreeNode {
  return {
    type,
    mode: type === 'directory' ? 0o755 : 0o644,
    uid: 0,
    gid: 0,
    mtime: 0,
    mtimeNsec: 0,
    xattrs: [],
    content: NO_BYTES,
    target: NO_BYTES,
    device: [0, 0],
    children: new Map(),
    isOpaque: false,
    isImplied: false,
  }
}

/** Any name that Linux takes: bytes of all kinds, up to 255 of them. */
export function anyName(random: Random): string {
  const length = oneOf(random, [1, 3, 8, 20, 99, 101, 255])
  const text = once(random, 3)
    ? randomBytes(random, length).toString('latin1').replaceAll(/[/\0]/g, '\n')
    : 'abcdefghij.-_ %\\'.repeat(16).slice(random(16), random(16) + length)
  const name = text.slice(0, length)
  return name === '' || name === '.' || name === '..' ? 'name' : name
}

/** A tree under a root directory. */
export function randomTree(random: Random, shape: TreeShape): TreeNode {
  const root = randomNode(random, 'directory', shape)
  const directories = [root]
  const linkable: TreeNode[] = []
  for (let count = 0; count < shape.nodes; count++) {
    const parent = directories[random(directories.length)] ?? root
    const name = shape.name(random)
    if (parent.children.has(name)) continue
    const known = linkable[random(linkable.length)]
    if (known !== undefined && once(random, 6)) {
      parent.children.set(name, known)
      continue
    }
    const node = randomNode(random, oneOf(random, shape.types), shape)
    parent.children.set(name, node)
    if (node.type === 'directory') directories.push(node)
    if (shape.linked.has(node.type)) linkable.push(node)
  }
  return root
}

function randomNode(random: Random, type: TreeType, shape: TreeShape): TreeNode {
  if (type === 'whiteout') return { ...newTreeNode(type), mode: 0 }
  const isDevice = type === 'char' || type === 'block'
  return {
    ...newTreeNode(type),
    mode: type === 'symlink' ? 0o777 : oneOf(random, [0o644, 0o755, 0o4711, 0o2755, 0o1777, 0, random(0o10000)]),
    uid: oneOf(random, [0, 1000, 65_535, 65_536, 4_294_967_294]),
    gid: oneOf(random, [0, 100, 70_000]),
    mtime: oneOf(random, [0, 1, 1_700_000_000 + random(1e6), -2, -2_000_000_000, 2 ** 32 + 5, 9_999_999_999]),
    mtimeNsec: oneOf(random, [0, 1, 999_999_999]),
    xattrs: shape.xattrs && once(random, 3) ? randomXattrs(random, type) : [],
    content: type === 'file' ? randomContent(random) : NO_BYTES,
    target:
      type === 'symlink'
        ? Buffer.from(`${'../'.repeat(random(9))}${anyName(random)}`, 'latin1').subarray(0, 4095)
        : NO_BYTES,
    device: isDevice ? [1 + random(0xfff), oneOf(random, [0, 1, 255, 256, 0xfffff])] : [0, 0],
  }
}

function randomXattrs(random: Random, type: TreeType): Array<[string, Buffer]> {
  // Only files and directories can have attributes of users.
  const spaces = type === 'file' || type === 'directory' ? ['user', 'trusted', 'security'] : ['trusted']
  const found = new Map<string, Buffer>()
  for (let count = 1 + random(4); count > 0; count--)
    found.set(
      `${spaces[random(spaces.length)]}.${oneOf(random, ['a', 'b', 'name', 'n'.repeat(60), 'ä'])}`,
      randomBytes(random, oneOf(random, [0, 1, 4, 5, 64, 300])),
    )
  return [...found].sort(([a], [b]) => (a < b ? -1 : 1))
}

/** Few different blocks, so that chunks repeat within a file, between files and between layers. */
function randomContent(random: Random): Buffer {
  const length = oneOf(random, [0, 1, 100, 4095, 4096, 4097, 8192, 12_288, random(40_000)])
  const bytes = Buffer.alloc(length)
  for (let at = 0; at < length; at += 4096) {
    const kind = random(8)
    if (kind === 0) continue
    if (kind < 3) randomBytes(random, Math.min(4096, length - at)).copy(bytes, at)
    else bytes.fill(`block ${kind} `, at, Math.min(length, at + 4096))
  }
  return bytes
}

/** All paths of a tree, parents first, in bytewise order within a directory; the root is `/`. */
export function* pathsOf(root: TreeNode, prefix = ''): Generator<readonly [path: string, node: TreeNode]> {
  if (prefix === '') yield ['/', root]
  for (const [name, node] of [...root.children].sort(([a], [b]) => (a < b ? -1 : 1))) {
    yield [`${prefix}/${name}`, node]
    if (node.type === 'directory') yield* pathsOf(node, `${prefix}/${name}`)
  }
}

/** Makes the tree below an existing folder; needs root. Whiteouts and opaque directories are those of overlayfs. */
export function plant(root: TreeNode, folder: string): void {
  const bytesOf = (path: string): Buffer => Buffer.concat([Buffer.from(folder), Buffer.from(path, 'latin1')])
  const first = new Map<TreeNode, Buffer>()
  const all = [...pathsOf(root)]
  for (const [path, node] of all) {
    const at = bytesOf(path)
    const known = first.get(node)
    if (known !== undefined) {
      linkSync(known, at)
      continue
    }
    first.set(node, at)
    if (path !== '/') make(node, at)
    changeOwner(at, node.uid, node.gid)
    if (node.type !== 'symlink') chmodSync(at, node.mode)
    for (const [name, value] of node.xattrs) setXattr(at, name, value)
    if (node.isOpaque) setXattr(at, 'trusted.overlay.opaque', Buffer.from('y'))
  }
  for (const [path, node] of all.reverse()) setTimes(bytesOf(path), node.mtime, node.mtimeNsec)
}

function make(node: TreeNode, at: Buffer): void {
  if (node.type === 'directory') mkdirSync(at)
  else if (node.type === 'symlink') symlinkSync(node.target, at)
  else if (node.type === 'file') writeSparse(at, node.content)
  else {
    const [major, minor] = node.device
    makeNode(at, TYPE_BITS[node.type], ((minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12)) >>> 0)
  }
}

/** Blocks of zeros stay holes. */
function writeSparse(at: Buffer, content: Buffer): void {
  const fd = openSync(at, 'wx')
  try {
    ftruncateSync(fd, content.length)
    for (let from = 0; from < content.length; from += 4096) {
      const block = content.subarray(from, from + 4096)
      if (block.some((byte) => byte !== 0)) writeSync(fd, block, 0, block.length, from)
    }
  } finally {
    closeSync(fd)
  }
}

/** The tree as an archive: parents before what they hold, hard links before or behind their file, deletions marked as OCI says. */
export async function archiveOf(root: TreeNode, random: Random): Promise<Buffer> {
  const parts: Buffer[] = []
  const writer = new TarWriter((bytes) => void parts.push(Buffer.from(bytes)))
  const prefix = oneOf(random, ['', './', '/'])
  const seen = new Map<TreeNode, string>()
  const late: TarHeader[] = []
  for (const [path, node] of pathsOf(root)) {
    const name = `${prefix}${path.slice(1)}`
    const known = seen.get(node)
    if (known !== undefined) {
      const link: TarHeader = { path: latin1(name), type: 'hardlink', link: latin1(known) }
      if (once(random, 2)) await writer.add(link)
      else late.push(link)
      continue
    }
    seen.set(node, name)
    for (const marker of markersOf(path, node, random))
      await writer.add({ path: latin1(`${prefix}${marker}`), type: 'file', mode: 0o644 })
    if (node.type === 'whiteout' || node.isImplied) continue
    await writer.add(headerOf(name, node), node.type === 'file' ? [node.content] : [])
  }
  for (const link of late) await writer.add(link)
  await writer.finish()
  return Buffer.concat(parts)
}

function headerOf(name: string, node: TreeNode): TarHeader {
  if (node.type === 'socket' || node.type === 'whiteout') throw new TypeError(`no archive holds a ${node.type}`)
  const { mode, uid, gid, mtime, target, device, content } = node
  return {
    path: latin1(node.type === 'directory' ? (name === '' ? './' : name) : name),
    type: node.type,
    mode,
    uid,
    gid,
    mtimeSeconds: mtime,
    link: target,
    size: content.length,
    devMajor: device[0],
    devMinor: device[1],
    xattrs: node.xattrs.map(([key, value]) => ({ name: Buffer.from(key), value })),
  }
}

/** An opaque directory is marked inside, or removed and made again. */
function markersOf(path: string, node: TreeNode, random: Random): string[] {
  const parent = path.slice(1, path.lastIndexOf('/') + 1)
  const name = path.slice(path.lastIndexOf('/') + 1)
  if (node.type === 'whiteout') return [`${parent}.wh.${name}`]
  if (!node.isOpaque) return []
  return [
    once(random, 2) || name === '' ? `${path.slice(1)}${name === '' ? '' : '/'}.wh..wh..opq` : `${parent}.wh.${name}`,
  ]
}

/** Bytes of a name or path. */
export function latin1(text: string): Buffer {
  return Buffer.from(text, 'latin1')
}
