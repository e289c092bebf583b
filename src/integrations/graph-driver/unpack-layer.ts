import {
  chmodSync,
  closeSync,
  fchmodSync,
  fchownSync,
  ftruncateSync,
  futimesSync,
  lchownSync,
  linkSync,
  lutimesSync,
  mkdirSync,
  openSync,
  type PathLike,
  rmSync,
  symlinkSync,
  unlinkSync,
  utimesSync,
  writeSync,
  constants,
} from 'node:fs'
import { makeNode, setTimes, setXattr } from '../../kernel/index.ts'
import { type TarEntry, TarReader } from '../../tar/index.ts'
import { type DirectoryNode, type LayerNode, LayerTree, type OtherNode, type Place } from './layer-tree.ts'

const WHITEOUT = '.wh.'
const OPAQUE = '.wh..wh..opq'
/** aufs' own files; nothing that an image means. */
const AUFS = '.wh..wh.'
const OVERLAY_OPAQUE = 'trusted.overlay.opaque'
/** These steer overlayfs; a layer that brings its own could show what is not in it. */
const OVERLAY_XATTR = /^(?:trusted|user)\.overlay\./
const BUFFER_BYTES = 1 << 20
const CREATE = constants.O_CREAT | constants.O_EXCL | constants.O_WRONLY | constants.O_NOFOLLOW

const TYPE_BITS = { char: 0o020000, block: 0o060000, fifo: 0o010000 } as const

/** What a layer became. */
export interface Unpacked {
  readonly entries: number
  /** Content of files, bytes. */
  readonly bytes: number
}

export interface UnpackOptions {
  /** Of the directory itself, unless the layer says one; default 0755. */
  readonly rootMode?: number
  /** Whom the host knows as the layer's users. */
  readonly owner?: (uid: number, gid: number) => { readonly uid: number; readonly gid: number }
}

/**
 * Unpacks a layer into an empty directory that nobody else writes to, as overlayfs wants a lower layer: a deleted path is a character device 0/0, a
 * directory that hides lower ones has `trusted.overlay.opaque`. Owners, modes, times, attributes, hard links and devices are kept. No entry gets out of
 * the directory. System calls are synchronous: this belongs into a worker thread.
 */
export async function unpackLayer(
  tar: AsyncIterable<Uint8Array>,
  directory: string,
  options: UnpackOptions = {},
): Promise<Unpacked> {
  const { rootMode = 0o755, owner } = options
  const reader = new TarReader(tar)
  const unpacker = new Unpacker(directory, rootMode)
  for (let next = await reader.next(); next !== undefined; next = await reader.next()) {
    const entry = owner === undefined ? next : { ...next, ...owner(next.uid, next.gid) }
    const open = unpacker.add(entry)
    if (open !== undefined) await unpacker.fill(open, entry, reader)
  }
  unpacker.finish()
  return { entries: unpacker.entries, bytes: unpacker.bytes }
}

interface OpenFile {
  readonly fd: number
  readonly path: string | Buffer
}

class Unpacker {
  entries = 0
  bytes = 0
  readonly #directory: string
  readonly #bytesDirectory: Buffer
  readonly #tree: LayerTree
  readonly #buffer = Buffer.allocUnsafeSlow(BUFFER_BYTES)
  /** Modes and times of directories are set last: what is made in them would change their times, and a setgid bit would be handed down. */
  readonly #directories = new Map<DirectoryNode, TarEntry>()
  readonly #uid = process.geteuid?.() ?? 0
  readonly #gid = process.getegid?.() ?? 0

  constructor(directory: string, rootMode: number) {
    this.#directory = directory
    this.#bytesDirectory = Buffer.from(directory)
    this.#tree = new LayerTree((path, over) => this.#makeDirectory(path, over))
    chmodSync(directory, rootMode)
  }

  /** Makes what the entry says; gives a file whose content is to come. */
  add(entry: TarEntry): OpenFile | undefined {
    this.entries++
    const place = this.#tree.place(Buffer.from(entry.path).toString('latin1'))
    if (place.name === '') {
      // The root itself is there already.
      if (entry.type === 'directory') this.#directories.set(this.#tree.root, entry)
      return undefined
    }
    if (place.name.startsWith(WHITEOUT)) {
      this.#whiteout(place)
      return undefined
    }
    const old = place.parent.children.get(place.name)
    if (entry.type === 'directory') this.#addDirectory(place, old, entry)
    else {
      if (old !== undefined) this.#remove(place, old)
      if (entry.type === 'file') return this.#addFile(place)
      this.#addSpecial(place, entry)
    }
    return undefined
  }

