/**
 * The FUSE wire, version 7.31 and later, little-endian: what is where. All offsets are bytes. Source: docs/formats/fuse-wire.md.
 */

/** Request header: 4 + 4 + 8 + 8 + 4 + 4 + 4 + 2 + 2 = 40 bytes. Section "Headers". */
export const REQUEST = { size: 40, length: 0, opcode: 4, unique: 8, node: 16, uid: 24, gid: 28, pid: 32 } as const

/** Reply header: 4 + 4 + 8 = 16 bytes; `error` is 0 or a negative errno, in a notification a positive code. Section "Headers". */
export const REPLY = { size: 16, length: 0, error: 4, unique: 8 } as const

export const OPCODE = {
  LOOKUP: 1,
  FORGET: 2,
  GETATTR: 3,
  READLINK: 5,
  OPEN: 14,
  READ: 15,
  STATFS: 17,
  RELEASE: 18,
  GETXATTR: 22,
  LISTXATTR: 23,
  FLUSH: 25,
  INIT: 26,
  OPENDIR: 27,
  READDIR: 28,
  RELEASEDIR: 29,
  ACCESS: 34,
  INTERRUPT: 36,
  DESTROY: 38,
  IOCTL: 39,
  BATCH_FORGET: 42,
  READDIRPLUS: 44,
  LSEEK: 46,
} as const

/** Attributes: 6 × 8 + 10 × 4 = 88 bytes. Section "Attributes". */
export const ATTR = {
  size: 88,
  ino: 0,
  bytes: 8,
  blocks: 16,
  atime: 24,
  mtime: 32,
  ctime: 40,
  atimeNsec: 48,
  mtimeNsec: 52,
  ctimeNsec: 56,
  mode: 60,
  nlink: 64,
  uid: 68,
  gid: 72,
  rdev: 76,
  blockSize: 80,
} as const

/** Answer of LOOKUP: 4 × 8 + 2 × 4 + 88 = 128 bytes. Section "Entries". */
export const ENTRY = { size: 128, node: 0, generation: 8, entryValid: 16, attrValid: 24, attr: 40 } as const

/** Answer of GETATTR: 8 + 4 + 4 + 88 = 104 bytes. Section "Attributes". */
export const ATTR_OUT = { size: 104, valid: 0, attr: 16 } as const

/** READ, READDIR and READDIRPLUS: 8 + 8 + 4 + … = 40 bytes. Section "Reading". */
export const READ_IN = { size: 40, offset: 8, count: 16 } as const

/** A directory record: 8 + 8 + 4 + 4 = 24 bytes and the name, padded to 8. Section "Directories". */
export const DIRENT = { size: 24, ino: 0, next: 8, nameLength: 16, type: 20 } as const

/** Answer of STATFS: 5 × 8 + 3 × 4 + 4 + 6 × 4 = 80 bytes. Section "File system". */
export const STATFS_OUT = { size: 80, files: 24, blockSize: 40, nameLength: 44, fragmentSize: 48 } as const

/** GETXATTR and LISTXATTR: 4 + 4 = 8 bytes (and the name); answer for count 0: 8 bytes. Section "Extended attributes". */
export const XATTR_IN = { size: 8, count: 0 } as const

/** Answer of OPEN and OPENDIR: 8 + 4 + 4 = 16 bytes. */
export const OPEN_OUT = { size: 16, flags: 8 } as const

export const INIT_IN = { major: 0, minor: 4, maxReadahead: 8, flags: 12, flags2: 16 } as const
/** Answer of INIT: 64 bytes. Section "Session start". */
export const INIT_OUT = {
  size: 64,
  major: 0,
  minor: 4,
  maxReadahead: 8,
  flags: 12,
  maxBackground: 16,
  congestion: 18,
  maxWrite: 20,
  timeGranularity: 24,
  maxPages: 28,
  flags2: 32,
} as const

/** Session flags by bit; those of bit 32 and up stand in `flags2`. Section "Session start". */
export const INIT_FLAG = {
  ASYNC_READ: 0,
  EXPORT_SUPPORT: 4,
  BIG_WRITES: 5,
  DO_READDIRPLUS: 13,
  READDIRPLUS_AUTO: 14,
  AUTO_INVAL_DATA: 12,
  ASYNC_DIO: 15,
  NO_OPEN_SUPPORT: 17,
  PARALLEL_DIROPS: 18,
  ABORT_ERROR: 21,
  MAX_PAGES: 22,
  CACHE_SYMLINKS: 23,
  NO_OPENDIR_SUPPORT: 24,
  EXPLICIT_INVAL_DATA: 25,
  INIT_EXT: 30,
  HAS_RESEND: 39,
} as const

/** Messages that nobody asked for. Section "Notifications". */
export const NOTIFY = { INVAL_INODE: 2, INVAL_ENTRY: 3, RESEND: 7 } as const
/** 8 + 8 + 8 = 24 bytes: node, first byte, count (0 = to the end). */
export const INVAL_INODE = { size: 24, node: 0, first: 8 } as const
/** 8 + 4 + 4 = 16 bytes, the name and a NUL. */
export const INVAL_ENTRY = { size: 16, parent: 0, nameLength: 8 } as const

/** Seconds that mean "for ever" to the kernel. */
export const FOREVER = 0x7fff_ffff
/** Pages of the largest READ. */
export const MAX_PAGES = 256
export const PAGE = 4096
export const MAX_READ_BYTES = MAX_PAGES * PAGE

/** Errnos that a file system answers with. */
export const ERRNO = {
  EPERM: 1,
  ENOENT: 2,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  EBADF: 9,
  EAGAIN: 11,
  EACCES: 13,
  EBUSY: 16,
  EEXIST: 17,
  EXDEV: 18,
  ENODEV: 19,
  ENOTDIR: 20,
  EISDIR: 21,
  EINVAL: 22,
  ENOTTY: 25,
  EFBIG: 27,
  EROFS: 30,
  ERANGE: 34,
  ENAMETOOLONG: 36,
  ENOSYS: 38,
  ENOTEMPTY: 39,
  ELOOP: 40,
  ENODATA: 61,
  EPROTO: 71,
  EOPNOTSUPP: 95,
  ECONNABORTED: 103,
  ENOTCONN: 107,
  ESTALE: 116,
} as const
