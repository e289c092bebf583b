import type { BlobInfo, BlobLayout } from '../blob/index.ts'

/** Number of an inode inside one image: v5 the inode index, v6 the nid. Safe integer, > 0. */
export type Ino = number

/** A reused, mutable record of one inode's attributes (as `stat` wants them). */
export class Attributes {
  ino = 0
  /** File type and permission bits (16 bits). */
  mode = 0
  nlink = 0
  uid = 0
  gid = 0
  /** Linux dev_t, 32 bits; devices only, else 0. */
  rdev = 0
  size = 0
  /** 512-byte units. */
  blocks = 0
  /** Seconds since 1970, may be negative. */
  mtime = 0
  mtimeNsec = 0
  hasXattrs = false
}

/** A part of one chunk that a file read needs. A reused, mutable record. */
export class ChunkSpan {
  blobIndex = 0
  /** The chunk's number in its blob. */
  chunkIndex = 0
  /** Start of the chunk in the blob's uncompressed address space, bytes. */
  chunkOffset = 0
  /** First wanted byte, counted from the chunk's start, and how many. */
  offsetInChunk = 0
  length = 0
}

/** Called for each entry; `false` stops the listing. `name` is a view that is valid during the call only. */
export type EntryVisitor = (name: Uint8Array, ino: Ino, type: number, cookie: number) => boolean

/**
 * A mounted image's metadata, over the bytes of its bootstrap; the same for RAFS v5 and v6. Nothing is parsed ahead: opening costs the same
 * for ten files and ten million. All methods are synchronous and may be called from any number of threads that each opened it
 * over the same SharedArrayBuffer. Every method throws RafsError when the bytes it meets are not a valid image: a hostile bootstrap
 * gives an error, never a wrong answer, an endless loop or a read outside the bytes.
 */
export interface Bootstrap {
  readonly version: 5 | 6
  /** Bytes of a (full) chunk. */
  readonly chunkSize: number
  readonly blobs: readonly BlobInfo[]
  readonly root: Ino
  /** Number of inodes that the superblock claims. */
  readonly inodeCount: number
  /** More paths than this cannot be in the bytes, unless directories share entries as no builder makes them. */
  readonly entryLimit: number
  /** False: owner ids mean nothing and readers show their own. */
  readonly explicitOwners: boolean
  readonly hasXattrs: boolean
  /** Its blobs are plain tars. Files tell where in them their chunks lie; there are no other records of chunks, and no digests: `layout` describes none. */
  readonly isTarfs: boolean
  lookup(directory: Ino, name: Uint8Array): Ino | undefined
  /** The directory that holds this directory; the root's is itself. */
  parent(directory: Ino): Ino
  attributes(ino: Ino, into: Attributes): void
  /** The layer's archive had no entry for this directory: over another one, its attributes mean nothing. Only images of ours tell. */
  isImplied(directory: Ino): boolean
  /** Entries after `cookie` (0 = from the start), `.` and `..` left out, bytewise order; `type` is the DT_* constant of readdir. */
  list(directory: Ino, cookie: number, visit: EntryVisitor): void
  readlink(ino: Ino): Uint8Array
  /** Full name (`user.x`, as bytes) and value; views valid until the bootstrap's bytes go. Order as stored. */
  xattrs(ino: Ino): Array<{ readonly name: Uint8Array; readonly value: Uint8Array }>
  /**
   * The chunks that cover `length` bytes from `offset` of a file, clipped to its size. Fills `into[0..n)`, adding records when it is too short,
   * and gives n. Adjacent in file order. Allocates nothing when `into` is long enough.
   */
  chunks(ino: Ino, offset: number, length: number, into: ChunkSpan[]): number
  /** Inodes of the prefetch table in table order; the root alone means "everything". */
  prefetch(): Ino[]
  /** Layout of one blob as this image's chunk records tell it. Built at the first call (one pass over the records), then kept. */
  layout(blobIndex: number): BlobLayout
}
