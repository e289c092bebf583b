/** A chunk map file: a header page, then a bit a chunk. Source: docs/formats/cache.md, "Chunk map". All numbers little-endian. */

export const MAP_HEADER_SIZE = 4096
export const MAP_HEADER = { magic: 0, version: 4, magic2: 8, allReady: 12 } as const
const MAGIC = 0x424d_4150
const MAGIC2 = 0x434d_4150
export const ALL_READY = 0x4d4d_4150

/** Bytes of the bitmap of `chunkCount` chunks. */
export function bitmapSize(chunkCount: number): number {
  return Math.ceil(chunkCount / 8)
}

/** The bit of a chunk in its byte: chunk 0 is the highest. */
export function bitOf(chunk: number): number {
  return 0x80 >> (chunk & 7)
}

/** Bits of the last byte that belong to chunks; the others stay 0, since upstream counts them. */
export function lastByteMask(chunkCount: number): number {
  return chunkCount % 8 === 0 ? 0xff : (0xff00 >> (chunkCount % 8)) & 0xff
}

/** A whole map without any chunk. */
export function emptyMap(chunkCount: number): Buffer {
  const file = Buffer.alloc(MAP_HEADER_SIZE + bitmapSize(chunkCount))
  file.writeUInt32LE(MAGIC, MAP_HEADER.magic)
  file.writeUInt32LE(1, MAP_HEADER.version)
  file.writeUInt32LE(MAGIC2, MAP_HEADER.magic2)
  return file
}

/** A whole map with all of them, as it is before anyone opened it again. */
export function fullMap(chunkCount: number): Buffer {
  const file = emptyMap(chunkCount)
  file.fill(0xff, MAP_HEADER_SIZE)
  if (chunkCount > 0) file[file.length - 1] = lastByteMask(chunkCount)
  return file
}

/**
 * What a map file of the right size holds. 'blank': all zeros, which a crash between making a file and its header leaves. 'garbage': no chunk map.
 * Version 0 (made by old daemons) has the first magic only.
 */
export function judgeMap(file: Buffer): 'good' | 'blank' | 'garbage' {
  const magic = file.readUInt32LE(MAP_HEADER.magic)
  if (magic === 0) return file.every((byte) => byte === 0) ? 'blank' : 'garbage'
  if (magic !== MAGIC) return 'garbage'
  const version = file.readUInt32LE(MAP_HEADER.version)
  if (version === 0) return 'good'
  if (version !== 1 || file.readUInt32LE(MAP_HEADER.magic2) !== MAGIC2) return 'garbage'
  const allReady = file.readUInt32LE(MAP_HEADER.allReady)
  return allReady === 0 || allReady === ALL_READY ? 'good' : 'garbage'
}

/** True when every chunk's bit is set. `bitmap` has no padding bits set. */
export function isFull(bitmap: Uint8Array, chunkCount: number): boolean {
  for (let at = 0; at < bitmap.length - 1; at++) if (bitmap[at] !== 0xff) return false
  return bitmap.length > 0 && bitmap[bitmap.length - 1] === lastByteMask(chunkCount)
}
