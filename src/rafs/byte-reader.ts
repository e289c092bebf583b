import { RafsError } from './errors.ts'

/**
 * Little-endian fields of a bootstrap, each access checked against its length. Words are read through one DataView, so that the call sites stay monomorphic
 * and nothing is allocated.
 */
export class ByteReader {
  readonly bytes: Uint8Array
  readonly length: number
  readonly #view: DataView

  constructor(bytes: Uint8Array) {
    this.bytes = bytes
    this.length = bytes.length
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  }

  u8(at: number): number {
    this.check(at, 1)
    return this.bytes[at] // checked above
  }

  u16(at: number): number {
    this.check(at, 2)
    return this.#view.getUint16(at, true)
  }

  u32(at: number): number {
    this.check(at, 4)
    return this.#view.getUint32(at, true)
  }

  /** A 64-bit field as a number; 'OUT_OF_RANGE' when it is beyond 2^53. */
  u64(at: number): number {
    this.check(at, 8)
    const high = this.#view.getUint32(at + 4, true)
    if (high > 0x1f_ffff)
      throw new RafsError(
        'OUT_OF_RANGE',
        `the 64-bit field at byte ${at} of the bootstrap is beyond 2^53; the image is damaged or crafted`,
      )
    return high * 0x1_0000_0000 + this.#view.getUint32(at, true)
  }

  /** A signed 64-bit field (a time); clamped to ±2^53 so that odd times never make an image unreadable. */
  i64(at: number): number {
    this.check(at, 8)
    const value = this.#view.getInt32(at + 4, true) * 0x1_0000_0000 + this.#view.getUint32(at, true)
    return Math.max(-Number.MAX_SAFE_INTEGER, Math.min(Number.MAX_SAFE_INTEGER, value))
  }

  /** A view; valid as long as the bootstrap is. */
  view(at: number, length: number): Uint8Array {
    this.check(at, length)
    return this.bytes.subarray(at, at + length)
  }

  /** Text of a field padded with NULs. */
  text(at: number, length: number): string {
    let end = at
    this.check(at, length)
    while (end < at + length && this.bytes[end] !== 0) end++
    return Buffer.from(this.bytes.subarray(at, end)).toString('latin1')
  }

  check(at: number, length: number): void {
    if (!(at >= 0 && length >= 0 && at + length <= this.length)) {
      throw new RafsError(
        'OUT_OF_RANGE',
        `bytes ${at} to ${at + length} are outside the bootstrap of ${this.length} bytes; the image is damaged or truncated`,
      )
    }
  }
}
