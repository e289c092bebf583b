/** SipHash-2-4 with a key of zeros (Aumasson and Bernstein, 2012). Numbers of 64 bits are two of 32, low half first: BigInt would make a ring of some peers cost tenths of a second. */

/** The four words that the rounds turn, `somepseudorandomlygeneratedbytes`. */
const INITIAL = Int32Array.of(
  0x70736575,
  0x736f6d65,
  0x6e646f6d,
  0x646f7261,
  0x6e657261,
  0x6c796765,
  0x79746573,
  0x74656462,
)
const [V0, V1, V2, V3] = [0, 2, 4, 6]
const state = new Int32Array(INITIAL.length)

/** The hash of bytes, its low and its high half, each an unsigned number of 32 bits. */
export function sipHash24(bytes: Uint8Array): readonly [low: number, high: number] {
  state.set(INITIAL)
  const whole = bytes.length & ~7
  for (let at = 0; at < whole; at += 8) take(word(bytes, at, at + 4), word(bytes, at + 4, at + 8))
  // The last word is what is left, and the length in the top byte.
  take(word(bytes, whole, whole + 4), (word(bytes, whole + 4, whole + 7) & 0xffffff) | (bytes.length << 24))
  state[V2] = at(V2) ^ 0xff
  for (let rounds = 0; rounds < 4; rounds += 1) round()
  return [(at(V0) ^ at(V1) ^ at(V2) ^ at(V3)) >>> 0, (at(V0 + 1) ^ at(V1 + 1) ^ at(V2 + 1) ^ at(V3 + 1)) >>> 0]
}

/** Up to four bytes, little-endian; beyond the end there are zeros. */
function word(bytes: Uint8Array, from: number, to: number): number {
  let value = 0
  for (let index = Math.min(to, bytes.length) - 1; index >= from; index -= 1) value = (value << 8) | (bytes[index] ?? 0)
  return value
}

function take(low: number, high: number): void {
  state[V3] = at(V3) ^ low
  state[V3 + 1] = at(V3 + 1) ^ high
  round()
  round()
  state[V0] = at(V0) ^ low
  state[V0 + 1] = at(V0 + 1) ^ high
}

function round(): void {
  add(V0, V1)
  turn(V1, 13)
  mix(V1, V0)
  swap(V0)
  add(V2, V3)
  turn(V3, 16)
  mix(V3, V2)
  add(V0, V3)
  turn(V3, 21)
  mix(V3, V0)
  add(V2, V1)
  turn(V1, 17)
  mix(V1, V2)
  swap(V2)
}

function at(index: number): number {
  return state[index] ?? 0
}

function add(to: number, from: number): void {
  const low = (at(to) >>> 0) + (at(from) >>> 0)
  state[to] = low
  state[to + 1] = at(to + 1) + at(from + 1) + (low > 0xffffffff ? 1 : 0)
}

function mix(to: number, from: number): void {
  state[to] = at(to) ^ at(from)
  state[to + 1] = at(to + 1) ^ at(from + 1)
}

/** To the left, by less than 32 bits. */
function turn(index: number, bits: number): void {
  const [low, high] = [at(index), at(index + 1)]
  state[index] = (low << bits) | (high >>> (32 - bits))
  state[index + 1] = (high << bits) | (low >>> (32 - bits))
}

/** To the left by 32 bits. */
function swap(index: number): void {
  const low = at(index)
  state[index] = at(index + 1)
  state[index + 1] = low
}
