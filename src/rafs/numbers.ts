export function roundUp(value: number, to: number): number {
  return Math.ceil(value / to) * to
}

/** 64 bits, also of negative numbers. `>>> 0` is the value modulo 2^32, also of numbers beyond 32 bits. */
export function setLong(view: DataView, at: number, value: number): void {
  view.setUint32(at, value >>> 0, true)
  view.setInt32(at + 4, Math.floor(value / 2 ** 32), true)
}
