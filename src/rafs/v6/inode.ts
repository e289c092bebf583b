import type { ByteReader } from '../byte-reader.ts'
import { RafsError } from '../errors.ts'
import { COMPACT, DATA_LAYOUT, EXTENDED_INODE, SLOT, XATTR_HEADER_SIZE } from './layout.ts'

/** The fields of one inode; a reused record. Offsets in bytes from the bootstrap's start. */
export class InodeV6 {
  nid = -1
  mode = 0
  nlink = 0
  uid = 0
  gid = 0
  size = 0
  mtime = 0
  mtimeNsec = 0
  isImplied = false
  /** i_u: block of the data, device number, or chunk format. */
  union = 0
  /** One of DATA_LAYOUT. */
  layout = 0
  xattrAt = 0
  xattrSize = 0
  /** Where inline data starts: after the inode and its xattrs. */
  endAt = 0

  /** Fills the record with inode `nid`, or leaves it when it holds that already. Throws 'BAD_INODE' or 'OUT_OF_RANGE'. */
  load(from: ByteReader, metaAt: number, nid: number): void {
    if (this.nid === nid) return
    this.nid = -1
    const at = metaAt + nid * SLOT
    if (!(nid >= 0) || at + COMPACT.size > from.length)
      throw new RafsError(
        'OUT_OF_RANGE',
        `inode ${nid} lies outside the bootstrap of ${from.length} bytes; the image is damaged or crafted`,
      )
    const format = from.u16(at + COMPACT.format)
    this.layout = (format >> 1) & 7
    const isKnown =
      this.layout === DATA_LAYOUT.PLAIN || this.layout === DATA_LAYOUT.INLINE || this.layout === DATA_LAYOUT.CHUNKS
    if (format > 15 || !isKnown)
      throw new RafsError('BAD_INODE', `inode ${nid} has format 0x${format.toString(16)}, which RAFS does not use`)
    if ((format & 1) === 1) this.#loadExtended(from, at)
    else this.#loadCompact(from, at)
    const inodeEnd = at + ((format & 1) === 1 ? EXTENDED_INODE.size : COMPACT.size)
    const count = from.u16(at + COMPACT.xattrCount)
    this.xattrAt = inodeEnd
    this.xattrSize = count === 0 ? 0 : XATTR_HEADER_SIZE + (count - 1) * 4
    this.endAt = inodeEnd + this.xattrSize
    from.check(inodeEnd, this.xattrSize)
    this.nid = nid
  }

  #loadCompact(from: ByteReader, at: number): void {
    this.mode = from.u16(at + COMPACT.mode)
    this.nlink = from.u16(at + COMPACT.nlink)
    this.size = from.u32(at + COMPACT.fileSize)
    this.union = from.u32(at + COMPACT.union)
    this.uid = from.u16(at + COMPACT.uid)
    this.gid = from.u16(at + COMPACT.gid)
    this.mtime = 0
    this.mtimeNsec = 0
    this.isImplied = false
  }

  #loadExtended(from: ByteReader, at: number): void {
    this.mode = from.u16(at + EXTENDED_INODE.mode)
    this.nlink = from.u32(at + EXTENDED_INODE.nlink)
    this.size = from.u64(at + EXTENDED_INODE.fileSize)
    this.union = from.u32(at + EXTENDED_INODE.union)
    this.uid = from.u32(at + EXTENDED_INODE.uid)
    this.gid = from.u32(at + EXTENDED_INODE.gid)
    this.mtime = from.i64(at + EXTENDED_INODE.mtime)
    this.mtimeNsec = from.u32(at + EXTENDED_INODE.mtimeNsec)
    this.isImplied = from.u8(at + EXTENDED_INODE.implied) === 1
  }
}
