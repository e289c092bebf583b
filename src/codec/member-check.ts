import { crc32 } from './crc32.ts'
import { CodecError } from './errors.ts'

/** CRC-32 and length, 4 bytes each, little-endian, end a gzip member. RFC 1952 §2.3.1. */
const TRAILER_BYTES = 4 + 4

/** Compares what a gzip member inflates to with the checksum at its end. zlib would do it, in three times the time. */
export class MemberCheck {
  #crc = 0
  #length = 0
  /** The last bytes of the input before the one at hand. */
  readonly #before = Buffer.alloc(TRAILER_BYTES)

  /** The next plain bytes of the member. */
  update(plain: Uint8Array): void {
    this.#crc = crc32(plain, this.#crc)
    this.#length = (this.#length + plain.length) >>> 0
  }

  /** The input is used up, another follows. */
  pass(input: Uint8Array): void {
    const kept = input.subarray(-TRAILER_BYTES)
    this.#before.copyWithin(0, kept.length)
    this.#before.set(kept, TRAILER_BYTES - kept.length)
  }

  /** The member ended with the bytes before `end` of the input. Throws CodecError 'CORRUPT'. */
  finish(input: Uint8Array, end: number): void {
    const trailer = Buffer.alloc(TRAILER_BYTES)
    trailer.set(this.#before)
    const own = input.subarray(Math.max(0, end - TRAILER_BYTES), end)
    trailer.copyWithin(0, own.length)
    trailer.set(own, TRAILER_BYTES - own.length)
    const [crc, length] = [this.#crc, this.#length]
    this.#crc = this.#length = 0
    if (trailer.readUInt32LE(0) !== crc || trailer.readUInt32LE(4) !== length)
      throw new CodecError('CORRUPT', 'gzip: a member does not inflate to what its checksum says')
  }
}
