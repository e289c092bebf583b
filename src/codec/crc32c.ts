import { createRequire } from 'node:module'

let native: ((bytes: Uint8Array, seed: number) => number) | undefined

/** CRC-32C (Castagnoli, as iSCSI and EROFS use it) of bytes; `seed` continues an earlier call's result. Unsigned. */
export function crc32c(bytes: Uint8Array, seed = 0): number {
  native ??= open()
  return native(bytes, seed) >>> 0
}

function open(): (bytes: Uint8Array, seed: number) => number {
  try {
    const library = createRequire(import.meta.url)('@node-rs/crc32') as {
      crc32c(bytes: Uint8Array, seed: number): number
    }
    return (bytes, seed) => library.crc32c(bytes, seed)
  } catch {
    // No prebuilt library for this platform: the table does it.
    return portableCrc32c
  }
}

let table: Uint32Array | undefined

/** The same in TypeScript, a byte at a time. */
export function portableCrc32c(bytes: Uint8Array, seed = 0): number {
  table ??= makeTable()
  let crc = ~seed
  for (let index = 0; index < bytes.length; index++) crc = table[(crc ^ bytes[index]) & 255] ^ (crc >>> 8)
  return ~crc >>> 0
}

function makeTable(): Uint32Array {
  return Uint32Array.from({ length: 256 }, (_unused, byte) => {
    let crc = byte
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ ((crc & 1) * 0x82f6_3b78)
    return crc
  })
}
