import {
  Attributes,
  type Bootstrap,
  escapePath,
  type Ino,
  isType,
  MODE,
  RafsError,
  walkBootstrap,
} from '../rafs/index.ts'
import { type TarHeader, type TarSink, type TarType, TarWriter } from '../tar/index.ts'
import { type HostNames, readHostNames } from './host-names.ts'
import { type ContentRun, ContentStream } from './image-data.ts'

/** What unpacking needs besides the image. */
export interface UnpackRun extends ContentRun {
  /** Takes the tar. */
  readonly sink: TarSink
  /** Told of what no tar can hold: the path, and why. */
  readonly onLost: (path: string, reason: string) => void
}

const TYPES: ReadonlyArray<readonly [number, TarType]> = [
  [MODE.FILE, 'file'],
  [MODE.DIRECTORY, 'directory'],
  [MODE.SYMLINK, 'symlink'],
  [MODE.CHAR, 'char'],
  [MODE.BLOCK, 'block'],
  [MODE.FIFO, 'fifo'],
]

/**
 * Writes an image as a tar: each path below the root in the order of the directories, the first path of an inode as what it is and the others as hard links, whiteouts as
 * they are stored. Contents are streamed in a few MiB of memory. The same image gives the same bytes on machines that name owners alike. Throws RafsError for a damaged
 * bootstrap, and what `data` throws.
 */
export async function unpackImage(image: Bootstrap, run: UnpackRun): Promise<void> {
  const names = await readHostNames()
  const contents = new ContentStream(image, files(image), run)
  try {
    await writeTar(image, run, names, contents)
  } finally {
    await contents.close()
  }
}

async function writeTar(
  image: Bootstrap,
  { sink, signal, onLost }: UnpackRun,
  names: HostNames,
  contents: ContentStream,
): Promise<void> {
  const tar = new TarWriter(sink)
  const attributes = new Attributes()
  const links = new FirstPaths()
  for (const { path, ino, depth } of walkBootstrap(image)) {
    signal.throwIfAborted()
    if (depth === 0) continue // a tar has no need of its root
    image.attributes(ino, attributes)
    const type = typeOf(attributes)
    if (type === undefined) {
      onLost(escapePath(path), 'a tar cannot hold a socket')
      continue
    }
    const header = headerOf(image, attributes, { path, type, names })
    const first = links.first(attributes, path)
    if (first !== undefined) await tar.add({ ...header, type: 'hardlink', link: first })
    else await tar.add(header, type === 'file' ? contents.content(attributes.size) : [])
  }
  await tar.finish()
}

/** Undefined for a socket. */
function typeOf({ mode, ino }: Attributes): TarType | undefined {
  if (isType(mode, MODE.SOCKET)) return undefined
  const type = TYPES.find(([bits]) => isType(mode, bits))?.[1]
  if (type !== undefined) return type
  throw new RafsError(
    'BAD_INODE',
    `inode ${ino} has mode 0${mode.toString(8)}, which is no file type; the bootstrap is damaged or crafted`,
  )
}

function headerOf(
  image: Bootstrap,
  of: Attributes,
  entry: { readonly path: Uint8Array; readonly type: TarType; readonly names: HostNames },
): TarHeader {
  const { path, type, names } = entry
  const isDevice = type === 'char' || type === 'block'
  return {
    path: path.subarray(1),
    type,
    link: type === 'symlink' ? shownTarget(image.readlink(of.ino)) : undefined,
    mode: of.mode & 0o7777,
    uid: of.uid,
    gid: of.gid,
    userName: names.user(of.uid),
    groupName: names.group(of.gid),
    size: type === 'file' ? of.size : 0,
    mtimeSeconds: of.mtime,
    mtimeNanoseconds: of.mtimeNsec,
    devMajor: isDevice ? (of.rdev >>> 8) & 0xfff : 0,
    devMinor: isDevice ? (of.rdev & 0xff) | ((of.rdev >>> 12) & 0xfff00) : 0,
    xattrs: of.hasXattrs ? image.xattrs(of.ino) : [],
  }
}

/** A target as a mount shows it: up to a NUL, which some images of the original have inside. */
function shownTarget(target: Uint8Array): Uint8Array {
  const end = target.indexOf(0)
  return end < 0 ? target : target.subarray(0, end)
}

/** Which path of an inode came first. */
class FirstPaths {
  readonly #paths = new Map<Ino, Uint8Array>()

  /** The first path of this inode when it is not `path`. It begins with a slash, as the original's do. */
  first({ ino, mode, nlink }: Attributes, path: Uint8Array): Uint8Array | undefined {
    if (nlink < 2 || isType(mode, MODE.DIRECTORY)) return undefined
    const first = this.#paths.get(ino)
    if (first === undefined) this.#paths.set(ino, path)
    return first
  }
}

/** Files in the order in which their contents are written: each inode once. */
function* files(image: Bootstrap): Generator<Ino> {
  const attributes = new Attributes()
  const links = new FirstPaths()
  for (const { path, ino } of walkBootstrap(image)) {
    image.attributes(ino, attributes)
    if (isType(attributes.mode, MODE.FILE) && links.first(attributes, path) === undefined) yield ino
  }
}
