/** Values as Go's standard library and containerd encode them. Source: docs/formats/bolt.md, "Values". */

/** Go counts seconds from the year 1. */
const SECONDS_TO_1970 = 62_135_596_800n
const NANOSECONDS = 1_000_000_000n
/** Version 1, 8 + 4 + 2 bytes; version 2 has seconds of the zone in a byte more. */
const TIME_SIZES: ReadonlyMap<number, number> = new Map([
  [1, 15],
  [2, 16],
])
const UTC = -1
const I64 = { least: -(2n ** 63n), most: 2n ** 63n - 1n } as const
const MAX_VARINT = 10

/** `undefined` for what is no number below 2⁵³. */
export function readUvarint(bytes: Uint8Array): number | undefined {
  const value = uvarint(bytes)
  return value !== undefined && value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : undefined
}

/** Zig-zag. */
export function readVarint(bytes: Uint8Array): number | undefined {
  const value = uvarint(bytes)
  if (value === undefined) return undefined
  const signed = value & 1n ? -((value + 1n) / 2n) : value / 2n
  const number = Number(signed)
  return Number.isSafeInteger(number) ? number : undefined
}

export function writeUvarint(value: number): Buffer {
  return varint(BigInt(value))
}

export function writeVarint(value: number): Buffer {
  return varint(BigInt.asUintN(64, (BigInt(value) << 1n) ^ (BigInt(value) >> 63n)))
}

/** Nanoseconds since 1970, from `time.Time`'s binary form; `undefined` for what is none, or lies too far away. */
export function readGoTime(bytes: Uint8Array): bigint | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (bytes.length === 0 || TIME_SIZES.get(view.getUint8(0)) !== bytes.length) return undefined
  const time = (view.getBigInt64(1) - SECONDS_TO_1970) * NANOSECONDS + BigInt(view.getInt32(9))
  return time >= I64.least && time <= I64.most ? time : undefined
}

export function writeGoTime(time: bigint): Buffer {
  const bytes = Buffer.alloc(15)
  const nanoseconds = ((time % NANOSECONDS) + NANOSECONDS) % NANOSECONDS
  bytes.writeUInt8(1, 0)
  bytes.writeBigInt64BE((time - nanoseconds) / NANOSECONDS + SECONDS_TO_1970, 1)
  bytes.writeInt32BE(Number(nanoseconds), 9)
  bytes.writeInt16BE(UTC, 13)
  return bytes
}

function uvarint(bytes: Uint8Array): bigint | undefined {
  let value = 0n
  for (const [i, byte] of bytes.entries()) {
    if (i >= MAX_VARINT) return undefined
    value |= BigInt(byte & 0x7f) << BigInt(7 * i)
    if (byte < 0x80) return value < 2n ** 64n ? value : undefined
  }
  return undefined
}

function varint(value: bigint): Buffer {
  const bytes: number[] = []
  for (let rest = value; ; rest >>= 7n) {
    if (rest < 0x80n) return Buffer.from([...bytes, Number(rest)])
    bytes.push(Number(rest & 0x7fn) | 0x80)
  }
}