  /** Writes content and attributes of a file just made, and closes it. */
  async fill({ fd, path }: OpenFile, entry: TarEntry, reader: TarReader): Promise<void> {
    try {
      for (let position = 0; ; ) {
        // Holes stay holes; a hostile archive's cost nothing.
        for (let hole = reader.holeAhead(); hole > 0; hole = reader.holeAhead()) {
          reader.skipHole(hole)
          position += hole
        }
        const wanted = Math.min(BUFFER_BYTES, runEnd(entry, position) - position)
        if (wanted <= 0) break
        const got = await reader.read(this.#buffer.subarray(0, wanted))
        if (got === 0) break
        this.#write(fd, got, position)
        position += got
      }
      if (entry.sparse !== undefined) ftruncateSync(fd, entry.size)
      this.bytes += entry.size
      if (entry.uid !== this.#uid || entry.gid !== this.#gid) fchownSync(fd, entry.uid, entry.gid)
      fchmodSync(fd, entry.mode) // after the owner: a change of owner drops setuid
      this.#setXattrs(path, entry)
      if (isPlainTime(entry)) futimesSync(fd, entry.mtimeSeconds, entry.mtimeSeconds)
      else setTimes(bytesOf(path), entry.mtimeSeconds, entry.mtimeNanoseconds)
    } finally {
      closeSync(fd)
    }
  }

  /** Sets what directories wait for. Call once, after the last entry. */
  finish(): void {
    // A directory's own times do not change with those of what is in it: any order will do.
    for (const [node, entry] of this.#directories) {
      const path = this.#path(node.path)
      this.#own(path, entry)
      chmodSync(path, entry.mode)
      this.#setXattrs(path, entry)
      if (isPlainTime(entry)) utimesSync(path, entry.mtimeSeconds, entry.mtimeSeconds)
      else setTimes(bytesOf(path), entry.mtimeSeconds, entry.mtimeNanoseconds)
    }
  }

  #addFile(place: Place): OpenFile {
    const path = this.#path(`${place.parent.path}/${place.name}`)
    const fd = openSync(path, CREATE, 0o600)
    this.#tree.set(place, FILE)
    return { fd, path }
  }

  #addDirectory(place: Place, old: LayerNode | undefined, entry: TarEntry): void {
    let node = old
    if (node?.kind !== 'directory') {
      const path = `${place.parent.path}/${place.name}`
      if (old !== undefined && old.kind !== 'whiteout') this.#remove(place, old)
      this.#makeDirectory(path, old?.kind === 'whiteout' ? old : undefined)
      node = { kind: 'directory', path, children: new Map() }
      this.#tree.set(place, node)
    }
    this.#directories.set(node, entry)
  }

