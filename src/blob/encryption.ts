/**
 * AES-128-XTS of chunks, batches and compression contexts: every unit of a blob with the same key and tweak. Source: docs/formats/blob.md, "Encryption".
 */
import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto'
import { BlobError } from './errors.ts'

/** The key of an encrypted blob, as its image tells it. */
export interface BlobCipher {
  /** 32 bytes: two different AES keys. */
  readonly key: Uint8Array
  /** 16 bytes, the tweak of every unit. */
  readonly iv: Uint8Array
}

/** XTS takes no less; what is shorter is stored as 18 bytes: itself, bytes that tell how many they are, and the marker. */
const SHORTEST = 16
const PADDED_SIZE = 18
const KEY_SIZE = 32
const IV_SIZE = 16
const MARKER = [0x78, 0x90] as const

/**
 * The bytes that were encrypted. `size`: how many they were, undefined where only the padding tells; 18 bytes that end like a padded unit are taken for one then. Throws
 * BlobError 'BAD_DIGEST' for what cannot be encrypted data.
 */
export function decrypt(stored: Uint8Array, cipher: BlobCipher, size: number | undefined): Uint8Array {
  if (stored.length < SHORTEST)
    throw new BlobError('BAD_DIGEST', `${stored.length} bytes are no encrypted data, which has ${SHORTEST} or more`)
  const plain = createDecipheriv('aes-128-xts', cipher.key, cipher.iv).update(stored)
  if (plain.length !== PADDED_SIZE || size === PADDED_SIZE) return plain
  const padding = plain[SHORTEST - 1] ?? 0
  const isPadded =
    plain[SHORTEST] === MARKER[0] &&
    plain[SHORTEST + 1] === MARKER[1] &&
    padding > 0 &&
    padding <= SHORTEST &&
    plain.subarray(SHORTEST - padding, SHORTEST).every((byte) => byte === padding)
  return isPadded ? plain.subarray(0, SHORTEST - padding) : plain
}

/** A key for one blob: random, its halves different, as AES-XTS demands. */
export function createCipher(): BlobCipher {
  for (;;) {
    const key = randomBytes(KEY_SIZE)
    if (!key.subarray(0, KEY_SIZE / 2).equals(key.subarray(KEY_SIZE / 2))) return { key, iv: randomBytes(IV_SIZE) }
  }
}

/** The bytes of a unit as they are stored. */
export function encrypt(plain: Uint8Array, cipher: BlobCipher): Uint8Array {
  return createCipheriv('aes-128-xts', cipher.key, cipher.iv).update(plain.length < SHORTEST ? padded(plain) : plain)
}

function padded(plain: Uint8Array): Uint8Array {
  const unit = new Uint8Array(PADDED_SIZE).fill(SHORTEST - plain.length)
  unit.set(plain)
  unit.set(MARKER, SHORTEST)
  return unit
}

/** Whether bytes, encrypted, would be taken for a shorter unit that was padded, by a reader who does not know their number. */
export function looksPadded(plain: Uint8Array): boolean {
  return plain.length === PADDED_SIZE && plain[SHORTEST] === MARKER[0] && plain[SHORTEST + 1] === MARKER[1]
}

/** Bytes that a unit of that size may take when it is encrypted. */
export function encryptedSize(size: number): number {
  return size < SHORTEST ? PADDED_SIZE : size
}
