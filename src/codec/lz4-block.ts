/**
 * LZ4 blocks in TypeScript. A block is a row of sequences: token (4 bits literal length, 4 bits match length − 4; 15 = more length bytes follow), literals,
 * offset (u16, little-endian, 1 … 65,535 back), further match length bytes. The last sequence has literals only; the last 5 bytes are literals.
 * Source: the LZ4 block format description.
 */
import { CodecError } from './errors.ts'

const MIN_MATCH = 4
/** No match starts in the last 12 bytes of the input, and the last 5 are literals. */
const MATCH_END_LIMIT = 12
const LAST_LITERALS = 5
const MAX_DISTANCE = 65_535
const HASH_BITS = 15

/** Positions by hash of four bytes; kept between calls, so entries are offset by a base that grows. */
const table = new Int32Array(1 << HASH_BITS)

/** Compresses into `into`; -1 when the block would not be strictly smaller than `from` or does not fit. */
export function compressLz4Block(from: Uint8Array, into: Uint8Array): number {
  const limit = Math.min(into.length, from.length - 1)
  table.fill(-1)
  let anchor = 0
  let out = 0
  let at = 0
  const matchLimit = from.length - MATCH_END_LIMIT
  let misses = 0
  while (at < matchLimit) {
    const word = read32(from, at)
    const slot = Math.imul(word, 0x9e37_79b1) >>> (32 - HASH_BITS)
    const candidate = table[slot] // the slot is in the table's range
    table[slot] = at
    if (candidate < 0 || at - candidate > MAX_DISTANCE || read32(from, candidate) !== word) {
      // Skips faster through what does not compress.
      at += 1 + (misses++ >> 6)
      continue
    }
    misses = 0
    const length = matchLength(from, candidate, at)
    out = writeSequence(from, anchor, at - anchor, into, out, limit, at - candidate, length)
    if (out < 0) return -1
    at += length
    anchor = at
  }
  out = writeSequence(from, anchor, from.length - anchor, into, out, limit, 0, 0)
  return out
}

function matchLength(from: Uint8Array, candidate: number, at: number): number {
  const end = from.length - LAST_LITERALS
  let length = MIN_MATCH
  while (at + length < end && from[candidate + length] === from[at + length]) length++
  return length
}

/** Writes literals and, unless `distance` is 0, a match. Gives the new end of the output, -1 when it does not fit. */
function writeSequence(
  from: Uint8Array,
  start: number,
  literals: number,
  into: Uint8Array,
  at: number,
  limit: number,
  distance: number,
  length: number,
): number {
  const extra = length - MIN_MATCH
  const needed = 1 + lengthBytes(literals) + literals + (distance === 0 ? 0 : 2 + lengthBytes(extra))
  if (at + needed > limit) return -1
  let out = at + 1
  into[at] = (Math.min(literals, 15) << 4) | (distance === 0 ? 0 : Math.min(extra, 15))
  out = writeLength(into, out, literals)
  if (literals < 32) for (let index = 0; index < literals; index++) into[out + index] = from[start + index]
  else into.set(from.subarray(start, start + literals), out)
  out += literals
  if (distance === 0) return out
  into[out++] = distance & 255
  into[out++] = distance >> 8
  return writeLength(into, out, extra)
}

function lengthBytes(length: number): number {
  return length < 15 ? 0 : 1 + Math.floor((length - 15) / 255)
}

function writeLength(into: Uint8Array, at: number, length: number): number {
  if (length < 15) return at
  let rest = length - 15
  let out = at
  for (; rest >= 255; rest -= 255) into[out++] = 255
  into[out++] = rest
  return out
}

function read32(from: Uint8Array, at: number): number {
  return from[at] | (from[at + 1] << 8) | (from[at + 2] << 16) | (from[at + 3] << 24) | 0
}

/** Fills `into` exactly from one block, or throws CodecError. Reads and writes inside both arrays only. */
export function decompressLz4Block(from: Uint8Array, into: Uint8Array): void {
  let at = 0
  let out = 0
  const readLength = (start: number): number => {
    if (start < 15) return start
    let length = start
    for (let byte = 255; byte === 255; length += byte) {
      if (at >= from.length) throw corrupt('it ends within a length')
      byte = from[at++]
    }
    return length
  }
  for (;;) {
    if (at >= from.length) throw corrupt('it ends without a last literal run')
    const token = from[at++]
    const literals = readLength(token >> 4)
    if (at + literals > from.length) throw corrupt('literals run past its end')
    if (out + literals > into.length) throw tooLong(into.length)
    into.set(from.subarray(at, at + literals), out)
    at += literals
    out += literals
    if (at === from.length) break
    if (at + 2 > from.length) throw corrupt('it ends within an offset')
    const distance = from[at] | (from[at + 1] << 8)
    at += 2
    if (distance === 0 || distance > out) throw corrupt(`a match starts ${distance} bytes back at output byte ${out}`)
    const length = readLength(token & 15) + MIN_MATCH
    if (out + length > into.length) throw tooLong(into.length)
    if (distance >= length) into.copyWithin(out, out - distance, out - distance + length)
    else for (let index = 0; index < length; index++) into[out + index] = into[out + index - distance]
    out += length
  }
  if (out < into.length) throw new CodecError('TRUNCATED', `lz4: ${out} bytes where ${into.length} were wanted`)
}

function corrupt(why: string): CodecError {
  return new CodecError('CORRUPT', `lz4: not a valid block: ${why}`)
}

function tooLong(wanted: number): CodecError {
  return new CodecError('TOO_LONG', `lz4: more than the ${wanted} bytes wanted`)
}
