import { type ChunkList, NO_CHUNKS } from './chunk-store.ts'
import type { RafsXattr } from './tree.ts'

/** What a file is, without its name. */
export interface NodeValues {
  /** Type and permission bits, 16 bits. */
  readonly mode: number
  readonly uid: number
  readonly gid: number
  /** Linux dev_t, 32 bits. */
  readonly rdev: number
  /** Seconds since 1970, may be negative. */
  readonly mtime: number
  readonly mtimeNsec: number
  /** Files: bytes of content. */
  readonly size: number
  readonly xattrs: readonly RafsXattr[]
  /** Of a symlink. */
  readonly target: Uint8Array | undefined
  /** Of a file. */
  readonly chunks: ChunkList
}

/** Values that are put together step by step. */
export type NewValues = { -readonly [key in keyof NodeValues]: NodeValues[key] }

/** Of root, from 1970, with nothing in it. */
export function newValues(mode: number): NewValues {
  return {
    mode,
    uid: 0,
    gid: 0,
    rdev: 0,
    mtime: 0,
    mtimeNsec: 0,
    size: 0,
    xattrs: [],
    target: undefined,
    chunks: NO_CHUNKS,
  }
}
