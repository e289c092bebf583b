import { createCipheriv, createDecipheriv } from 'node:crypto'

export const CIPHER_PAGE_BYTES = 4096
const KEY_BYTES = 32
const BLOCK_BYTES = 16

/**
 * AES-128-XTS of pages of 4096 bytes, each with a tweak of zeros. So all pages share one sequence of tweaks, and any number of them is one call of AES-ECB between two exclusive ors: a call a page would cost
 * several times as much.
 */
export class PageCipher {
  readonly #key: Uint8Array
  /** Tweaks of a page's blocks. */
  readonly #mask: Uint32Array

  /** `key`: 32 bytes, its halves different. Throws RangeError. */
  constructor(key: Uint8Array) {
    const half = KEY_BYTES / 2
    if (key.length !== KEY_BYTES || Buffer.compare(key.subarray(0, half), key.subarray(half)) === 0)
      throw new RangeError('an AES-128-XTS key has 32 bytes, whose halves differ')
    this.#key = key.slice(0, half)
    this.#mask = tweaks(key.slice(half))
  }

  /** `pages` has a multiple of 4096 bytes and stays as it is. */
  encrypt(pages: Uint8Array): Uint8Array {
    return this.#masked(createCipheriv('aes-128-ecb', this.#key, null), pages)
  }

  decrypt(pages: Uint8Array): Uint8Array {
    return this.#masked(createDecipheriv('aes-128-ecb', this.#key, null), pages)
  }

  #masked(
    cipher: ReturnType<typeof createCipheriv> | ReturnType<typeof createDecipheriv>,
    pages: Uint8Array,
  ): Uint8Array {
    if (pages.length % CIPHER_PAGE_BYTES !== 0) throw new RangeError(`${pages.length} bytes are not whole pages`)
    const words = new Uint32Array(pages.length / 4)
    const bytes = new Uint8Array(words.buffer)
    bytes.set(pages)
    this.#mix(words)
    bytes.set(cipher.setAutoPadding(false).update(bytes))
    this.#mix(words)
    return bytes
  }

  #mix(words: Uint32Array): void {
    const mask = this.#mask
    for (let at = 0; at < words.length; at += 1) words[at] = (words[at] ?? 0) ^ (mask[at & (mask.length - 1)] ?? 0)
  }
}

/** The encrypted tweak of zeros, and its products with the powers of α in GF(2^128): x^128 + x^7 + x^2 + x + 1, little-endian. */
function tweaks(key: Uint8Array): Uint32Array {
  const words = new Uint32Array(CIPHER_PAGE_BYTES / 4)
  const bytes = new Uint8Array(words.buffer)
  bytes.set(createCipheriv('aes-128-ecb', key, null).setAutoPadding(false).update(new Uint8Array(BLOCK_BYTES)))
  for (let at = BLOCK_BYTES; at < bytes.length; at += BLOCK_BYTES) {
    let carry = 0
    for (let index = 0; index < BLOCK_BYTES; index += 1) {
      const byte = bytes[at - BLOCK_BYTES + index] ?? 0
      bytes[at + index] = (byte << 1) | carry
      carry = byte >> 7
    }
    if (carry !== 0) bytes[at] = (bytes[at] ?? 0) ^ 0x87
  }
  return words
}
