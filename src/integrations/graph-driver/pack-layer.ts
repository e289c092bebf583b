import { type BigIntStats, closeSync, constants, openSync, readlinkSync, readSync } from 'node:fs'
import { listXattrs } from '../../kernel/index.ts'
import { type TarHeader, type TarSink, type TarType, TarWriter } from '../../tar/index.ts'
import { bytesOf, CHANGE, type Change, isOpaque, isWhiteout, namesIn, statOf } from './changes.ts'
import type { Owner } from './id-map.ts'

const WHITEOUT = '.wh.'
const OPAQUE = '.wh..wh..opq'
const PIECE_BYTES = 1 << 20
/** These steer overlayfs on this machine; they are no part of a layer. */
const OVERLAY_XATTR = /^(?:trusted|user)\.overlay\./

type ToContainer = (uid: number, gid: number) => Owner

/** Writes a directory in overlayfs's form as a layer: what is deleted as `.wh.NAME`, directories that hide lower ones with `.wh..wh..opq` in them. */
export async function packLayer(diff: string, sink: TarSink, owner: ToContainer): Promise<void> {
  const packer = new Packer(diff, sink, owner)
  const walk = async (path: string): Promise<void> => {
    for (const name of namesIn(diff + path)) {
      const at = `${path}/${name}`
      const stats = statOf(diff + at)
      if (stats === undefined) continue
      if (isWhiteout(stats)) {
        await packer.whiteout(`${path}/${WHITEOUT}${name}`)
        continue
      }
      await packer.add(at, stats)
      if (!stats.isDirectory()) continue
      if (isOpaque(diff + at)) await packer.whiteout(`${at}/${OPAQUE}`)
      await walk(at)
    }
  }
  await walk('')
  await packer.finish()
}

/** Writes paths of a whole tree that changed. */
export async function packChanges(
  root: string,
  changes: readonly Change[],
  sink: TarSink,
  owner: ToContainer,
): Promise<void> {
  const packer = new Packer(root, sink, owner)
  for (const { path, kind } of changes) {
    if (kind === CHANGE.deleted) {
      const slash = path.lastIndexOf('/')
      await packer.whiteout(`${path.slice(0, slash)}/${WHITEOUT}${path.slice(slash + 1)}`)
      continue
    }
    const stats = statOf(root + path)
    if (stats !== undefined) await packer.add(path, stats)
  }
  await packer.finish()
}

class Packer {
  readonly #root: string
  readonly #tar: TarWriter
  readonly #owner: ToContainer
  /** First paths of files with more than one name. */
  readonly #links = new Map<string, string>()

  constructor(root: string, sink: TarSink, owner: ToContainer) {
    this.#root = root
    this.#tar = new TarWriter(sink)
    this.#owner = owner
  }

  async add(path: string, stats: BigIntStats): Promise<void> {
    const type = typeOf(stats)
    if (type === undefined) return // sockets are no part of an image
    const key = `${stats.dev}:${stats.ino}`
    const first = stats.isDirectory() || stats.nlink === 1n ? undefined : this.#links.get(key)
    if (first !== undefined) {
      await this.#tar.add({ ...this.#header(path, stats), type: 'hardlink', link: bytesOf(first.slice(1)) })
      return
    }
    if (!stats.isDirectory() && stats.nlink > 1n) this.#links.set(key, path)
    const header = { ...this.#header(path, stats), type, xattrs: this.#xattrs(path) }
    if (type === 'symlink') await this.#tar.add({ ...header, link: readlinkSync(bytesOf(this.#root + path), 'buffer') })
    else if (type === 'file') await this.#file(path, header, Number(stats.size))
    else await this.#tar.add(header)
  }

  /** When something was deleted is nothing that a layer says: the same layer gives the same bytes. */
  async whiteout(path: string): Promise<void> {
    await this.#tar.add({ path: bytesOf(path.slice(1)), type: 'file', size: 0, mode: 0 })
  }

  async finish(): Promise<void> {
    await this.#tar.finish()
  }

  #header(path: string, stats: BigIntStats): Omit<TarHeader, 'type'> {
    const nanoseconds = ((stats.mtimeNs % 1_000_000_000n) + 1_000_000_000n) % 1_000_000_000n
    return {
      path: bytesOf(`${path.slice(1)}${stats.isDirectory() ? '/' : ''}`),
      mode: Number(stats.mode & 0o7777n),
      ...this.#owner(Number(stats.uid), Number(stats.gid)),
      mtimeSeconds: Number((stats.mtimeNs - nanoseconds) / 1_000_000_000n),
      mtimeNanoseconds: Number(nanoseconds),
      ...(stats.isCharacterDevice() || stats.isBlockDevice() ? deviceOf(Number(stats.rdev)) : {}),
    }
  }

  #xattrs(path: string): TarHeader['xattrs'] {
    return listXattrs(bytesOf(this.#root + path)).filter(
      ({ name }) => !OVERLAY_XATTR.test(Buffer.from(name).toString('latin1')),
    )
  }

  /** A file that grows or shrinks meanwhile is written with the size that it had. */
  async #file(path: string, header: Omit<TarHeader, 'size'>, size: number): Promise<void> {
    const fd = openSync(bytesOf(this.#root + path), constants.O_RDONLY | constants.O_NOFOLLOW)
    try {
      await this.#tar.add({ ...header, size }, pieces(fd, size))
    } finally {
      closeSync(fd)
    }
  }
}

function* pieces(fd: number, size: number): Generator<Uint8Array> {
  const buffer = Buffer.allocUnsafe(Math.min(PIECE_BYTES, size))
  for (let at = 0; at < size; ) {
    const length = Math.min(buffer.length, size - at)
    const got = readSync(fd, buffer, 0, length, at)
    if (got === 0) buffer.fill(0, 0, length)
    const piece = buffer.subarray(0, got === 0 ? length : got)
    at += piece.length
    yield piece
  }
}

function typeOf(stats: BigIntStats): TarType | undefined {
  if (stats.isFile()) return 'file'
  if (stats.isDirectory()) return 'directory'
  if (stats.isSymbolicLink()) return 'symlink'
  if (stats.isCharacterDevice()) return 'char'
  if (stats.isBlockDevice()) return 'block'
  return stats.isFIFO() ? 'fifo' : undefined
}

/** From a dev_t as glibc has it. */
function deviceOf(rdev: number): { devMajor: number; devMinor: number } {
  return { devMajor: (rdev >>> 8) & 0xfff, devMinor: (rdev & 0xff) | (Math.floor(rdev / 0x1000) & 0xfff00) }
}