  #addSpecial(place: Place, entry: TarEntry): void {
    const path = this.#path(`${place.parent.path}/${place.name}`)
    if (entry.type === 'hardlink') return this.#addHardlink(place, path, entry)
    if (entry.type === 'symlink') {
      symlinkSync(Buffer.from(entry.link), path)
      this.#tree.set(place, { kind: 'symlink', target: Buffer.from(entry.link).toString('latin1') })
    } else if (entry.type === 'char' || entry.type === 'block' || entry.type === 'fifo') {
      makeNode(bytesOf(path), TYPE_BITS[entry.type] | 0o600, deviceNumber(entry))
      this.#tree.set(place, FILE)
    }
    this.#own(path, entry)
    if (entry.type !== 'symlink') chmodSync(path, entry.mode)
    this.#setXattrs(path, entry)
    if (isPlainTime(entry)) lutimesSync(path, entry.mtimeSeconds, entry.mtimeSeconds)
    else setTimes(bytesOf(path), entry.mtimeSeconds, entry.mtimeNanoseconds)
  }

  /** A hard link has the attributes of what it links to. */
  #addHardlink(place: Place, path: PathLike, entry: TarEntry): void {
    const target = this.#tree.place(Buffer.from(entry.link).toString('latin1'))
    const node = target.parent.children.get(target.name)
    if (node === undefined || node.kind === 'directory' || node.kind === 'whiteout')
      throw new Error(
        `cannot unpack ${show(entry.path)}: a hard link to ${show(entry.link)}, which is ${node === undefined ? 'not in the layer' : `a ${node.kind}`}`,
      )
    linkSync(this.#path(`${target.parent.path}/${target.name}`), path)
    this.#tree.set(place, node)
  }

  #whiteout({ parent, name }: Place): void {
    if (name === OPAQUE) return this.#makeOpaque(parent.path)
    if (name.startsWith(AUFS)) return
    const hidden = { parent, name: name.slice(WHITEOUT.length) }
    if (hidden.name === '' || hidden.name === '.' || hidden.name === '..')
      throw new Error(`the layer is hostile: it deletes ${JSON.stringify(`${parent.path}/${hidden.name}`)}`)
    const own = parent.children.get(hidden.name)
    // It deletes what lower layers have; what this layer has itself stays, and hides them already when it is no directory.
    if (own?.kind === 'directory') return this.#makeOpaque(own.path)
    if (own !== undefined) return
    makeNode(bytesOf(this.#path(`${parent.path}/${hidden.name}`)), TYPE_BITS.char, 0)
    this.#tree.set(hidden, { kind: 'whiteout' })
  }

  #makeOpaque(path: string): void {
    setXattr(bytesOf(this.#path(path)), OVERLAY_OPAQUE, Buffer.from('y'))
  }

  #makeDirectory(path: string, over: OtherNode | undefined): void {
    if (over !== undefined) unlinkSync(this.#path(path))
    mkdirSync(this.#path(path), 0o755)
    if (over !== undefined) this.#makeOpaque(path)
  }

  #remove(place: Place, old: LayerNode): void {
    const path = this.#path(`${place.parent.path}/${place.name}`)
    if (old.kind !== 'directory') unlinkSync(path)
    else {
      rmSync(path, { recursive: true })
      for (const node of this.#directories.keys())
        if (node.path === old.path || node.path.startsWith(`${old.path}/`)) this.#directories.delete(node)
    }
    this.#tree.delete(place)
  }

  #write(fd: number, length: number, position: number): void {
    for (let done = 0; done < length; ) done += writeSync(fd, this.#buffer, done, length - done, position + done)
  }

  #own(path: PathLike, entry: TarEntry): void {
    if (entry.uid !== this.#uid || entry.gid !== this.#gid) lchownSync(path, entry.uid, entry.gid)
  }

  #setXattrs(path: string | Buffer, entry: TarEntry): void {
    for (const { name, value } of entry.xattrs)
      if (!OVERLAY_XATTR.test(Buffer.from(name).toString('latin1'))) setXattr(bytesOf(path), name, value)
  }

  /** The path of the file system: text where it is ASCII (fast), else the very bytes of the layer. */
  #path(path: string): string | Buffer {
    if (/^[\x20-\x7e]*$/.test(path)) return this.#directory + path
    return Buffer.concat([this.#bytesDirectory, Buffer.from(path, 'latin1')])
  }
}

const FILE: OtherNode = { kind: 'file' }

/** Where the data at `position` ends. */
function runEnd(entry: TarEntry, position: number): number {
  if (entry.sparse === undefined) return entry.size
  const run = entry.sparse.find(({ offset, length }) => offset + length > position)
  return run === undefined ? position : run.offset + run.length
}

/** One that Node's own calls set exactly: they take seconds as a floating-point number. */
function isPlainTime(entry: TarEntry): boolean {
  return entry.mtimeNanoseconds === 0 && entry.mtimeSeconds >= 0
}

/** dev_t as glibc's makedev has it. */
function deviceNumber({ devMajor, devMinor }: TarEntry): number {
  if (devMajor > 0xfff || devMinor > 0xfffff) throw new Error(`there is no device ${devMajor}:${devMinor}`)
  // 20 bits of minor around 12 of major; the topmost bits would make a negative number of it.
  return (devMinor & 0xfff00) * 0x1000 + (devMajor << 8) + (devMinor & 0xff)
}

function bytesOf(path: string | Buffer): Buffer {
  return typeof path === 'string' ? Buffer.from(path) : path
}

function show(path: Uint8Array): string {
  return JSON.stringify(Buffer.from(path).toString().slice(0, 300))
}
