/**
 * What a file system that can be written to needs of the FUSE wire beyond wire.ts. All offsets are bytes from the start of the body. Source: docs/formats/fuse-wire.md, "Writing".
 */

export const FILE_OPCODE = {
  SETATTR: 4,
  SYMLINK: 6,
  MKNOD: 8,
  MKDIR: 9,
  UNLINK: 10,
  RMDIR: 11,
  RENAME: 12,
  LINK: 13,
  WRITE: 16,
  FSYNC: 20,
  SETXATTR: 21,
  REMOVEXATTR: 24,
  FSYNCDIR: 30,
  CREATE: 35,
  FALLOCATE: 43,
  RENAME2: 45,
  COPY_FILE_RANGE: 47,
  TMPFILE: 51,
} as const

export const GETATTR_IN = { size: 16, flags: 0, handle: 8 } as const
/** `flags` bit 0: `handle` counts. */
export const GETATTR_HANDLE = 1
/** 88 bytes. */
export const SETATTR_IN = {
  valid: 0,
  handle: 8,
  length: 16,
  atime: 32,
  mtime: 40,
  atimeNsec: 56,
  mtimeNsec: 60,
  mode: 68,
  uid: 76,
  gid: 80,
} as const
/** Bits of `valid`. */
export const SET = {
  MODE: 1,
  UID: 2,
  GID: 4,
  SIZE: 8,
  ATIME: 16,
  MTIME: 32,
  HANDLE: 64,
  ATIME_NOW: 128,
  MTIME_NOW: 256,
} as const
export const OPEN_IN = { size: 8, flags: 0 } as const
/** And the name. */
export const CREATE_IN = { size: 16, flags: 0, mode: 4 } as const
export const MKNOD_IN = { size: 16, mode: 0, device: 4 } as const
export const MKDIR_IN = { size: 8, mode: 0 } as const
/** And two names. */
export const RENAME_IN = { size: 8, directory: 0 } as const
export const RENAME2_IN = { size: 16, directory: 0, flags: 8 } as const
export const LINK_IN = { size: 8, node: 0 } as const
/** And the data. `writeFlags` bit 0: pages that were kept, not a write of the process; `flags` are those of open(2). */
export const WRITE_IN = { size: 40, handle: 0, offset: 8, count: 16, writeFlags: 20, flags: 32 } as const
export const WRITE_KEPT = 1
/** READ, RELEASE, FLUSH, FSYNC, LSEEK, FALLOCATE: the handle comes first. */
export const HANDLE_AT = 0
export const FSYNC_IN = { size: 16, handle: 0, flags: 8 } as const
/** `flags` bit 0: data only. */
export const SYNC_DATA_ONLY = 1
/** And the name and value. */
export const SETXATTR_IN = { size: 8, count: 0, flags: 4 } as const
export const FALLOCATE_IN = { size: 32, handle: 0, offset: 8, length: 16, mode: 24 } as const
export const COPY_IN = {
  size: 56,
  handle: 0,
  offset: 8,
  toNode: 16,
  toHandle: 24,
  toOffset: 32,
  length: 40,
  flags: 48,
} as const
export const LSEEK_IN = { size: 24, handle: 0, offset: 8, whence: 16 } as const
export const FORGET_IN = { size: 8, lookups: 0 } as const
/** BATCH_FORGET: a count, then so many pairs of node and lookups. */
export const BATCH_FORGET_IN = { size: 8, count: 0, pair: 16 } as const

/** Flags of an answer to OPEN and OPENDIR. Section "Writing". */
export const OPENED = { KEEP_CACHE: 2, CACHE_DIR: 8 } as const
