import { ChunkInfo } from '../blob/index.ts'
import { Attributes, type Bootstrap, type ChunkSpan, type Ino } from './bootstrap.ts'
import { RafsError } from './errors.ts'
import { isType, MODE } from './mode.ts'
import { compareNames } from './names.ts'

/** One path of an image, as a dump prints it: JSON with these members, absent ones left out. */
export interface DumpEntry {
  /** Bytes outside 0x20–0x7e and `%` as `%XX`. */
  path: string
  type: 'dir' | 'file' | 'symlink' | 'char' | 'block' | 'fifo' | 'socket'
  /** 12 bits, four octal digits. */
  mode: string
  uid: number
  gid: number
  mtime: number
  mtime_nsec: number
  nlink: number
  size?: number
  rdev?: string
  target?: string
  /** First path of the same inode, also on that path itself. */
  hardlink?: string
  /** Name → base64 of the value. */
  xattrs?: Record<string, string>
  /** Digests of the file's chunks, hex, in order. */
  chunks?: string[]
}

const TYPES: ReadonlyArray<readonly [number, DumpEntry['type']]> = [
  [MODE.DIRECTORY, 'dir'],
  [MODE.FILE, 'file'],
  [MODE.SYMLINK, 'symlink'],
  [MODE.CHAR, 'char'],
  [MODE.BLOCK, 'block'],
  [MODE.FIFO, 'fifo'],
  [MODE.SOCKET, 'socket'],
]

/** A path and its inode, in bytewise order of full paths. */
export interface WalkEntry {
  /** `/` for the root, else absolute, as bytes. */
  readonly path: Uint8Array
  readonly ino: Ino
}

/**
 * All paths of an image, parents before what they hold, sorted bytewise by path within each directory. Bounded in depth and against loops: throws RafsError 'BAD_DIRECTORY' when a
 * directory is met a second time.
 */
export function* walkBootstrap(image: Bootstrap): Generator<WalkEntry> {
  const seen = new Set<Ino>([image.root])
  const stack: Array<{ path: Uint8Array; ino: Ino; isDirectory: boolean }> = [
    { path: new Uint8Array([0x2f]), ino: image.root, isDirectory: true },
  ]
  for (let at = stack.pop(); at !== undefined; at = stack.pop()) {
    yield at
    if (!at.isDirectory) continue
    const { path: parent, ino: directory } = at
    const children: typeof stack = []
    let last: Uint8Array | undefined
    image.list(directory, 0, (name, ino, type) => {
      if (last !== undefined && compareNames(last, name) >= 0)
        throw new RafsError(
          'BAD_DIRECTORY',
          `directory ${directory} is not in order; the bootstrap is damaged or crafted`,
        )
      last = name.slice()
      const isDirectory = type === 4
      if (isDirectory && seen.has(ino))
        throw new RafsError('BAD_DIRECTORY', `directory ${ino} is met twice; the bootstrap is damaged or crafted`)
      if (isDirectory) seen.add(ino)
      children.push({ path: join(parent, last), ino, isDirectory })
      return true
    })
    for (const child of children.reverse()) stack.push(child)
  }
}

function join(parent: Uint8Array, name: Uint8Array): Uint8Array {
  const base = parent.length === 1 ? 0 : parent.length
  const path = new Uint8Array(base + 1 + name.length)
  path.set(parent.subarray(0, base))
  path[base] = 0x2f
  path.set(name, base + 1)
  return path
}

/** An image as canonical text, a line an entry (JSON), in the order of {@link walkBootstrap}. Two images show the same tree when their dumps are equal. */
export function* dumpBootstrap(image: Bootstrap): Generator<string> {
  for (const entry of dumpEntries(image)) yield JSON.stringify(entry)
}

/** The same as objects. */
export function* dumpEntries(image: Bootstrap): Generator<DumpEntry> {
  const attributes = new Attributes()
  const firstPaths = new Map<Ino, string>()
  const spans: ChunkSpan[] = []
  for (const { path, ino } of walkBootstrap(image)) {
    image.attributes(ino, attributes)
    const text = escapePath(path)
    const entry = describe(image, attributes, text)
    if (entry.type === 'file' && attributes.nlink > 1) {
      const first = firstPaths.get(ino) ?? text
      firstPaths.set(ino, first)
      entry.hardlink = first
    }
    if (entry.type === 'file' && attributes.size > 0) entry.chunks = digests(image, ino, attributes.size, spans)
    yield entry
  }
}

function describe(image: Bootstrap, of: Attributes, path: string): DumpEntry {
  const type = TYPES.find(([bits]) => isType(of.mode, bits))?.[1]
  if (type === undefined)
    throw new RafsError(
      'BAD_INODE',
      `${path} has mode 0${of.mode.toString(8)}, which is no file type; the bootstrap is damaged or crafted`,
    )
  const entry: DumpEntry = {
    path,
    type,
    mode: (of.mode & 0o7777).toString(8).padStart(4, '0'),
    uid: of.uid,
    gid: of.gid,
    mtime: of.mtime,
    mtime_nsec: of.mtimeNsec,
    nlink: of.nlink,
  }
  if (type === 'file' || type === 'symlink' || type === 'dir') entry.size = of.size
  if (type === 'char' || type === 'block') entry.rdev = formatDevice(of.rdev)
  if (type === 'symlink') entry.target = escapePath(image.readlink(of.ino))
  const xattrs = of.hasXattrs ? image.xattrs(of.ino) : []
  if (xattrs.length > 0) {
    const pairs = xattrs.map(({ name, value }) => [escapePath(name), Buffer.from(value).toString('base64')] as const)
    entry.xattrs = Object.fromEntries(pairs.sort(([a], [b]) => (a < b ? -1 : 1)))
  }
  return entry
}

function digests(image: Bootstrap, ino: Ino, size: number, spans: ChunkSpan[]): string[] {
  const found: string[] = []
  const info = new ChunkInfo()
  const count = image.chunks(ino, 0, size, spans)
  for (let index = 0; index < count; index++) {
    const span = spans[index] // filled by `chunks`
    const layout = image.layout(span.blobIndex)
    // A chunk without a record (equal digests collapsed, or tarfs) is told by its place.
    if (!layout.has(span.chunkIndex)) found.push(`${span.blobIndex}:${span.chunkIndex}`)
    else {
      layout.chunk(span.chunkIndex, info)
      found.push(Buffer.from(info.digest).toString('hex'))
    }
  }
  return found
}

/** Printable ASCII as it is; every other byte and `%` as `%XX`. */
export function escapePath(path: Uint8Array): string {
  let text = ''
  for (const byte of path)
    text +=
      byte >= 0x20 && byte <= 0x7e && byte !== 0x25
        ? String.fromCharCode(byte)
        : `%${byte.toString(16).toUpperCase().padStart(2, '0')}`
  return text
}

/** `major:minor` of a 32-bit Linux dev_t. */
function formatDevice(rdev: number): string {
  const major = (rdev >>> 8) & 0xfff
  const minor = (rdev & 0xff) | ((rdev >>> 12) & 0xfff00)
  return `${major}:${minor}`
}
