import type { ByteReader } from '../byte-reader.ts'
import { RafsError } from '../errors.ts'
import { plainName } from '../dictionary-image.ts'
import { checkName, compareNames, isDot, isDotDot, NAME_MAX } from '../names.ts'
import type { InodeV6 } from './inode.ts'
import { DATA_LAYOUT, DIRENT } from './layout.ts'

/** DT_* by dirent file type: unknown, regular, directory, char, block, fifo, socket, symlink. */
const DT_TYPES: readonly number[] = [0, 8, 4, 2, 6, 1, 12, 10]
/** Entries that fit a block of 4096 bytes: fewer than 4096 / (12 + 1), so a cookie is block × this + entry + 1. */
const COOKIE_STRIDE = 512

/** One block of dirents, checked when it is opened; a reused record. */
class DirentBlock {
  at = 0
  length = 0
  count = 0

  open(from: ByteReader, inode: InodeV6, block: number, blockSize: number): void {
    const full = Math.floor(inode.size / blockSize)
    this.length = block < full ? blockSize : inode.size - full * blockSize
    const isTail = inode.layout === DATA_LAYOUT.INLINE && block === full
    this.at = isTail ? inode.endAt : (inode.union + block) * blockSize
    from.check(this.at, this.length)
    const first = this.length < DIRENT.size ? 0 : from.u16(this.at + DIRENT.nameOffset)
    this.count = first / DIRENT.size
    if (first === 0 || first % DIRENT.size !== 0 || first >= this.length)
      throw bad(inode.nid, `block ${block} starts its names at ${first}`)
  }

  /** The name of an entry; a view. */
  name(from: ByteReader, index: number, nid: number): Uint8Array {
    const entry = this.at + index * DIRENT.size
    const start = from.u16(entry + DIRENT.nameOffset)
    let end = this.length
    if (index + 1 < this.count) end = from.u16(entry + DIRENT.size + DIRENT.nameOffset)
    else {
      // The last name of a block ends at a NUL or with the block. The search must not leave the block: a bootstrap without NULs would cost its length each time.
      const stop = this.at + end
      let nul = this.at + start
      while (nul < stop && from.bytes[nul] !== 0) nul++
      end = nul - this.at
    }
    if (start < this.count * DIRENT.size || end <= start || end > this.length || end - start > NAME_MAX)
      throw bad(nid, `entry ${index} has its name at ${start} to ${end}`)
    return from.bytes.subarray(this.at + start, this.at + end)
  }

  nid(from: ByteReader, index: number): number {
    return from.u64(this.at + index * DIRENT.size + DIRENT.nid)
  }

  type(from: ByteReader, index: number): number {
    return DT_TYPES[from.u8(this.at + index * DIRENT.size + DIRENT.type)] ?? 0
  }
}

/** Reads the dirents of directories; one reused block record for each thread's reader. */
export class DirectoryV6 {
  readonly #from: ByteReader
  readonly #blockSize: number
  readonly #block = new DirentBlock()

  constructor(from: ByteReader, blockSize: number) {
    this.#from = from
    this.#blockSize = blockSize
  }

  /** Inode of a name, found by halving blocks and then entries (the whole list is in bytewise order); -1 when it is not there. */
  find(inode: InodeV6, name: Uint8Array): number {
    let low = 0
    let high = Math.ceil(inode.size / this.#blockSize) - 1
    const { nid } = inode
    while (low <= high) {
      const middle = (low + high) >> 1
      this.#block.open(this.#from, inode, middle, this.#blockSize)
      if (compareNames(name, this.#block.name(this.#from, 0, nid)) < 0) high = middle - 1
      else if (compareNames(name, this.#block.name(this.#from, this.#block.count - 1, nid)) > 0) low = middle + 1
      else return this.#findInBlock(name, nid)
    }
    return -1
  }

  #findInBlock(name: Uint8Array, nid: number): number {
    let low = 0
    let high = this.#block.count - 1
    while (low <= high) {
      const middle = (low + high) >> 1
      const order = compareNames(name, this.#block.name(this.#from, middle, nid))
      if (order === 0) return this.#block.nid(this.#from, middle)
      if (order < 0) high = middle - 1
      else low = middle + 1
    }
    return -1
  }

  /** See Bootstrap.list. */
  list(
    inode: InodeV6,
    cookie: number,
    visit: (name: Uint8Array, ino: number, type: number, cookie: number) => boolean,
  ): void {
    const blocks = Math.ceil(inode.size / this.#blockSize)
    const { nid } = inode
    // The visitor may use this reader again, and its records: the inode is loaded anew for each block, and the block is this call's own.
    const opened = new DirentBlock()
    let entry = cookie % COOKIE_STRIDE
    for (let block = Math.floor(cookie / COOKIE_STRIDE); block < blocks; block++, entry = 0) {
      inode.load(this.#from, this.#metaAt, nid)
      opened.open(this.#from, inode, block, this.#blockSize)
      for (; entry < opened.count; entry++) {
        const name = plainName(opened.name(this.#from, entry, nid))
        if (isDot(name) || isDotDot(name)) continue
        checkName(name, nid)
        const next = block * COOKIE_STRIDE + entry + 1
        if (!visit(name, opened.nid(this.#from, entry), opened.type(this.#from, entry), next)) return
      }
    }
  }

  /** Set once by the reader: where nid 0 lies. */
  #metaAt = 0
  startsAt(metaAt: number): this {
    this.#metaAt = metaAt
    return this
  }
}

function bad(nid: number, why: string): RafsError {
  return new RafsError('BAD_DIRECTORY', `directory ${nid}: ${why}; the bootstrap is damaged or crafted`)
}
