/** Pages of bolt databases. Source: docs/formats/bolt.md. */

/** 8 + 2 + 2 + 4 bytes. */
export const PAGE = { id: 0, flags: 8, count: 10, overflow: 12, size: 16 } as const
export const PAGE_FLAG = { branch: 1, leaf: 2, meta: 4, freelist: 0x10 } as const

/** After the header of pages 0 and 1: 4 + 4 + 4 + 4 + 8 + 8 + 8 + 8 + 8 + 8 bytes. The checksum is of the 56 bytes before it. */
export const META = {
  magic: 0,
  version: 4,
  pageSize: 8,
  flags: 12,
  root: 16,
  sequence: 24,
  freelist: 32,
  highWater: 40,
  transaction: 48,
  checksum: 56,
  size: 64,
} as const
export const MAGIC = 0xed0cdaed
export const VERSION = 2

/** Key and value lie at `position` from the element's own start. */
export const LEAF = { flags: 0, position: 4, keySize: 8, valueSize: 12, size: 16 } as const
export const BRANCH = { position: 0, keySize: 4, page: 8, size: 16 } as const
/** Of a leaf element: its value is a bucket. */
export const IS_BUCKET = 1
/** The value of a bucket. Root 0: a leaf page follows, inside the value. */
export const BUCKET = { root: 0, sequence: 8, size: 16 } as const

const FNV_OFFSET = 0xcbf29ce484222325n
const FNV_PRIME = 0x100000001b3n

/** FNV-1a of 64 bits. */
export function checksum(bytes: Uint8Array): bigint {
  let hash = FNV_OFFSET
  for (const byte of bytes) hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * FNV_PRIME)
  return hash
}
