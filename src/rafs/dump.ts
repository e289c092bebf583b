import { ChunkInfo } from '../blob/index.ts'
import { Attributes, type Bootstrap, type ChunkSpan, type Ino } from './bootstrap.ts'
import { chunkWindows } from './chunk-windows.ts'
import { RafsError } from './errors.ts'
import { directoryType, isType, MODE } from './mode.ts'
import { compareNames, SLASH } from './names.ts'

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

/** A path and its inode. A directory comes before what it holds, and that in bytewise order of names. */
export interface WalkEntry {
  /** `/` for the root, else absolute, as bytes. */
  readonly path: Uint8Array
  /** Path of the directory that holds it, one array for all of its entries, and the name there; both empty for the root. */
  readonly directory: Uint8Array
  readonly name: Uint8Array
  readonly ino: Ino
  /** Names in the path: 0 for the root. */
  readonly depth: number
}

/** Longest path that is followed, bytes: sixteen times what Linux takes in one call. Without it a chain of directories costs the square of its length. */
const PATH_MAX = 0x1_0000

/** An entry to visit; the path is joined when its turn comes, so that a large directory costs its names only. */
interface Pending {
  readonly parent: Uint8Array
  readonly name: Uint8Array
  readonly ino: Ino
  /** DT_* as the directory says, 0 = unknown. */
  readonly type: number
  readonly depth: number
}

/**
 * All paths of an image, parents before what they hold, sorted bytewise by path within each directory. Time and memory are bounded by the bootstrap's length: throws RafsError 'BAD_DIRECTORY'
 * when a directory is met a second time or out of order, says another type than the inode, or when there are more paths than the bytes can hold (entries used by many directories).
 */
export function* walkBootstrap(image: Bootstrap): Generator<WalkEntry> {
  const seen = new Set<Ino>()
  const attributes = new Attributes()
  const nothing = new Uint8Array(0)
  const stack: Pending[] = [{ parent: nothing, name: nothing, ino: image.root, type: 0, depth: 0 }]
  let count = 0
  for (let at = stack.pop(); at !== undefined; at = stack.pop()) {
    const { ino, depth } = at
    if (++count > image.entryLimit) throw bad(ino, `it is path number ${count}, more than the bootstrap can hold`)
    const path = depth === 0 ? new Uint8Array([SLASH]) : join(at.parent, at.name)
    image.attributes(ino, attributes)
    const { mode } = attributes
    if (at.type !== 0 && at.type !== directoryType(mode))
      throw bad(ino, `its directory says another type than its mode 0${mode.toString(8)}`)
    yield { path, directory: at.parent, name: at.name, ino, depth }
    if (!isType(mode, MODE.DIRECTORY)) continue
    if (seen.has(ino)) throw bad(ino, 'it is met twice')
    if (path.length > PATH_MAX) throw bad(ino, `its path has ${path.length} bytes, ${PATH_MAX} are followed`)
    seen.add(ino)
    pushChildren(image, ino, path, depth + 1, stack)
  }
}

/** Last child first, so that the first is popped first. */
function pushChildren(image: Bootstrap, directory: Ino, path: Uint8Array, depth: number, stack: Pending[]): void {
  const children: Pending[] = []
  image.list(directory, 0, (name, ino, type) => {
    const last = children.at(-1)
    if (last !== undefined && compareNames(last.name, name) >= 0) throw bad(directory, 'its entries are not in order')
    if (stack.length + children.length > image.entryLimit)
      throw bad(directory, 'it has more entries than the bootstrap can hold')
    children.push({ parent: path, name: name.slice(), ino, type, depth })
    return true
  })
  for (const child of children.reverse()) stack.push(child)
}

function bad(ino: Ino, why: string): RafsError {
  return new RafsError('BAD_DIRECTORY', `inode ${ino}: ${why}; the bootstrap is damaged or crafted`)
}

function join(parent: Uint8Array, name: Uint8Array): Uint8Array {
  const base = parent.length === 1 ? 0 : parent.length
  const path = new Uint8Array(base + 1 + name.length)
  path.set(parent.subarray(0, base))
  path[base] = SLASH
  path.set(name, base + 1)
  return path
}

/** An image's tree as canonical text, a line an entry (JSON), in the order of {@link walkBootstrap}. Two images show the same tree when their dumps are equal. */
export function* dumpBootstrap(image: Bootstrap): Generator<string> {
  for (const entry of dumpEntries(image)) yield JSON.stringify(entry)
}

/** The same as objects. */
export function* dumpEntries(image: Bootstrap): Generator<DumpEntry> {
  for (const { entry, ino } of describeEntries(image)) {
    if (entry.type === 'file' && (entry.size ?? 0) > 0) {
      entry.chunks = []
      for (const id of chunkIds(image, ino, entry.size ?? 0)) entry.chunks.push(id)
    }
    yield entry
  }
}

/** A path with all that is known of it but the chunks, which can be many. */
export interface DescribedEntry {
  readonly entry: DumpEntry
  readonly path: Uint8Array
  readonly ino: Ino
}

export function* describeEntries(image: Bootstrap): Generator<DescribedEntry> {
  const attributes = new Attributes()
  const paths = new PathTexts()
  const firsts = new Map<Ino, Place>()
  for (const { path, directory, name, ino } of walkBootstrap(image)) {
    image.attributes(ino, attributes)
    const entry = describe(image, attributes, paths.text(directory, name))
    if (entry.type !== 'dir' && attributes.nlink > 1) {
      const first = firsts.get(ino) ?? { directory, name }
      firsts.set(ino, first)
      entry.hardlink = paths.text(first.directory, first.name)
    }
    yield { entry, path, ino }
  }
}

interface Place {
  readonly directory: Uint8Array
  readonly name: Uint8Array
}

/** Paths as text; that of a directory is made once for what lies in it. */
class PathTexts {
  #directory: Uint8Array | undefined
  #text = ''

  text(directory: Uint8Array, name: Uint8Array): string {
    if (name.length === 0) return '/'
    if (directory !== this.#directory) {
      this.#directory = directory
      this.#text = directory.length === 1 ? '' : escapePath(directory)
    }
    return `${this.#text}/${escapePath(name)}`
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

/** What tells each chunk of a file, in order: its digest in hex. A chunk without a record (equal digests collapsed, or tarfs) is told by its place: `BLOB:CHUNK`. */
export function* chunkIds(image: Bootstrap, ino: Ino, size: number): Generator<string> {
  const info = new ChunkInfo()
  const spans: ChunkSpan[] = []
  for (const count of chunkWindows(image, ino, size, spans)) {
    for (let index = 0; index < count; index++) {
      const span = spans[index] // filled by `chunks`
      // A chunk of an external blob may be larger than what is asked for at once.
      if (span.offsetInChunk > 0) continue
      const layout = image.layout(span.blobIndex)
      if (layout.has(span.chunkIndex)) {
        layout.chunk(span.chunkIndex, info)
        yield Buffer.from(info.digest).toString('hex')
      } else yield `${span.blobIndex}:${span.chunkIndex}`
    }
  }
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
