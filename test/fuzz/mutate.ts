/** Damages inputs: fields get values that overflow, wrap or point at the wrong thing; pieces are moved, cut and exchanged. */
import type { Random } from '../random.ts'
import type { Seed } from './target.ts'

const BAD_VALUES: readonly bigint[] = [
  0n,
  1n,
  2n,
  7n,
  0x7fn,
  0x80n,
  0xffn,
  0xfffn,
  0x1000n,
  0x1001n,
  0x7fffn,
  0x8000n,
  0xffffn,
  0x10_0000n,
  0x100_0000n,
  0x7fff_ffffn,
  0x8000_0000n,
  0xffff_f000n,
  0xffff_ffffn,
  0x1_0000_0000n,
  0x1f_ffff_ffff_ffffn,
  0x20_0000_0000_0000n,
  0x7fff_ffff_ffff_ffffn,
  0x8000_0000_0000_0000n,
  0xffff_ffff_ffff_ffffn,
]
const WIDTHS = [1, 2, 4, 8] as const
const MAX_GROWTH = 4096

/** A changed copy of one of the seeds. */
export function mutated(seeds: readonly Seed[], random: Random): Uint8Array {
  const seed = seeds[random(seeds.length)] ?? { bytes: new Uint8Array(0), fields: [] }
  let bytes: Uint8Array = new Uint8Array(seed.bytes)
  for (let changes = 1 + random(random(4) === 0 ? 12 : 3); changes > 0; changes--) {
    const kind = random(20)
    if (kind < 12) setField(bytes, placeIn(bytes, seed, random), random)
    else if (kind < 14) flipBit(bytes, placeIn(bytes, seed, random), random)
    else if (kind === 14) copyWithin(bytes, random)
    else if (kind === 15) copyFrom(bytes, seeds[random(seeds.length)]?.bytes ?? bytes, random)
    else if (kind === 16) bytes.fill(random(256), placeIn(bytes, seed, random), random(bytes.length + 1))
    else if (kind === 17) bytes = bytes.slice(0, random(bytes.length + 1))
    else if (kind === 18) bytes = without(bytes, placeIn(bytes, seed, random), random)
    else bytes = grown(bytes, placeIn(bytes, seed, random), random)
  }
  return bytes
}

/** Mostly a field, else a byte that is not zero: large parts of some formats are padding. */
function placeIn(bytes: Uint8Array, { fields }: Seed, random: Random): number {
  const kind = random(10)
  if (kind < 6 && fields.length > 0) return fields[random(fields.length)] ?? 0
  let at = random(bytes.length)
  if (kind < 9) while (at < bytes.length && bytes[at] === 0) at++
  return at
}

function setField(bytes: Uint8Array, at: number, random: Random): void {
  const width = Math.min(WIDTHS[random(4)] ?? 1, bytes.length - at)
  if (width <= 0) return
  let value = readAt(bytes, at, width)
  const kind = random(6)
  if (kind < 3) value = BAD_VALUES[random(BAD_VALUES.length)] ?? 0n
  else if (kind === 3) value += BigInt(random(9)) - 4n
  else if (kind === 4) value = BigInt(bytes.length) + BigInt(random(3)) - 1n
  else value = readAt(bytes, random(bytes.length), width)
  for (let index = 0; index < width; index++) bytes[at + index] = Number((value >> BigInt(index * 8)) & 0xffn)
}

function readAt(bytes: Uint8Array, at: number, width: number): bigint {
  let value = 0n
  for (let index = width - 1; index >= 0; index--) value = (value << 8n) | BigInt(bytes[at + index] ?? 0)
  return value
}

function flipBit(bytes: Uint8Array, at: number, random: Random): void {
  if (at < bytes.length) bytes[at] = (bytes[at] ?? 0) ^ (1 << random(8))
}

function copyWithin(bytes: Uint8Array, random: Random): void {
  const from = random(bytes.length)
  bytes.copyWithin(random(bytes.length), from, from + 1 + random(256))
}

function copyFrom(bytes: Uint8Array, other: Uint8Array, random: Random): void {
  const at = random(bytes.length)
  const from = random(other.length)
  bytes.set(other.subarray(from, from + Math.min(1 + random(1024), bytes.length - at)), at)
}

function without(bytes: Uint8Array, at: number, random: Random): Uint8Array {
  const end = Math.min(bytes.length, at + 1 + random(random(2) === 0 ? 8 : MAX_GROWTH))
  return joined(bytes.subarray(0, at), bytes.subarray(end))
}

function grown(bytes: Uint8Array, at: number, random: Random): Uint8Array {
  const length = 1 + random(random(2) === 0 ? 8 : MAX_GROWTH)
  const from = random(bytes.length)
  return joined(bytes.subarray(0, at), bytes.subarray(from, from + length), bytes.subarray(at))
}

function joined(...parts: readonly Uint8Array[]): Uint8Array {
  const bytes = Buffer.concat(parts)
  return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length)
}
